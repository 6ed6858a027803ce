"""The description of a named data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from m3col.data.columns import Kind
from m3col.data.dataset import Dataset
from m3col.data.formats.csv_columns import Layout


class Read(Protocol):
    """Reads a folder.

    `select`: modalities by name or number from 1. `splits`: those that may be opened. `layout`: columns of images,
    texts and labels. `images`: whether to decode all images to validate them; otherwise the files must only exist.
    Raises InputError with all faults.
    """

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
    """A named data set.

    Attributes:
        name: name in the config.
        description: one line for listings.
        read: reads its folder.
        modalities: names in the order of the files; None: read from the folder.
        classes: class names; None: read from the folder.
        default: modalities used if none are selected; None: all.
        kinds: kinds of the modalities that are not numeric tables.
        text: columns or fields whose texts are joined, if the config names none.
        embedded: whether it needs no folder, because it is drawn or bundled with a library.
        generic: whether it stands for any folder of its layout.
        looks_like: whether a folder has its layout.
        known_issues: one line for reports.
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
