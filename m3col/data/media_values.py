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
    if items and all(isinstance(item, bytes | os.PathLike | Image.Image) or _is_array(item) for item in items):
        return "image"
    if not items or not all(isinstance(item, str) for item in items) or all(map(is_number, items)):
        return None
    endings = sum(item.lower().endswith(_ENDINGS) for item in items)
    return "image" if 2 * endings >= len(items) else "text"


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
            raise ValueError(f"an array must be uint8 [height, width, 3], but is {array.dtype} {list(array.shape)}")
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if not isinstance(image, Image.Image):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _is_missing(item: Any) -> bool:
    return item is None or (isinstance(item, float) and math.isnan(item))


def _is_array(item: Any) -> bool:
    return getattr(item, "ndim", 0) == 3 and hasattr(item, "dtype")
