"""Reads the arrays of a .npz file without NumPy's own loader, which may unpickle.

Only arrays of numbers, truth values and texts of a fixed width are read. The header of an array is matched with a
regular expression, not evaluated, and its size is compared with the archive's before memory is allocated.
"""

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from m3col.errors import InputError, reason_of

_MAGIC = b"\x93NUMPY"

_LONGEST_HEADER = 10_000  # bytes

_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|=][a-zA-Z]\d*)', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d+, ?)*\d*,?)\),? ?\} *\n?"
)

_PLAIN = re.compile(r"[<>|=](b1|[iu][1248]|f[248]|U\d{1,6})")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Reads all arrays of a .npz file.

    Args:
        path: the file, as `numpy.savez` or `numpy.savez_compressed` writes it.

    Returns:
        The arrays by name.

    Raises:
        InputError: the file is no such archive, is damaged, does not fit into memory, or has Python objects.
    """
    arrays, faults = dict[str, NDArray[Any]](), list[str]()
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            needed, free = sum(member.file_size for member in members), psutil.virtual_memory().available
            if needed > free:
                text = f"its arrays need {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free"
                raise InputError([f"{path}: {text}"])
            for member in members:
                name = member.filename.removesuffix(".npy")
                try:
                    arrays[name] = _array(archive, member)
                except ValueError as error:
                    faults.append(f"{path}: array {name!r:.60} {error}")
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError([f"{path}: cannot be read as .npz ({reason_of(error)})"]) from None
    if faults:
        raise InputError(faults)
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Reads one array. Raises ValueError with the end of a message."""
    with archive.open(member) as file:
        start = file.read(8)
        if start[:6] != _MAGIC or len(start) < 8:
            raise ValueError("is not in NumPy's format")
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(file.read(width), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"has a header of {length} bytes, longer than {_LONGEST_HEADER}")
        header = _HEADER.fullmatch(file.read(length).decode("latin-1"))
        if header is None or not _PLAIN.fullmatch(header["descr"]):
            raise ValueError("holds Python objects or records, which are not read; save numbers, or texts as <U")
        shape = tuple(int(number) for number in header["shape"].replace(",", " ").split())
        dtype = np.dtype(header["descr"])
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - 8 - width - length:
            raise ValueError(f"is damaged: {list(shape)} of {dtype} are {size} bytes, but it has another size")
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"is damaged: it must have {size} bytes, but has {len(content)}")
    order = "F" if header["fortran"] == "True" else "C"
    return np.frombuffer(content, dtype=dtype).reshape(shape, order=order)  # type: ignore[call-overload]
