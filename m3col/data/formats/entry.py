"""What the table of data sets says of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from m3col.data.columns import Kind
from m3col.data.dataset import Dataset
from m3col.data.formats.csv_columns import Layout


class Read(Protocol):
    """Reads a folder. `select`: modalities by name or number from 1; `splits`: those that may be opened; `layout`:
    columns of a data set of images and texts; `images`: decode them all to judge them; otherwise they must only be
    there. Raises InputError with every fault."""

    def __call__(
        self,
        folder: Path,
        entry: "Entry",
        select: Sequence[str | int] | None,
        splits: Sequence[str],
        *,
        layout: Layout,
        images: bool,
    ) -> Dataset: ...


@dataclass(frozen=True)
class Entry:
    """A named data set. `modalities`: names in the order of the files (None: read from the folder); `default`: those
    used where none are chosen (None: all); `kinds`: of those that do not hold numbers; `text`: columns or fields that
    make its text where the config names none; `embedded` sets need no folder; `generic`: any folder of that layout;
    `looks_like(folder)`: whether a folder has it; `known_issues` is one line for reports.
    """

    name: str
    description: str
    read: Read
    modalities: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    default: tuple[str, ...] | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    text: tuple[str, ...] | None = None
    embedded: bool = False
    generic: bool = False
    looks_like: Callable[[Path], bool] = lambda folder: False
    known_issues: str = ""
