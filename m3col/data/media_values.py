"""Tells images and texts in memory from numbers."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from m3col.data.columns import Kind

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_LOOKED_AT = 100  # items that decide


def kind_of_items(values: Any) -> Kind | None:
    """The kind of images or texts; None for anything else.

    Args:
        values: what a user passes for one modality. A list, an array or a Series of texts are texts, or images if each
            of them ends like the name of an image; paths and bytes are images.

    Example:
        >>> kind_of_items(["a cat", "a dog"]), kind_of_items(["1.jpg", "2.png"]), kind_of_items([[1.0], [2.0]])
        ('text', 'image', None)
    """
    if isinstance(values, pd.Series) or (getattr(values, "ndim", 0) == 1 and hasattr(values, "tolist")):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return None
    items = [item for item in values[:_LOOKED_AT] if item is not None]
    if items and all(isinstance(item, bytes | os.PathLike) for item in items):
        return "image"
    if items and all(isinstance(item, str) for item in items):
        return "image" if all(item.lower().endswith(_ENDINGS) for item in items) else "text"
    return None
