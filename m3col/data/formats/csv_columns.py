"""Where a data set of images and texts keeps what: columns of its CSV files, or fields of its records."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """`image`, `label`: names of columns; `text`: columns or fields whose texts are joined, None: the data set's."""

    image: str = "image"
    text: tuple[str, ...] | None = None
    label: str = "label"
