"""What a config says about the content of a data set: columns (or JSON fields) with image, text and label, and what is
drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from m3col.config.modality_sections import TrifeaturesConfig


@dataclass(frozen=True)
class Layout:
    """Names of columns, and the settings of data sets that are drawn.

    Attributes:
        image: column with paths of images.
        text: columns or fields whose texts are joined; None: the default of the data set.
        label: column with labels, or several; see `label_columns`.
        form: what the labels are, see m3col.data.label_tables.
        trifeatures: images and targets of Trifeatures.
    """

    image: str = "image"
    text: tuple[str, ...] | None = None
    label: str | tuple[str, ...] = "label"
    trifeatures: TrifeaturesConfig = TrifeaturesConfig()  # noqa: RUF009 - frozen
    form: str = "class"

    def label_columns(self, header: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """The columns of a table of labels, for several labels per sample or numbers.

        Args:
            header: the columns of the file.

        Returns:
            The name of each label or target by its column: the columns that `label` lists; else all that begin with
            `label:`, named by what follows; else the column `label`. And the columns that are missing.
        """
        if not isinstance(self.label, str):
            named = {column: column for column in self.label}
        else:
            prefix = f"{self.label}:"
            named = {column: column.removeprefix(prefix).strip() for column in header if column.startswith(prefix)}
            named = named or {self.label: self.label}
        return named, tuple(column for column in named if column not in header)
