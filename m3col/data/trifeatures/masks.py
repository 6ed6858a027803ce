"""The ten shapes and the ten textures of Trifeatures as masks.

Letters: i row, j column, both from 0 at the top left; 128 side of a shape before it is turned; S side of the image.
Texture coordinates y = i + oy and x = j + ox have a period of 10 pixels; r = y mod 10, q = x mod 10.
Data: Hermann and Lampinen, arXiv 2006.12433, in the version of the pairs in CoMM, arXiv 2409.07402.
"""

import functools

import numpy as np

from m3col.data.columns import FloatArray, IntArray
from m3col.data.dataset import BoolArray

SHAPES = (
    "triangle", "square", "plus", "circle", "tee", "rhombus", "pentagon", "star", "fivesquare", "trapezoid",
)  # fmt: skip

TEXTURES = (
    "solid", "stripes", "grid", "hexgrid", "dots", "noise", "triangles", "zigzags", "rain", "pluses",
)  # fmt: skip

SHAPE_SIDE = 128

PERIOD = 10

_CENTRE = 64  # c, the column in the middle of a shape

_RAIN_SHARE = 0.05  # share of the pixels where a drop begins

_RAIN_HEIGHT = 7  # pixels of a drop, downwards

_DECIMALS = 9  # rounds away the last bits of sine and cosine, which differ between machines


