"""Reads plain arrays of HDF5 files: no links to other files, no Python objects."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from m3col.errors import InputError, reason_of

T = TypeVar("T")

NUMBERS = "biuf"  # kinds of dtypes

TEXTS = "S"

_LARGEST = 2_000_000_000  # bytes of an array


def read(path: Path, use: Callable[[Any], T], faults: list[str]) -> T | None:
    """What `use` returns for the opened file; None, with a fault, if the file is damaged.

    Raises:
        InputError: the package h5py is missing.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(["HDF5 files need the package h5py: pip install 'm3col[hdf5]'"]) from None
    try:
        with h5py.File(path, "r") as file:
            return use(file)
    # What h5py raises for damaged files.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        faults.append(f"{path}: cannot be read as HDF5 ({reason_of(error)})")
        return None


def array(
    file: Any, name: str, faults: list[str], *, path: Path, dimensions: int, kinds: str = NUMBERS
) -> Any | None:  # fmt: skip
    """An array of an opened file, of which nothing is read yet; None, with a fault, for anything else.

    Args:
        file: the opened file.
        name: of the array.
        faults: to which faults are added, one line each.
        path: of the file, for messages.
        dimensions: how many it must have.
        kinds: of its dtype, see `NUMBERS` and `TEXTS`.
    """
    import h5py

    link = file.get(name, getlink=True)
    data = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        faults.append(f"{path}: has no array {name!r} of its own; it has {', '.join(sorted(file))}")
        return None
    if data.shape is None or len(data.shape) != dimensions or data.dtype.kind not in kinds:
        faults.append(
            f"{path}: {name!r} must be {'numbers' if kinds == NUMBERS else 'texts'} in {dimensions} dimensions, but is "
            f"{data.dtype} {None if data.shape is None else list(data.shape)}"
        )
        return None
    size = math.prod(data.shape) * data.dtype.itemsize
    if size > _LARGEST:
        faults.append(f"{path}: {name!r} has {size / 1e9:,.1f} GB; at most {_LARGEST / 1e9:g} are read")
        return None
    return data
