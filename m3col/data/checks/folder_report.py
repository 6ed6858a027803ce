"""The report of a folder check."""

from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Content, faults and warnings of a folder. All texts are ready for printing.

    Attributes:
        folder: the folder.
        columns: header of `rows`.
        rows: one row per file.
        class_columns: header of `class_rows`.
        class_rows: number of samples per class and split.
        faults: problems that make the folder unusable.
        warnings: suspicious properties.
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
