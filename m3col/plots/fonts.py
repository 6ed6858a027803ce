"""Names that people gave, as text in figures: literal, in a font that has their characters, and told apart where no
installed font has them."""

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from m3col.runtime import notices

_BOX = "\N{WHITE SQUARE}"

_NO_FONTS = ("Last Resort",)  # it has a box for every character

# Asked first: many fonts hold a few characters of a script, and these hold all.
_PREFERRED = ("Noto Sans", "Noto", "Source Han", "IPA", "WenQuanYi", "Droid Sans Fallback", "Arial Unicode", "Unifont")

_SHOWN = 5

_told: set[str] = set()


def literal(text: str) -> str:
    """The text as matplotlib is to be given it, to be shown as it is: a pair of `$` would be read as a formula, a line
    break would make lines, and legends leave out what begins with `_`."""
    flat = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return ("\N{ZERO WIDTH SPACE}" if flat.startswith("_") else "") + flat.replace("$", r"\$")


def names(given: Sequence[str], kind: str = "class") -> list[str]:
    """The names as texts of a figure. One with characters that no installed font has becomes its number, with what is
    legible of it, and that is a warning. `kind`: what they are names of."""
    found, lost = [], {}
    for number, name in enumerate(given):
        text = literal(name)
        if lacking(text):
            legible = " ".join("".join(" " if lacking(c) else c for c in text).split()).strip("\N{ZERO WIDTH SPACE}")
            text = f"{kind} {number}: {legible}" if legible else f"{kind} {number}"
            lost[name] = text
        found.append(text)
    if lost:
        shown = ", ".join(f"{name} as {text!r}" for name, text in list(lost.items())[:_SHOWN])
        _warn(lost, f"figures show {shown}{', ...' if len(lost) > _SHOWN else ''}")
    return found


def settle(figure: Figure) -> None:
    """Gives each text of a finished figure the fonts that its characters need. Characters that no installed font has
    become boxes, and that is a warning."""
    lost: dict[str, str] = {}
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]  # it makes them
        if isinstance(axis.get_major_locator(), FixedLocator) and any(map(lacking, labels)):
            axis.set_ticklabels([_boxed(label, lost) for label in labels])
    for text in _texts(figure):
        if lacking(text.get_text()):
            text.set_text(_boxed(text.get_text(), lost))
        _choose_fonts(text)
    if lost:
        _warn(lost, f"figures show boxes in {', '.join(lost)}")


def lacking(text: str) -> set[str]:
    """The characters of a text that no installed font has."""
    return {c for c in set(text) - {"\n"} if ord(c) not in _default() and _font_with(c) is None}


def _texts(figure: Figure) -> Iterator[Text]:
    for found in figure.findobj(Text):
        assert isinstance(found, Text)
        if found.get_text():
            yield found


def _boxed(text: str, lost: dict[str, str]) -> str:
    missing = lacking(text)
    # Joiners and the like have no look of their own.
    new = "".join(("" if _is_mark(c) else _BOX) if c in missing else c for c in text)
    if _BOX in new and new != text:
        lost[text] = new
    return new


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Mn")


def _choose_fonts(text: Text) -> None:
    own = _characters(font_manager.findfont(text.get_fontproperties()))
    wanted = [c for c in dict.fromkeys(text.get_text()) if c != "\n" and ord(c) not in own]
    more = [name for c in wanted if ord(c) not in _default() and (name := _font_with(c)) is not None]
    if len(more) < len(wanted):  # bold letters are often fewer
        text.set_fontweight("normal")
    if more:
        text.set_fontfamily([*text.get_fontfamily(), *dict.fromkeys(more)])


def _warn(lost: Iterable[str], what: str) -> None:
    new = [name for name in lost if name not in _told]
    if new:
        _told.update(new)
        notices.warn(
            f"no installed font has all characters of these names: {what}; install a font that has them, such as Noto "
            "Sans CJK (Debian: fonts-noto-cjk) or Noto Sans of their script (fonts-noto)"
        )


def _default() -> frozenset[int]:
    return _characters(font_manager.findfont(FontProperties()))


@functools.cache
def _characters(path: Any) -> frozenset[int]:
    """Code points of the characters that a font file has."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # no font, or one of a kind that cannot be drawn
        return frozenset()


@functools.lru_cache(maxsize=4096)
def _font_with(character: str) -> str | None:
    """The family of an installed font that has a character, None where none has it."""
    return next((name for name, path in _installed() if ord(character) in _characters(path)), None)


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    """Families and files of the upright fonts of normal weight, those first that hold many scripts."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():  # installed after matplotlib made its list
        if path not in known:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):
                continue
    upright = [
        e for e in manager.ttflist if e.style == "normal" and str(e.weight) in ("400", "normal", "regular", "book")
    ]
    found = {entry.name: entry.fname for entry in upright if not entry.name.startswith(_NO_FONTS)}

    def rank(name: str) -> tuple[int, str]:
        return next((place for place, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED)), name

    return tuple((name, found[name]) for name in sorted(found, key=rank))
