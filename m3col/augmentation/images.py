"""Augmentations of images: a random part and mirroring while an image is read; colours and blur of a whole batch.

Letters: n images of this rank, S side in pixels. Batches are [n, 3, S, S] with values in [0, 1].
Source: SimCLR (Chen et al., arXiv 2002.05709), appendix A; values as in CoMM (arXiv 2409.07402).
Differs: colours are not rounded to 8 bits between the steps.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from m3col import devices
from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Blur, Grey, Jitter, ResizedCrop
from m3col.data.columns import FloatArray

_TRIES = 10  # random parts that are tried before the largest one in the middle is taken

CROP_DRAWS = 2 * _TRIES + 2  # uniform numbers per image of `random_part`

_TAIL = 4  # standard deviations after which the kernel of the blur ends

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey value


def random_part(height: int, width: int, settings: ResizedCrop, draw: FloatArray) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of an image.

    The area is uniform, the logarithm of width over height too. A part that does not fit into the image is drawn again.

    Args:
        height: of the image, in pixels.
        width: of the image.
        settings: ranges of area and aspect.
        draw: [CROP_DRAWS] uniform numbers.
    """
    smallest, largest = settings.area
    low, high = (math.log(value) for value in settings.aspect)
    for area_draw, aspect_draw in draw[:-2].reshape(_TRIES, 2):
        area = height * width * (smallest + (largest - smallest) * area_draw)
        aspect = math.exp(low + (high - low) * aspect_draw)
        part_width, part_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < part_width <= width and 0 < part_height <= height:
            top, left = int(draw[-2] * (height - part_height + 1)), int(draw[-1] * (width - part_width + 1))
            return top, left, part_height, part_width
    ratio = min(max(width / height, settings.aspect[0]), settings.aspect[1])
    part_width, part_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - part_height) // 2, (width - part_width) // 2, part_height, part_width


def resized_crop(image: NDArray[np.uint8], settings: ResizedCrop, size: int, draw: FloatArray) -> NDArray[np.uint8]:
    """A random part [S, S, 3] of an image [h, w, 3], resized with a bilinear filter. See `random_part`."""
    top, left, height, width = random_part(image.shape[0], image.shape[1], settings, draw)
    part = np.ascontiguousarray(image[top : top + height, left : left + width])
    return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BILINEAR))


def jitter(images: Tensor, settings: Jitter, draws: Draws) -> Tensor:
    """Random brightness, contrast, saturation and hue, in an order that is drawn for each image."""
    chosen = draws.coin(settings.p, "jitter")
    numbers = draws.uniform(8, "jitter")
    order = np.argsort(numbers[:, 4:], axis=1, kind="stable")
    spread = np.array([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    amounts = (2 * numbers[:, :4] - 1) * spread + np.array([1, 1, 1, 0])
    images = images.clone()
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)
    for place in range(len(changes)):
        for number, change in enumerate(changes):
            rows = np.flatnonzero(chosen & (order[:, place] == number) & (spread[number] > 0))
            if len(rows):
                at = _moved(rows, images)
                images[at] = change(images[at], _moved(amounts[rows, number], images))
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Values times a factor [n], at most 1."""
    return (images * _per_image(factor)).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Differences from the mean grey value of each image, times a factor [n]."""
    return _blend(images, grey_values(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Differences from the grey value of each pixel, times a factor [n]."""
    return _blend(images, grey_values(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Hues moved by `shift` [n] turns of the colour circle; value and saturation (of HSV) stay."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    span = value - low
    safe = torch.where(span > 0, span, torch.ones_like(span))
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    moved = (sector + 6 * shift[:, None, None]) % 6
    channels = []
    for offset in (5, 3, 1):  # f(n) = V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6
        k = (offset + moved) % 6
        channels.append(value - span * torch.minimum(torch.minimum(k, 4 - k), torch.ones_like(k)).clamp(min=0))
    return torch.stack(channels, dim=1).clamp(0, 1)


def grey_values(images: Tensor) -> Tensor:
    """The grey value [n, 1, S, S] of each pixel."""
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(1)


def grey(images: Tensor, settings: Grey, draws: Draws) -> Tensor:
    """Grey values in all three channels of the chosen images."""
    chosen = _moved(draws.coin(settings.p, "grey"), images)
    return torch.where(chosen[:, None, None, None], grey_values(images), images)


def blur(images: Tensor, settings: Blur, draws: Draws) -> Tensor:
    """Gaussian blur of the chosen images. Pixels outside of an image are those of its border.

    Differs: the published code uses Pillow, which approximates a Gaussian by box filters.
    """
    rows = np.flatnonzero(draws.coin(settings.p, "blur"))
    if not len(rows):
        return images
    smallest, largest = settings.radius
    sigma = smallest + (largest - smallest) * draws.uniform(1, "blur")[rows, 0]
    reach = math.ceil(_TAIL * largest)
    offsets = np.arange(-reach, reach + 1)
    kernels = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights = _moved(kernels / kernels.sum(axis=1, keepdims=True), images)
    at = _moved(rows, images)
    blurred = images[at]
    for axis, border in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        padded = functional.pad(blurred, border, mode="replicate")
        # A sum over the taps of the kernel, so that each image is computed alike in every batch.
        blurred = torch.zeros_like(blurred)
        for tap in range(len(offsets)):
            blurred = blurred + _per_image(weights[:, tap]) * padded.narrow(axis, tap, images.shape[axis])
    images = images.clone()
    images[at] = blurred
    return images


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    share = _per_image(factor)
    return (share * images + (1 - share) * other).clamp(0, 1)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _moved(values: NDArray[Any], images: Tensor) -> Tensor:
    """Numbers or masks on the device of the images; real numbers in their dtype."""
    tensor = torch.from_numpy(values)
    tensor = tensor.to(images.dtype) if tensor.is_floating_point() else tensor
    return devices.moved(tensor, images.device)
