"""What a config says about the content of a data set: columns (or JSON fields) with image, text and label, and what is
drawn."""

from dataclasses import dataclass

from m3col.config.modality_sections import TrifeaturesConfig


@dataclass(frozen=True)
class Layout:
    """Names of columns, and the settings of data sets that are drawn.

    Attributes:
        image: column with paths of images.
        text: columns or fields whose texts are joined; None: the default of the data set.
        label: column with labels.
        trifeatures: images and targets of Trifeatures.
    """

    image: str = "image"
    text: tuple[str, ...] | None = None
    label: str = "label"
    trifeatures: TrifeaturesConfig = TrifeaturesConfig()  # noqa: RUF009 - frozen
