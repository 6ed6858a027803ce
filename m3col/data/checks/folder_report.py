"""What a look at a folder found."""

from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """`rows` under `columns`: one per file; `class_rows` under `class_columns`: samples per class and split.
    `faults` forbid the use of the folder, `warnings` do not. All lines are ready for printing.
    """

    folder: Path
    columns: Row
    rows: tuple[Row, ...]
    class_columns: Row
    class_rows: tuple[Row, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.faults
