"""Reads a pickle of arrays, texts, numbers, lists and dicts as data. Nothing of it is imported or called.

The file is mapped into memory, so that the bytes of arrays are read only where they are used. Each opcode takes at
least one byte; their number, the depth of the stack and the bytes that are copied are bounded.
"""

import codecs
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3col.data.multibench.values import GLOBALS, DescribedArray, DescribedDtype, Global, Refused
from m3col.errors import InputError, reason_of

_MOST_OPCODES = 2_000_000

_DEEPEST_STACK = 500_000

_LONGEST_LINE = 1_000  # bytes of a number or a name that is written as text

_LONGEST_INTEGER = 16  # bytes

_COPIED = 4  # bytes that may be copied, in sizes of the file

_LEAST_COPIED = 1_000_000

_OTHER_FILES = {
    b"\x1f\x8b": "a gzip file, which is unpacked first",
    b"PK": "a zip file",
    b"<": "a web page",
    b"version https://git-lfs": "a pointer of git-lfs: fetch the file itself",
    b"\x89HDF": "an HDF5 file",
}

_Handler = Callable[["_Reader"], None]


class _Mark:
    """The start of a list, tuple or dict on the stack."""


_MARK = _Mark()


def read(path: Path) -> Any:
    """Reads the value that a pickle describes.

    Args:
        path: the file, of any protocol.

    Returns:
        Dicts, lists, tuples, numbers, texts, bytes, and `DescribedArray` for arrays of NumPy.

    Raises:
        InputError: the file cannot be read, is damaged, or has anything else; with the position of the first fault.
    """
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise InputError([f"{path}: is empty"])
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError([f"{path}: cannot be read ({reason_of(error)})"]) from None
    for start, kind in _OTHER_FILES.items():
        if content[: len(start)] == start:
            raise InputError([f"{path}: is {kind}, not a pickle"])
    reader = _Reader(content)
    try:
        return reader.value()
    except Refused as error:
        raise InputError([f"{path}: {error} (byte {reader.position:,})"]) from None


