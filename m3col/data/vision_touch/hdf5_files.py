"""Reads one HDF5 file of Vision & Touch: 50 steps of a robot that puts a peg into a hole.

Letters: T steps of a file (50 as published), P numbers of the proprioception (8).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.formats import hdf5_arrays

_LAST_READINGS = 32  # of the force, as published

# <date>_<time>_..._<number of the piece>_<steps of the recording>.h5: pieces of one recording differ in the number.
_NAME = re.compile(r"(?P<recording>.+)_(?P<piece>\d+)_\d+")

_KEYS = {"image": 4, "ee_forces_continuous": 3, "proprio": 2, "contact": 2}  # number of dimensions


@dataclass(frozen=True)
class Steps:
    """The T - 1 samples of a file: sample t has the inputs of step t and the targets of step t + 1.

    Attributes:
        recording: name of the recording that the file is a piece of.
        images: [T - 1, H, W, 3] uint8.
        force: [T - 1, 32, 6] float32, the last readings of each step, after tanh.
        proprio: [T - 1, P] float32.
        position: [T - 1, 4] float32, the first four numbers of the next proprioception.
        contact: [T - 1] whether the peg touches anything in the next step.
    """

    recording: str
    images: NDArray[np.uint8]
    force: NDArray[np.float32]
    proprio: NDArray[np.float32]
    position: NDArray[np.float32]
    contact: NDArray[np.bool_]


def is_piece(path: Path) -> bool:
    """Whether the name of a file says which recording it is a piece of."""
    return _NAME.fullmatch(path.stem) is not None


def recording_of(path: Path) -> str:
    """The recording that a file is a piece of; the name of the file, if it says nothing."""
    match = _NAME.fullmatch(path.stem)
    name = match["recording"] if match else path.stem
    return name.encode("utf-8", errors="replace").decode("utf-8")  # names of files may be any bytes


def read(path: Path, faults: list[str]) -> Steps | None:
    """Reads a file; None, with every fault, if it cannot be used.

    Nothing but plain arrays inside of the file is read: no links to other files, no Python objects.
    """
    arrays = _arrays(path, faults)
    if arrays is None:
        return None
    steps = {name: len(array) for name, array in arrays.items()}
    if len(set(steps.values())) > 1 or min(steps.values()) < 2:
        counts = ", ".join(f"{name} {count}" for name, count in steps.items())
        faults.append(f"{path}: all arrays must have the same number of steps, at least 2, but have {counts}")
        return None
    before = len(faults)
    images, force, proprio = arrays["image"], arrays["ee_forces_continuous"], arrays["proprio"]
    if images.shape[1] == 3 != images.shape[3]:
        images = images.transpose(0, 2, 3, 1)  # the channels come first
    if images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        faults.append(f"{path}: 'image' must be uint8 [T, H, W, 3], but is {images.dtype} {list(images.shape)}")
    if force.shape[1] < _LAST_READINGS or force.shape[2] != 6:
        faults.append(f"{path}: 'ee_forces_continuous' must be [T, >= {_LAST_READINGS}, 6], but is {list(force.shape)}")
    if proprio.shape[1] < 4:
        faults.append(f"{path}: 'proprio' must be [T, >= 4], but is {list(proprio.shape)}")
    for name in ("ee_forces_continuous", "proprio", "contact"):
        with np.errstate(over="ignore"):
            finite = np.isfinite(arrays[name].astype(np.float32)).all()
        if not finite or 0 in arrays[name].shape:
            faults.append(f"{path}: {name!r} must have finite numbers of float32, at least one for each step")
    if len(faults) > before:
        return None
    return Steps(
        recording_of(path),
        images[:-1],
        np.tanh(force[:-1, -_LAST_READINGS:].astype(np.float32)),
        proprio[:-1].astype(np.float32),
        proprio[1:, :4].astype(np.float32),
        np.asarray((arrays["contact"][1:] > 0).any(axis=1)),
    )


def _arrays(path: Path, faults: list[str]) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file by name; None, with `faults`, if one is missing or of another form."""
    before = len(faults)

    def of_file(file: Any) -> dict[str, NDArray[Any]]:
        data = {
            name: hdf5_arrays.array(file, name, faults, path=path, dimensions=count) for name, count in _KEYS.items()
        }
        return {name: value[()] for name, value in data.items() if value is not None}

    arrays = hdf5_arrays.read(path, of_file, faults)
    return arrays if len(faults) == before else None
