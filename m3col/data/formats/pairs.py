"""Pairs of an image and a text as a reader finds them, and the collector of their faults."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from m3col.data.columns import Kind

MODALITIES = ("image", "text")

KINDS: dict[str, Kind] = {"image": "image", "text": "text"}

SHOWN = 5  # faults of one kind and file that are named one by one; the rest is counted


class FaultCollector:
    """Faults while a folder is read, kept by file and kind."""

    def __init__(self) -> None:
        self._lines: dict[tuple[Path, str], list[str]] = {}

    def add(self, file: Path, kind: str, text: str, row: int | None = None) -> None:
        place = f"{file}: " if row is None else f"{file}: row {row}: "
        self._lines.setdefault((file, kind), []).append(place + text)

    def lines(self) -> list[str]:
        """The first five of each kind and file, and how many more there are."""
        listed = []
        for (file, kind), lines in self._lines.items():
            listed += lines[:SHOWN]
            if len(lines) > SHOWN:
                listed.append(f"{file}: {len(lines) - SHOWN} more rows: {kind}")
        return listed


@dataclass(frozen=True)
class Pair:
    """A row of a file. `image`: its path relative to the folder; `path`: its real path, None where it cannot be used;
    `text`, `label`: "" where there is none."""

    file: Path
    row: int
    image: str
    path: str | None
    text: str
    label: str


@dataclass
class Pairs:
    """What a folder holds, as far as it could be read. `columns`: those that the texts come from; `dropped`: pairs that
    were left out, by reason; `warnings`: what is suspicious."""

    folder: Path
    columns: tuple[str, ...] = ()
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    found: FaultCollector = field(default_factory=FaultCollector)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur in training, sorted."""
        return tuple(sorted({pair.label for pair in self.splits.get("train", ()) if pair.label}))

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
