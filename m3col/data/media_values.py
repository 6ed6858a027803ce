"""Images and texts in memory: tells them from numbers, and brings images into one form."""

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from m3col.data.columns import Kind
from m3col.data.formats.table_faults import is_number

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")

_LOOKED_AT = 100  # items that decide


def kind_of_items(values: Any) -> Kind | None:
    """The kind of images or texts; None for anything else.

    Args:
        values: what a user passes for one modality. Paths, bytes, images of Pillow and arrays [H, W, 3] are images, and
            so are texts of which at least half end like the name of an image. Other texts are texts, unless all of them
            are numbers.

    Example:
        >>> kind_of_items(["a cat", "a dog"]), kind_of_items(["1.jpg", "2.png"]), kind_of_items([[1.0], [2.0]])
        ('text', 'image', None)
    """
    if getattr(values, "ndim", 0) == 4:
        return "image"
    if isinstance(values, pd.Series) or (getattr(values, "ndim", 0) == 1 and hasattr(values, "tolist")):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return None
    items = [item for item in values[:_LOOKED_AT] if not _is_missing(item)]
    sure = sum(isinstance(item, bytes | os.PathLike | Image.Image) or _is_array(item) for item in items)
    if sure and sure + sum(isinstance(item, str) for item in items) == len(items):
        return "image"
    if not items or not all(isinstance(item, str) for item in items) or all(map(is_number, items)):
        return None
    endings = sum(item.lower().endswith(_ENDINGS) for item in items)
    return "image" if 2 * endings >= len(items) else "text"


def fault_of(values: Any) -> str:
    """Why values that look like images or texts cannot be used; "" if they do not look so.

    Args:
        values: what a user passes for one modality, neither images nor texts by `kind_of_items`.
    """
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1 and kind_of_items(values.iloc[:, 0]) is not None:
        cells = values.iloc[:_LOOKED_AT, 0]
        if not any(isinstance(cell, str) and is_number(cell) for cell in cells):  # else numbers with a wrong cell
            return f"is a table with one column of texts; hand over the column: frame[{values.columns[0]!r}]"
        return ""
    items = values.tolist() if isinstance(values, pd.Series) else values
    if isinstance(items, list | tuple) and items and all(isinstance(item, str) for item in items):
        return "has numbers written as texts; hand over a table of numbers: pandas.to_numeric(...).to_frame()"
    first = items[0] if isinstance(items, list | tuple | np.ndarray) and len(items) else None
    if getattr(first, "ndim", 0) == 2 and getattr(first, "dtype", None) == np.uint8:
        return "is uint8 [height, width] per sample: give grey images a last axis of 1, and sequences as float32"
    return ""


def as_file(image: Any) -> Any:
    """An image of Pillow or an array as the content of a PNG file; anything else unchanged.

    Args:
        image: an image of any form.

    Raises:
        ValueError: with the end of a message, for an array that is no image.
    """
    if _is_array(image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
            text = f"an array must be uint8 [height, width, 3], but is {array.dtype} {list(array.shape)}"
            raise ValueError(text + ("; move the channels to the end" if array.shape[0] in (1, 3, 4) else ""))
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if not isinstance(image, Image.Image):
        return image
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _is_missing(item: Any) -> bool:
    return item is None or item is pd.NA or (isinstance(item, float) and math.isnan(item))


def _is_array(item: Any) -> bool:
    return getattr(item, "ndim", 0) == 3 and hasattr(item, "dtype")
