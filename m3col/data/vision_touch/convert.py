"""Converts a folder of HDF5 files of Vision & Touch to a folder that `m3col train vision_touch` reads.

Paper: Lee et al., "Making Sense of Vision and Touch", arXiv 1810.10191, as MultiBench and CoMM (arXiv 2409.07402) use
it.
Differs: published code validates on its test split. Here validation samples are drawn from the training files.
"""

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m3col.data.formats import conversion
from m3col.data.sequences import files
from m3col.data.vision_touch import hdf5_files
from m3col.errors import InputError, nearest

NAME = "vision_touch"

POSITION = ("x", "y", "z", "yaw")  # the four targets

SPLITS = ("file", "recording")

_SEED = 42  # of the published split

_TRAIN_SHARE = 0.8


def convert(folder: Path, to: Path, *, split: str = "file") -> list[str]:
    """Converts all `.h5` files of a folder, one after the other.

    Args:
        folder: with the files.
        to: the new folder.
        split: what is drawn for the test split: "file", a fifth of the files, as published, where pieces of one
            recording are in both splits; or "recording", a fifth of the recordings.

    Returns:
        Remarks, one line each.

    Raises:
        InputError: with the faults of every file; or the folder exists or cannot be written.
    """
    conversion.check_new(to)
    if split not in SPLITS:
        raise InputError([f"--split: {split!r} is unknown{nearest(split, SPLITS)}"])
    paths = sorted(folder.glob("*.h5")) if folder.is_dir() else []
    if not paths:
        raise InputError([f"{folder}: is not a folder with .h5 files"])
    members = drawn(paths, split)
    with conversion.new_folder(to) as draft:
        (draft / "images").mkdir()
        return _write(draft, paths, members, split)


def drawn(paths: Sequence[Path], split: str) -> dict[Path, str]:
    """The split of each file, "train" or "test". Raises InputError where recordings cannot be told from the names."""
    strange = [path.name for path in paths if not hdf5_files.is_piece(path)]
    if split == "recording" and strange:
        shown = f"{strange[0]!a}{f' and {len(strange) - 1} more' if len(strange) > 1 else ''}"
        text = "has no number of a piece in its name (such as ..._3_1000.h5), so that recordings cannot be told apart"
        raise InputError([f"{paths[0].parent}: {shown} {text}; draw files instead"])
    units = [hdf5_files.recording_of(path) if split == "recording" else path.name for path in paths]
    order = sorted(set(units))
    random.Random(_SEED).shuffle(order)
    if len(order) < 2:
        raise InputError([f"{paths[0].parent}: has one {split} alone; at least two are needed for training and test"])
    training = set(order[: min(max(1, round(_TRAIN_SHARE * len(order))), len(order) - 1)])
    return {path: "train" if unit in training else "test" for path, unit in zip(paths, units, strict=True)}


def _write(draft: Path, paths: Sequence[Path], members: dict[Path, str], split: str) -> list[str]:
    """Writes everything into a folder that exists. Raises InputError with the faults of all files."""
    faults: list[str] = []
    ids: list[str] = []
    force: list[Any] = []
    proprio: list[Any] = []
    rows: dict[str, list[list[Any]]] = {"train": [], "test": []}
    of_split: dict[str, set[str]] = {"train": set(), "test": set()}
    sizes: tuple[tuple[int, ...], int] | None = None
    for number, path in enumerate(paths):
        steps = hdf5_files.read(path, faults)
        if steps is None:
            continue
        own = steps.images.shape[1:], steps.proprio.shape[1]
        if sizes is not None and own != sizes:
            now, before = (f"images {list(size[0])} and {size[1]} numbers of proprioception" for size in (own, sizes))
            faults.append(f"{path}: has {now}, but the files before have {before}")
        if faults:
            continue
        sizes = own
        names = [f"{number:05d}-{step:02d}" for step in range(len(steps.images))]
        for name, pixels in zip(names, steps.images, strict=True):
            Image.fromarray(np.ascontiguousarray(pixels)).save(draft / "images" / f"{name}.png", compress_level=1)
        ids += names
        force += [*steps.force]
        proprio += [*steps.proprio]
        of_split[members[path]].add(steps.recording)
        labels = zip(names, steps.position.tolist(), steps.contact.tolist(), strict=True)
        rows[members[path]] += [[name, steps.recording, int(contact), *four] for name, four, contact in labels]
    if faults:
        raise InputError(faults)
    for name, lines in rows.items():
        _csv(draft / f"{name}.csv", ["id", "group", "contact", *POSITION], lines)
    _csv(draft / "image.csv", ["id", "image"], ([name, f"images/{name}.png"] for name in ids))
    _csv(draft / "proprio.csv", ["id", *(f"proprio_{number}" for number in range(len(proprio[0])))],
         ([name, *row.tolist()] for name, row in zip(ids, proprio, strict=True)))  # fmt: skip
    files.write_file(draft / "force.safetensors", force, ids=ids)
    remarks = _remarks(of_split, split)
    if not all(map(hdf5_files.is_piece, paths)):
        remarks.append("the names of some files have no number of a piece: each of these is a group of its own")
    conversion.write(draft, NAME, remarks, label="contact")
    return remarks


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _remarks(recordings: dict[str, set[str]], split: str) -> list[str]:
    both = recordings["train"] & recordings["test"]
    lines = ["published code validates on its test split; here validation samples are drawn from the training split"]
    if both:
        lines.append(
            f"{len(both)} of {len(set.union(*recordings.values()))} recordings have pieces in the training and in the "
            "test split, as published; `--split recording` keeps them apart"
        )
    elif split == "recording":
        lines.append("whole recordings are in the test split; published figures are for a split of files")
    return lines
