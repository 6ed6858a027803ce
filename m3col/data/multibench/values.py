"""What a pickle of arrays may describe: arrays, their dtypes, and the few functions that build them.

None of the functions is called. Each is replaced by one of ours, which checks its arguments and describes the result.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = "biufSU"  # truth values, integers, floats, texts of a fixed width

_MOST_DIMENSIONS = 8

_LARGEST_ITEM = 4096  # bytes of a value of an array

_LONGEST_TEXT = 200  # characters of a name or an id

Buffer = bytes | memoryview


class Refused(ValueError):
    """The pickle has something that is not read. The text is the end of a message."""


@dataclass(eq=False)
class DescribedDtype:
    """A dtype of NumPy.

    Attributes:
        code: such as "f8".
        order: the byte order, "<", ">", "|" or "=".
    """

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        """Sets the byte order from the state of a pickled dtype."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Refused("has an array of records, which is not read")
        order = text_of(state[1])
        if order not in ("<", ">", "|", "="):
            raise Refused(f"has a dtype with the unknown byte order {order!r:.20}")
        self.order = order

    def numpy(self) -> "np.dtype[Any]":
        """The dtype of NumPy. Raises Refused for Python objects, dates, records and other kinds."""
        code = self.code.lstrip("<>|=")
        kind, size = code[:1], code[1:]
        if kind not in _KINDS or not size.isascii() or not (size.isdigit() and int(size) <= _LARGEST_ITEM):
            raise Refused(f"has an array of the type {self.code!r:.20}, which is not read: numbers and texts are")
        try:
            return np.dtype(self.order.replace("|", "=") + code)
        except TypeError:
            raise Refused(f"has an array of the unknown type {self.code!r:.20}") from None


@dataclass(eq=False)
class DescribedArray:
    """An array of NumPy, of which only the description was read.

    Attributes:
        shape: its shape.
        dtype: its dtype; None: it was announced, but not described.
        data: its bytes, or the list of its Python objects.
        fortran: whether the first index is the fastest.
    """

    shape: tuple[int, ...] = ()
    dtype: DescribedDtype | None = None
    data: Buffer | list[Any] = b""
    fortran: bool = False

    def build(self, state: Any) -> None:
        """Sets everything from the state (version, shape, dtype, fortran, data) of a pickled array."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("has an array with an unknown state")
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):
            data = latin1(data)
        if not isinstance(dtype, DescribedDtype) or not isinstance(data, bytes | memoryview | list):
            raise Refused("has an array without a dtype or without values")
        self.shape, self.dtype, self.data, self.fortran = checked_shape(shape), dtype, data, bool(fortran)

    def numpy(self) -> NDArray[Any]:
        """The array. Raises Refused if it has Python objects, or another number of bytes than its shape says."""
        if self.dtype is None or isinstance(self.data, list):
            raise Refused("has Python objects in place of numbers")
        dtype = self.dtype.numpy()
        needed = math.prod(self.shape) * dtype.itemsize
        if needed != len(self.data):
            raise Refused(f"is damaged: {list(self.shape)} of {dtype} are {needed:,} bytes, not {len(self.data):,}")
        order: Any = "F" if self.fortran else "C"
        try:
            return np.frombuffer(self.data, dtype=dtype).reshape(self.shape, order=order)
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise Refused(f"has an array of the shape {self.shape!s:.60} that NumPy cannot make ({error})") from None

    def texts(self) -> list[str]:
        """The values as texts, for ids, of which each row may have several; joined with a blank."""
        if isinstance(self.data, list):
            if len(self.data) != math.prod(self.shape):
                raise Refused(f"is damaged: the shape {list(self.shape)} does not fit {len(self.data)} objects")
            cells = [text_of(cell) for cell in self.data]
        else:
            try:
                values = self.numpy().ravel().tolist()
            except (SystemError, UnicodeError) as error:
                raise Refused(f"has texts that are not Unicode ({error})") from None
            cells = [text_of(cell) for cell in values]
        rows = self.shape[0] if self.shape else 1
        width = len(cells) // rows if rows else 0
        return [" ".join(cells[row * width : (row + 1) * width]) for row in range(rows)]


@dataclass(frozen=True)
class Global:
    """A name of a module in a pickle.

    Attributes:
        name: such as "numpy.ndarray".
        make: describes what calling it gives; None: it is only an argument.
    """

    name: str
    make: Callable[[tuple[Any, ...]], Any] | None = field(default=None, compare=False)


def checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise Refused("has an array with an unknown shape")
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Refused(f"has an array with the size {size!r:.20}")
    return shape


def text_of(value: Any) -> str:
    """A printable text; bytes are read as UTF-8, numbers are written out, and "?" stands for anything else."""
    if isinstance(value, str | bytes | memoryview) and len(value) > _LONGEST_TEXT:
        raise Refused(f"has a name or an id of {len(value):,} characters")
    if isinstance(value, bytes | memoryview):
        value = bytes(value).decode("utf-8", errors="replace")
    if not isinstance(value, str | int | float):
        return "?"
    return "".join(character if character.isprintable() else "?" for character in str(value))


def latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("has bytes that are not written as latin-1") from None


def _reconstruct(arguments: tuple[Any, ...]) -> DescribedArray:
    return DescribedArray()


def _dtype(arguments: tuple[Any, ...]) -> DescribedDtype:
    if not arguments:
        raise Refused("has a dtype without a name")
    return DescribedDtype(text_of(arguments[0]))


def _encode(arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise Refused("has bytes in another encoding than latin-1")
    return latin1(arguments[0])


def _no_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise Refused("calls 'bytes' with arguments")
    return b""


def _scalar(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], DescribedDtype):
        raise Refused("has a number without a dtype")
    data = latin1(arguments[1]) if isinstance(arguments[1], str) else arguments[1]
    if not isinstance(data, bytes | memoryview):
        raise Refused("has a number that is a Python object")
    return DescribedArray((1,), arguments[0], data).numpy()[0].item()


def _from_buffer(arguments: tuple[Any, ...]) -> DescribedArray:
    if len(arguments) != 4 or not isinstance(arguments[1], DescribedDtype):
        raise Refused("has an array without a dtype")
    data, dtype, shape, order = arguments
    if not isinstance(data, bytes | memoryview):
        raise Refused("has an array without values")
    return DescribedArray(checked_shape(shape), dtype, data, text_of(order) == "F")


_MULTIARRAY = {"_reconstruct": _reconstruct, "scalar": _scalar}

GLOBALS: Mapping[str, Global] = {
    made.name: made
    for made in (
        Global("numpy.ndarray"),
        Global("numpy.dtype", _dtype),
        Global("_codecs.encode", _encode),
        Global("builtins.bytes", _no_bytes),
        Global("__builtin__.bytes", _no_bytes),
        *(
            Global(f"numpy.{package}.multiarray.{name}", make)
            for package in ("core", "_core")
            for name, make in _MULTIARRAY.items()
        ),
        *(Global(f"numpy.{package}.numeric._frombuffer", _from_buffer) for package in ("core", "_core")),
    )
}
