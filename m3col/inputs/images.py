"""Images as model input: crop and augmentation, and batches of decoded images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.augmentation import registry
from m3col.augmentation.draws import Draws
from m3col.augmentation.images import CROP_DRAWS, resized_crop
from m3col.augmentation.registry import Chosen
from m3col.config.schema import RunConfig
from m3col.data.columns import MediaColumn, ModalityData
from m3col.data.dataset import Split
from m3col.data.images import cache
from m3col.data.images.cache import Table
from m3col.errors import InputError
from m3col.inputs.base import Described, Index, LazySource, Placement
from m3col.inputs.specs import ImageInput


class ImageSource(LazySource):
    """Images as [n, 3, S, S] in [0, 1], center-cropped to a square, or augmented if random numbers are passed.

    Args:
        table: the decoded images.
        at: [N] positions of the samples in the table.
        place: where and how batches are made.
        size: S, the side of the square in pixels.
        augment: the augmentations, in order.
    """

    def __init__(
        self, table: Table, at: NDArray[np.int64], place: Placement, *, size: int, augment: Sequence[Chosen] = ()
    ) -> None:
        super().__init__(table, at, place.device)
        self._size, self._dtype = size, place.dtype
        self._steps = {chosen.name: chosen.settings for chosen in augment}
        self._of_batches = [chosen for chosen in augment if chosen.augmentation.function]

    def rows(self, index: Index, draws: Draws | None = None) -> Tensor:
        positions, size = self._positions(index), self._size
        batch = np.empty((len(positions), size, size, 3), np.uint8)
        moves = draws.uniform(3) if draws is not None and self._steps.keys() & {"crop", "flip"} else None
        parts = (
            draws.uniform(CROP_DRAWS, "resized_crop") if draws is not None and "resized_crop" in self._steps else None
        )
        for number, position in enumerate(positions):
            image = self._table[int(position)]
            move = None if moves is None else moves[number]
            part = None if parts is None else parts[number]
            batch[number] = self._square(image, move, part)
        squares = devices.moved(torch.from_numpy(batch), self._device).permute(0, 3, 1, 2)
        pixels = squares.to(self._dtype) / 255
        for chosen in self._of_batches if draws is not None and len(positions) else ():
            pixels = chosen.augmentation.apply(pixels, chosen.settings, draws)
        return pixels

    def _square(
        self, image: NDArray[np.uint8], move: NDArray[np.float64] | None, part: NDArray[np.float64] | None
    ) -> NDArray[np.uint8]:
        """The square of one image. `move` [3]: random numbers of crop and flip; `part`: those of resized_crop."""
        size = self._size
        if part is not None:
            square = resized_crop(image, self._steps["resized_crop"], size, part)
        else:
            down, right = image.shape[0] - size, image.shape[1] - size
            top, left = down // 2, right // 2
            if move is not None and "crop" in self._steps:
                top, left = int(move[0] * (down + 1)), int(move[1] * (right + 1))
            square = image[top : top + size, left : left + size]
        flip = self._steps.get("flip")
        return square[:, ::-1] if move is not None and flip is not None and move[2] < flip.p else square


@dataclass(frozen=True)
class ImageTransform:
    """The input transform of an image modality: decode, then cut a square.

    Attributes:
        size: side of the square in pixels.
        augment: how training images are augmented, a name or a list (m3col.augmentation.registry).
        resized: short side of the decoded images in pixels; None: 8/7 of `size` (256 for 224).
    """

    size: int
    augment: Any
    resized: int | None = None

    kind: ClassVar[str] = "image"

    @property
    def spec(self) -> ImageInput:
        return ImageInput(self.size)

    @property
    def short_side(self) -> int:
        return round(self.size * 8 / 7) if self.resized is None else self.resized

    def source(self, column: ModalityData, place: Placement) -> ImageSource:
        assert isinstance(column, MediaColumn)
        table = cache.decoded(column, self.short_side, cached=place.cached)
        steps = registry.parse(self.augment, kind=self.kind)
        return ImageSource(table, column.at, place, size=self.size, augment=steps)

    def state(self) -> Described:
        described = {"kind": self.kind, "size": self.size, "augment": self.augment}
        return described | ({} if self.resized is None else {"short_side": self.resized}), {}


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> ImageTransform:
    """Returns the crop and the augmentation of the config. Nothing is fitted on the images."""
    image = config.data.image
    augment = registry.of_modality(image.augment, modality)
    if image.crop_area is not None:
        augment = registry.with_crop_area(augment, image.crop_area)
    return ImageTransform(image.size, augment, image.short_side)


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ImageTransform:
    """Restores the transform of a checkpoint. Raises InputError."""
    if not isinstance(described.get("size"), int) or described["size"] < 1:
        raise InputError([f"stored preprocessing: must be of an image with its size, but is {dict(described)!r}"])
    return ImageTransform(described["size"], described.get("augment", "none"), described.get("short_side"))
