"""The columns (or JSON fields) of an image and text data set that contain image, text and label."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Names of columns.

    Attributes:
        image: column with paths of images.
        text: columns or fields whose texts are joined; None: the default of the data set.
        label: column with labels.
    """

    image: str = "image"
    text: tuple[str, ...] | None = None
    label: str = "label"
