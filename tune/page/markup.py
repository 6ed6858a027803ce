"""HTML and SVG as text. Whatever is not `Html` is escaped, so that names of users are never markup."""

import html
import re
from collections.abc import Iterable
from typing import Any

_EMPTY_ELEMENTS = {"br", "input", "link", "meta"}  # elements without an end tag

_CODE = re.compile(r"`([^`]+)`")

_STRONG = re.compile(r"\*\*(.+?)\*\*")


class Html(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


_FOLDERS = re.compile(r"(?<![\w.:/])(?:/|~/|[A-Za-z]:\\)[^\s'\",;:)]*[\\/]")


def without_folders(text: str) -> str:
    """Returns a text in which of each absolute path only the last part is left.

    Args:
        text: an error message, a remark, a config.

    Example:
        >>> without_folders("no file '/home/alice/study/w.safetensors'")
        "no file '…/w.safetensors'"
    """
    return _FOLDERS.sub("…/", text)


def escaped(value: Any) -> Html:
    """Returns a value as text; `Html` is returned as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def joined(parts: Iterable[Any]) -> Html:
    """Returns the parts one after the other, escaped where they are not markup."""
    return Html("".join(escaped(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Returns one element.

    Args:
        name: of the element, such as "td".
        children: its content, in order; text is escaped.
        attributes: `class_` is `class`, and other underscores are hyphens (`stroke_width`). None and False are left
            out, True is an attribute without a value.

    Returns:
        The element as markup.

    Example:
        >>> tag("td", "a < b", class_="num")
        '<td class="num">a &lt; b</td>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{html.escape(str(value), quote=True)}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if name in _EMPTY_ELEMENTS else f"{opened}{joined(children)}</{name}>")


def inline(text: str) -> Html:
    """Returns a sentence of the report as markup: `**` marks important words, backquotes mark names."""
    parts = []
    for number, part in enumerate(_CODE.split(text)):
        safe = html.escape(part, quote=True)
        parts.append(f"<code>{safe}</code>" if number % 2 else safe)
    return Html(_STRONG.sub(r"<strong>\1</strong>", "".join(parts)))