class _Reader:
    """The stack and the memo while a pickle is read.

    Attributes:
        position: byte of the file that is read next.
    """

    def __init__(self, content: "mmap.mmap | bytes") -> None:
        self._content, self._view, self.position = content, memoryview(content), 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left_to_copy = max(_COPIED * len(self._view), _LEAST_COPIED)

    def value(self) -> Any:
        for _ in range(_MOST_OPCODES):
            code = self.take(1)[0]
            if code == _STOP:
                return self.pop()
            handler = _HANDLERS.get(code)
            if handler is None:
                raise Refused(f"{_why_not(code)}; a pickle of arrays has no such part, or the file is damaged")
            handler(self)
            if len(self._stack) > _DEEPEST_STACK:
                raise Refused(f"keeps more than {_DEEPEST_STACK:,} values open")
        raise Refused(f"has more than {_MOST_OPCODES:,} parts")

    def take(self, count: int) -> memoryview:
        """The next bytes, without a copy."""
        part = self._view[self.position : self.position + count]
        if len(part) < count or count < 0:
            raise Refused(f"ends too early: {count:,} bytes were announced, {len(part):,} are left")
        self.position += count
        return part

    def copied(self, count: int) -> bytes:
        """The next bytes as an object of their own."""
        part = self.take(count)
        self.spend(count)
        return bytes(part)

    def spend(self, count: int) -> None:
        self._left_to_copy -= count
        if self._left_to_copy < 0:
            raise Refused("would need many times its own size of memory")

    def number(self, form: str) -> Any:
        (result,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return result

    def line(self, longest: int = _LONGEST_LINE) -> bytes:
        """The bytes up to the end of the line."""
        start = self.position
        end = self._content.find(b"\n", start, start + longest + 1)
        if end < 0:
            raise Refused("has a line that does not end")
        self.position = end + 1
        self.spend(end - start)
        return bytes(self._view[start:end])

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise Refused("is damaged: a value is missing")
        return self._stack.pop()

    def top(self) -> Any:
        if not self._stack:
            raise Refused("is damaged: a value is missing")
        return self._stack[-1]

    def pop_to_mark(self) -> list[Any]:
        for depth in range(len(self._stack) - 1, -1, -1):
            if self._stack[depth] is _MARK:
                values = self._stack[depth + 1 :]
                del self._stack[depth:]
                return values
        raise Refused("is damaged: a list has no start")

    def remember(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self.top()

    def recall(self, key: int) -> None:
        if key not in self._memo:
            raise Refused(f"is damaged: it refers to value {key}, which it has not")
        self.push(self._memo[key])


def _integer(reader: _Reader, count: int) -> None:
    if count > _LONGEST_INTEGER:
        raise Refused(f"has an integer of {count:,} bytes")
    reader.push(int.from_bytes(reader.take(count), "little", signed=True))


def _integer_text(reader: _Reader) -> None:
    line = reader.line()
    if line in (b"00", b"01"):  # truth values of protocol 0
        reader.push(line == b"01")
        return
    try:
        reader.push(int(line.removesuffix(b"L")))
    except ValueError:
        raise Refused(f"has an integer that is none: {line[:30]!r}") from None


def _float_text(reader: _Reader) -> None:
    line = reader.line()
    try:
        reader.push(float(line))
    except ValueError:
        raise Refused(f"has a number that is none: {line[:30]!r}") from None


def _quoted(reader: _Reader) -> None:
    """Bytes in quotes, as Python 2 wrote them."""
    line = reader.line(len(reader._view)).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Refused("is damaged: a text has no quotes")
    try:
        reader.push(codecs.escape_decode(line[1:-1])[0])
    except ValueError:
        raise Refused("is damaged: a text has a wrong escape") from None


def _escaped(reader: _Reader) -> None:
    line = reader.line(len(reader._view))
    try:
        reader.push(line.decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        raise Refused("is damaged: a text has a wrong escape") from None


def _text(reader: _Reader, count: int) -> None:
    try:
        reader.push(reader.copied(count).decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        raise Refused("is damaged: a text is not UTF-8") from None


def _tuple(reader: _Reader, count: int) -> None:
    values = [reader.pop() for _ in range(count)]
    reader.push(tuple(values[::-1]))


def _extend(reader: _Reader, values: list[Any]) -> None:
    target = reader.top()
    if not isinstance(target, list):
        raise Refused("is damaged: values are added to something that is no list")
    target.extend(values)


def _update(reader: _Reader, pairs: list[Any]) -> None:
    target = reader.top()
    if not isinstance(target, dict) or len(pairs) % 2:
        raise Refused("is damaged: entries are added to something that is no dict")
    target.update(_pairs(pairs))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2 or not all(isinstance(key, str | int | float | bytes | None) for key in values[::2]):
        raise Refused("has a dict with a key that is neither a text nor a number")
    return dict(zip(values[::2], values[1::2], strict=True))


def _global(reader: _Reader, module: Any, name: Any) -> None:
    full = f"{module}.{name}"
    if full not in GLOBALS:
        raise Refused(f"names {full!r:.120}, which is not read; nothing was called")
    reader.push(GLOBALS[full])


def _global_lines(reader: _Reader) -> None:
    module, name = (reader.line().decode("utf-8", errors="replace") for _ in range(2))
    _global(reader, module, name)


def _stack_global(reader: _Reader) -> None:
    name, module = reader.pop(), reader.pop()
    _global(reader, module, name)


def _reduce(reader: _Reader) -> None:
    arguments, function = reader.pop(), reader.pop()
    if not isinstance(function, Global) or function.make is None or not isinstance(arguments, tuple):
        raise Refused("calls something that is no array, dtype or number; nothing was called")
    reader.spend(sum(len(part) for part in arguments if isinstance(part, str | bytes | memoryview)))
    reader.push(function.make(arguments))


def _build(reader: _Reader) -> None:
    state, target = reader.pop(), reader.top()
    if not isinstance(target, DescribedArray | DescribedDtype):
        raise Refused("sets the state of something that is no array")
    if isinstance(state, tuple):
        reader.spend(sum(len(part) for part in state if isinstance(part, str)))
    target.build(state)


def _put_line(reader: _Reader) -> None:
    _integer_text(reader)
    reader.remember(int(reader.pop()))


def _get_line(reader: _Reader) -> None:
    _integer_text(reader)
    reader.recall(int(reader.pop()))


_STOP = ord(".")

_HANDLERS: dict[int, _Handler] = {
    ord(code): handler
    for code, handler in {
        "\x80": lambda r: r.take(1),  # protocol
        "\x95": lambda r: r.take(8),  # length of a frame, whose content follows as usual
        "(": lambda r: r.push(_MARK),
        "0": lambda r: r.pop(),
        "1": lambda r: r.pop_to_mark(),
        "2": lambda r: r.push(r.top()),
        "N": lambda r: r.push(None),
        "\x88": lambda r: r.push(True),
        "\x89": lambda r: r.push(False),
        "F": _float_text,
        "G": lambda r: r.push(r.number(">d")),
        "I": _integer_text,
        "L": _integer_text,
        "J": lambda r: r.push(r.number("<i")),
        "K": lambda r: r.push(r.number("<B")),
        "M": lambda r: r.push(r.number("<H")),
        "\x8a": lambda r: _integer(r, r.number("<B")),
        "\x8b": lambda r: _integer(r, r.number("<I")),
        "S": _quoted,
        "T": lambda r: r.push(r.take(r.number("<i"))),
        "U": lambda r: r.push(r.copied(r.number("<B"))),
        "B": lambda r: r.push(r.take(r.number("<I"))),
        "C": lambda r: r.push(r.copied(r.number("<B"))),
        "\x8e": lambda r: r.push(r.take(r.number("<Q"))),
        "\x96": lambda r: r.push(r.take(r.number("<Q"))),
        "V": _escaped,
        "X": lambda r: _text(r, r.number("<I")),
        "\x8c": lambda r: _text(r, r.number("<B")),
        "\x8d": lambda r: _text(r, r.number("<Q")),
        "]": lambda r: r.push([]),
        "l": lambda r: r.push(r.pop_to_mark()),
        "a": lambda r: _extend(r, [r.pop()]),
        "e": lambda r: _extend(r, r.pop_to_mark()),
        ")": lambda r: r.push(()),
        "t": lambda r: r.push(tuple(r.pop_to_mark())),
        "\x85": lambda r: _tuple(r, 1),
        "\x86": lambda r: _tuple(r, 2),
        "\x87": lambda r: _tuple(r, 3),
        "}": lambda r: r.push({}),
        "d": lambda r: r.push(_pairs(r.pop_to_mark())),
        "s": lambda r: _update(r, [r.pop(), r.pop()][::-1]),
        "u": lambda r: _update(r, r.pop_to_mark()),
        "p": _put_line,
        "q": lambda r: r.remember(r.number("<B")),
        "r": lambda r: r.remember(r.number("<I")),
        "\x94": lambda r: r.remember(None),
        "g": _get_line,
        "h": lambda r: r.recall(r.number("<B")),
        "j": lambda r: r.recall(r.number("<I")),
        "c": _global_lines,
        "\x93": _stack_global,
        "R": _reduce,
        "b": _build,
    }.items()
}

_REFUSED = {
    "i": "creates an object of a class", "o": "creates an object of a class", "\x81": "creates an object of a class",
    "\x92": "creates an object of a class", "P": "refers to an object outside of the file",
    "Q": "refers to an object outside of the file", "\x82": "refers to an extension",
    "\x83": "refers to an extension", "\x84": "refers to an extension", "\x8f": "has a set", "\x90": "has a set",
    "\x91": "has a set", "\x97": "has bytes outside of the file", "\x98": "has bytes outside of the file",
}  # fmt: skip


def _why_not(code: int) -> str:
    return _REFUSED.get(chr(code), f"has the unknown code {code}")
