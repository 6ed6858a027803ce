"""Vision & Touch, converted by `m3col data convert vision_touch`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3col.data.dataset import Dataset
from m3col.data.formats import conversion, sequence_folder
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.errors import InputError

NAME = "vision_touch"

KNOWN_ISSUES = (
    "published code validates and chooses the cost of its linear evaluation on the test split, and its split of files "
    "has pieces of one recording in training and test"
)


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout,
    images: bool,
) -> Dataset:
    """Reads a converted folder. See `Read`."""
    if conversion.name_of(folder) is None and any(folder.glob("*.h5")):
        command = f"m3col data convert vision_touch {folder} --to {folder.with_name(f'{NAME}-data')}"
        raise InputError([f"{folder}: has HDF5 files, which are converted first: `{command}`"])
    dataset = sequence_folder.read(folder, entry, select or entry.default, splits, layout=layout)
    return replace(dataset, known_issues=entry.known_issues)


def looks_like(folder: Path) -> bool:
    """Whether the folder was converted from Vision & Touch."""
    return conversion.name_of(folder) == NAME


ENTRY = Entry(
    NAME,
    "147,000 steps of a robot that puts a peg into a hole: image, force and proprioception (MultiBench)",
    read,
    modalities=("force", "image", "proprio"),
    kinds={"force": "sequence", "image": "image"},
    default=("force", "image"),
    looks_like=looks_like,
    known_issues=KNOWN_ISSUES,
)
