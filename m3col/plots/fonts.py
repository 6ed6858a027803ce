"""Names from users (of classes, modalities, words) as text in figures.

A name is shown literally, in a font that has its characters. Names that no installed font can show get numbers, so that
they stay distinguishable.
"""

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

_NO_FONTS = ("Last Resort",)  # it shows every character as a box

# Preferred, because many other fonts have only a few characters of a script.
_PREFERRED = ("Noto Sans", "Noto", "Source Han", "IPA", "WenQuanYi", "Droid Sans Fallback", "Arial Unicode", "Unifont")

_SHOWN = 5

_warned: set[str] = set()


def literal(text: str) -> str:
    """Escapes a text so that matplotlib shows it literally, on one line.

    Matplotlib reads a pair of `$` as a formula, and legends omit labels that begin with `_`.
    """
    flat = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return ("\N{ZERO WIDTH SPACE}" if flat.startswith("_") else "") + flat.replace("$", r"\$")


def names(originals: Sequence[str], kind: str = "class") -> list[str]:
    """Texts for a figure, one per name. Warns of names that no installed font can show.

    Such a name becomes `kind` and its number (`class 3`), followed by its legible characters.
    """
    texts, replaced = [], {}
    for number, name in enumerate(originals):
        text = literal(name)
        if lacking(text):
            legible = " ".join("".join(" " if lacking(c) else c for c in text).split()).strip("\N{ZERO WIDTH SPACE}")
            text = f"{kind} {number}: {legible}" if legible else f"{kind} {number}"
            replaced[name] = text
        texts.append(text)
    if replaced:
        shown = ", ".join(f"{name} as {text!r}" for name, text in list(replaced.items())[:_SHOWN])
        _warn(replaced, f"figures show {shown}{', ...' if len(replaced) > _SHOWN else ''}")
    return texts


def settle(figure: Figure) -> None:
    """Sets the fonts of each text of a finished figure to ones that have its characters.

    Characters that no installed font has become boxes, with a warning.
    """
    lost: dict[str, str] = {}
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]  # this call creates the labels
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
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text():
            yield text


def _boxed(text: str, lost: dict[str, str]) -> str:
    missing = lacking(text)
    # Joiners and combining marks are invisible alone: they get no box.
    new = "".join(("" if _is_mark(c) else _BOX) if c in missing else c for c in text)
    if _BOX in new and new != text:
        lost[text] = new
    return new


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Mn")


def _choose_fonts(text: Text) -> None:
    own = _characters(font_manager.findfont(text.get_fontproperties()))
    missing = [c for c in dict.fromkeys(text.get_text()) if c != "\n" and ord(c) not in own]
    fallbacks = [name for c in missing if ord(c) not in _default() and (name := _font_with(c)) is not None]
    if len(fallbacks) < len(missing):  # bold fonts often have fewer characters
        text.set_fontweight("normal")
    if fallbacks:
        text.set_fontfamily([*text.get_fontfamily(), *dict.fromkeys(fallbacks)])


def _warn(unshown: Iterable[str], consequence: str) -> None:
    new = [name for name in unshown if name not in _warned]
    if new:
        _warned.update(new)
        notices.warn(
            f"no installed font has all characters of these names: {consequence}; install a font that has them, such "
            "as Noto Sans CJK (Debian: fonts-noto-cjk) or Noto Sans of their script (fonts-noto)"
        )


def _default() -> frozenset[int]:
    return _characters(font_manager.findfont(FontProperties()))


@functools.cache
def _characters(path: Any) -> frozenset[int]:
    """Code points of the characters that a font file has."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # not a font, or a format that FreeType cannot read
        return frozenset()


@functools.lru_cache(maxsize=4096)
def _font_with(character: str) -> str | None:
    """The family of an installed font that has a character, or None."""
    return next((name for name, path in _installed() if ord(character) in _characters(path)), None)


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    """Families and files of the upright fonts of normal weight, `_PREFERRED` ones first."""
    manager = font_manager.fontManager
    listed = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():  # installed after matplotlib made its list
        if path not in listed:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):
                continue
    upright = [
        e for e in manager.ttflist if e.style == "normal" and str(e.weight) in ("400", "normal", "regular", "book")
    ]
    files = {entry.name: entry.fname for entry in upright if not entry.name.startswith(_NO_FONTS)}

    def rank(name: str) -> tuple[int, str]:
        return next(
            (position for position, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED)
        ), name

    return tuple((name, files[name]) for name in sorted(files, key=rank))
