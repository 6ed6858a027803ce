"""The 2,600 images of Trifeatures: a shape with a texture and a colour on grey ground, as uint8 RGB.

Letters: S side of the image in pixels; A coverage by the shape in [0, 1]; B mask of the texture.
Image = A B colour + (1 - A B) 0.5, then floor(255 v).

An image depends on (seed, combination, copy, S) alone, whatever is drawn before it.
Differs: the published code takes all numbers from one generator. Here each image has draws of its own.
Differs: only S = 224 is published. At another S the shape is that of S = 224, averaged over the area of each pixel, and
  the texture keeps its period of 10 pixels, because a finer one could not be seen. Images of less than 96 pixels are
  drawn k times as large, with k = ceil(96 / S), and averaged over k x k pixels.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from m3col.data.columns import FloatArray
from m3col.data.images import index
from m3col.data.trifeatures.masks import PERIOD, SHAPES, TEXTURES, texture_mask, turned_shape
from m3col.randomness import generator
from m3col.storage import atomic_files

COLOURS = {
    "red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "yellow": (1.0, 1.0, 0.0),
    "pink": (1.0, 0.4, 1.0), "cyan": (0.0, 1.0, 1.0), "purple": (0.3, 0.0, 0.5), "ocean": (0.1, 0.4, 0.5),
    "orange": (1.0, 0.6, 0.0), "white": (1.0, 1.0, 1.0),
}  # fmt: skip

_PIXELS = "pixels"  # the array in the cached file

KINDS = 10  # shapes, textures and colours each

COMBINATIONS = KINDS**3

COPIES = 3  # images of one combination in the training split

PUBLISHED_SIZE = 224

_LEAST_CANVAS = 96  # pixels; on a smaller canvas a shape has too few periods of its texture

_FORMAT = 1  # increment when the drawn pixels change

_DECIMALS = 9  # rounds away the last bits of sums, whose order depends on the machine

_ANGLES = (-45, 45)  # degrees, the end is exclusive


class Features(NamedTuple):
    """Positions of an image's shape, texture and colour in `SHAPES`, `TEXTURES` and `COLOURS`."""

    shape: int
    texture: int
    colour: int

    @classmethod
    def of(cls, combination: int) -> "Features":
        """The features of a combination 0..999."""
        return cls(combination // 100, combination // 10 % 10, combination % 10)

    @property
    def names(self) -> tuple[str, str, str]:
        return SHAPES[self.shape], TEXTURES[self.texture], [*COLOURS][self.colour]


def draw(combination: int, copy: int, *, size: int, seed: int) -> NDArray[np.uint8]:
    """Draws one image.

    Args:
        combination: 0..999, which is 100 shape + 10 texture + colour.
        copy: number of the image among those of the combination; copies differ in place and angles.
        size: S, side of the image in pixels.
        seed: of the data set.

    Returns:
        [S, S, 3] RGB.

    Example:
        >>> draw(0, 0, size=48, seed=42).shape
        (48, 48, 3)
    """
    step = combination * COPIES + copy
    numbers = generator(seed=seed, fold=0, epoch=0, step=step, purpose="trifeatures/image")
    pixels = generator(seed=seed, fold=0, epoch=0, step=step, purpose="trifeatures/texture")
    angle, texture_angle = (int(value) for value in numbers.integers(*_ANGLES, 2))
    offsets = tuple(int(value) for value in numbers.integers(0, PERIOD, 2))
    shape, texture, colour = Features.of(combination).names
    factor = -(-_LEAST_CANVAS // size)
    canvas = size * factor
    coverage = _placed(turned_shape(shape, angle), numbers.random(2), canvas)
    mask = texture_mask(texture, canvas, degrees=texture_angle, offsets=(offsets[0], offsets[1]), draw=pixels)
    visible = (coverage * mask).reshape(size, factor, size, factor).mean(axis=(1, 3))[..., None]
    values = visible * np.array(COLOURS[colour]) + (1 - visible) * 0.5
    return np.floor(255 * values.round(_DECIMALS)).astype(np.uint8)


def _placed(shape: FloatArray, place: FloatArray, size: int) -> FloatArray:
    """A shape at a random place fully inside of the published canvas, brought to [S, S]. `place`: 2 uniform numbers."""
    side = len(shape)
    top, left = (int(value) for value in place * (PUBLISHED_SIZE - side + 1))
    if size == PUBLISHED_SIZE:
        canvas = np.zeros((size, size))
        canvas[top : top + side, left : left + side] = shape
        return canvas
    areas = area_weights(PUBLISHED_SIZE, size)
    reduced: FloatArray = areas[:, top : top + side] @ shape @ areas[:, left : left + side].T
    return reduced.round(_DECIMALS)


@functools.cache
def area_weights(before: int, after: int) -> FloatArray:
    """The share [after, before] of each old pixel in each new one when a line of pixels is resized by areas."""
    edges = np.arange(after + 1) * (before / after)
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    weights: FloatArray = np.maximum(overlap, 0) * (after / before)
    return weights


def contents(numbers: Sequence[tuple[int, int]], *, size: int, seed: int) -> list[bytes]:
    """The images as contents of files (PPM, not compressed, so that their bytes are the same on every machine).

    The pixels are kept in the cache folder, where the next process reads them.

    Args:
        numbers: combination and copy of each image.
        size: S, side of the images in pixels.
        seed: of the data set.
    """
    head = f"P6 {size} {size} 255\n".encode()
    return [head + pixels.tobytes() for pixels in _read_or_drawn(numbers, size, seed)]


def _read_or_drawn(numbers: Sequence[tuple[int, int]], size: int, seed: int) -> NDArray[np.uint8]:
    """The pixels [n, S, S, 3] of the images."""
    key = hashlib.sha256(json.dumps([_FORMAT, size, seed, list(numbers)]).encode()).hexdigest()
    path = index.folder() / f"trifeatures-{key[:32]}.safetensors"
    shape = (len(numbers), size, size, 3)
    with contextlib.suppress(OSError, SafetensorError, KeyError):  # no file, or a damaged one
        stored: NDArray[np.uint8] = load_file(path)[_PIXELS]
        if stored.shape == shape and stored.dtype == np.uint8:
            return stored
    with ThreadPoolExecutor(index.THREADS) as pool:
        images = np.stack([*pool.map(lambda at: draw(*at, size=size, seed=seed), numbers)])
    # Where there is no space, or the folder cannot be written, they are drawn again next time.
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_files.replaced(path) as temporary:
            save_file({_PIXELS: images}, temporary)
    return images