@functools.cache
def shape_mask(name: str) -> BoolArray:
    """The mask [128, 128] of a shape of `SHAPES`, not turned."""
    i, j = np.ogrid[:SHAPE_SIDE, :SHAPE_SIDE]
    off = np.abs(j - _CENTRE)
    side = SHAPE_SIDE
    if name == "triangle":
        mask = off - i // 2 < 1
    elif name == "square":
        mask = np.ones((1, 1), np.bool_)
    elif name == "plus":
        mask = ((i >= 43) & (i <= 85)) | ((j >= 43) & (j <= 85))
    elif name == "circle":
        mask = (i - 63.5) ** 2 + (j - 63.5) ** 2 < 64**2
    elif name == "tee":
        mask = ((j >= 43) & (j <= 85)) | (i < 42)
    elif name == "rhombus":
        mask = (j - _CENTRE + i // 2 > 0) & (j - _CENTRE + i // 2 < 64)
    elif name == "pentagon":
        inset = (i - 51) // 3.1
        mask = np.where(i < 51, off - 1.25 * i < 1, (inset < j) & (j < side - inset))
    elif name == "star":
        mask = _star(i, j)
    elif name == "fivesquare":
        # thirds 0, 1, 2 of each side: the middle, and where neither is 1
        row, column = np.digitize(i, (42, 85)), np.digitize(j, (42, 85))
        mask = row % 2 == column % 2
    else:
        inset = i // 3.1
        mask = (inset < j) & (j < side - inset)
    return np.broadcast_to(mask, (side, side)).copy()


def _star(i: IntArray, j: IntArray) -> BoolArray:
    top = (i < 51) & (np.abs(j - _CENTRE) - i // 4 < 1)
    inset = 2.4 * (i - 51)
    arms = (i >= 51) & (i < 76) & (inset < j) & (j < SHAPE_SIDE - inset)
    near, far = 42.24 - 0.43 * (i - 70), 79.36 - 1.05 * (i - 70)
    mirrored = SHAPE_SIDE - j
    legs = (i >= 70) & (((near < j) & (j < far)) | ((near < mirrored) & (mirrored < far)))
    mask: BoolArray = top | arms | legs
    return mask


@functools.cache
def turned_shape(name: str, degrees: int) -> FloatArray:
    """The mask of a shape, turned about its centre with linear interpolation; the canvas [h, h] grows to hold it.

    Args:
        name: one of `SHAPES`.
        degrees: angle, -45..44.

    Returns:
        The share of the shape in each pixel, in [0, 1]; h is 128 to 181.
    """
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    last = SHAPE_SIDE - 1
    side = int(np.ceil(round(last * (abs(cosine) + abs(sine)), _DECIMALS))) + 1
    rows, columns = _turned_back(side, cosine, sine, last / 2)
    padded = np.pad(shape_mask(name).astype(np.float64), 2)  # zeros around, so that each corner of a cell exists
    rows, columns = np.clip(rows, -2, last + 1) + 2, np.clip(columns, -2, last + 1) + 2
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = rows - top, columns - left
    above = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    below = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    turned: FloatArray = (above * (1 - down) + below * down).round(_DECIMALS)
    turned.setflags(write=False)
    return turned


def _turned_back(side: int, cosine: float, sine: float, centre: float) -> tuple[FloatArray, FloatArray]:
    """Row and column, before turning, of each pixel [side, side] of a turned canvas. `centre`: of both axes, before."""
    along = np.arange(side) - (side - 1) / 2
    i, j = along[:, None], along
    rows, columns = centre + cosine * i - sine * j, centre + sine * i + cosine * j
    return rows.round(_DECIMALS), columns.round(_DECIMALS)


def texture_mask(
    name: str, size: int, *, degrees: int, offsets: tuple[int, int], draw: np.random.Generator
) -> BoolArray:
    """The mask [S, S] of a texture: the middle of a canvas [2S, 2S] that was turned with the nearest neighbour.

    The rules are evaluated at the pixels that are seen, not on the whole canvas.

    Args:
        name: one of `TEXTURES`.
        size: S, the side of the image in pixels.
        degrees: angle, -45..44.
        offsets: oy and ox, 0..9.
        draw: random numbers for the textures that are not periodic.
    """
    canvas = 2 * size
    angle = np.deg2rad(degrees)
    rows, columns = _turned_back(size, np.cos(angle), np.sin(angle), (canvas - 1) / 2)
    i, j = np.floor(rows + 0.5).astype(np.int64), np.floor(columns + 0.5).astype(np.int64)
    if name == "noise":
        return np.asarray(draw.random((canvas, canvas)) < 0.5)[i, j]
    if name == "rain":
        return _rain(draw.random((canvas, canvas)) < _RAIN_SHARE)[i, j]
    return periodic_texture(name, i + offsets[0], j + offsets[1])


def _rain(starts: BoolArray) -> BoolArray:
    """The mask of drops that begin where `starts` is true."""
    mask = starts.copy()
    for height in range(1, _RAIN_HEIGHT):
        mask[height:] |= starts[:-height]
    return mask


def periodic_texture(name: str, y: IntArray, x: IntArray) -> BoolArray:
    """The mask of a texture that repeats itself, at rows y and columns x >= 0 of equal shape."""
    r, q = y % PERIOD, x % PERIOD
    if name == "solid":
        return np.ones(y.shape, np.bool_)
    if name == "stripes":
        mask = r < 3
    elif name == "grid":
        mask = (r < 3) | (q < 3)
    elif name == "hexgrid":
        shift = 173 * y // 100  # floor(1.73 y) without rounding
        mask = ((x + shift) % PERIOD < 2) | ((x - shift) % PERIOD < 2) | (r < 2)
    elif name == "dots":
        mask = (r - 5) ** 2 + (q - 5) ** 2 < 16
    elif name == "triangles":
        mask = r // 2 - np.abs(q - 5) > 0
    elif name == "zigzags":
        along = np.where(y // PERIOD % 2 == 1, PERIOD - 1 - q, q)
        mask = (r // 2 < along) & (along < 5 + r // 2)
    else:
        mask = _pluses(y // PERIOD % 2 == 1, r, q)
    return np.asarray(mask)


def _pluses(odd: BoolArray, r: IntArray, q: IntArray) -> BoolArray:
    half = 1.5
    near_row, near_column = np.abs(r - 5) < half, np.abs(q - 5) < half
    shifted = (q < half) | (PERIOD - q < half) | (near_row & (np.abs(q - 5) > half))
    mask: BoolArray = np.where(odd, shifted, near_column | near_row)
    return mask
