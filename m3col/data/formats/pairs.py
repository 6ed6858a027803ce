"""Pairs of an image and a text as read from a folder, and the collector of their faults."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from m3col.data.columns import Kind
from m3col.data.labels import Labels

MODALITIES = ("image", "text")

KINDS: dict[str, Kind] = {"image": "image", "text": "text"}

SHOWN = 5  # faults of one kind and file listed individually; the others are only counted


class FaultCollector:
    """Collects faults by file and kind while a folder is read."""

    def __init__(self) -> None:
        self._lines: dict[tuple[Path, str], list[str]] = {}

    def add(self, file: Path, kind: str, text: str, row: int | None = None) -> None:
        """Adds a fault. `kind`: faults of one file and kind are listed together. `row`: from 1; None: no row."""
        prefix = f"{file}: " if row is None else f"{file}: row {row}: "
        self._lines.setdefault((file, kind), []).append(prefix + text)

    def lines(self) -> list[str]:
        """The first faults of each kind and file, and one line with the number of the others."""
        listed = []
        for (file, kind), lines in self._lines.items():
            listed += lines[:SHOWN]
            if len(lines) > SHOWN:
                listed.append(f"{file}: {len(lines) - SHOWN} more rows: {kind}")
        return listed


@dataclass(frozen=True)
class Pair:
    """One row of a file.

    Attributes:
        file: the file.
        row: number of the row, from 1.
        image: path of the image relative to the folder.
        path: real path of the image; None if it cannot be used.
        text: the text; "" if there is none.
        label: the label; "" if there is none.
    """

    file: Path
    row: int
    image: str
    path: str | None
    text: str
    label: str


@dataclass
class Pairs:
    """The content of a folder as far as it could be read.

    Attributes:
        folder: the folder.
        columns: columns or fields whose texts are joined.
        splits: the pairs of each split.
        tables: of several labels per sample, or numbers: the labels of each split; the pairs then have none.
        dropped: number of pairs that were left out, by reason.
        faults: the faults.
        warnings: suspicious properties, one line each.
    """

    folder: Path
    columns: tuple[str, ...] = ()
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    tables: dict[str, Labels] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    faults: FaultCollector = field(default_factory=FaultCollector)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur in training, sorted; of tables the names of their columns."""
        if "train" in self.tables:
            return self.tables["train"].classes or ()
        return tuple(sorted({pair.label for pair in self.splits.get("train", ()) if pair.label}))

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
