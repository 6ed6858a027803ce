"""Images as model input: crop and augmentation, and batches of decoded images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.config.schema import RunConfig
from m3col.data.columns import MediaColumn, ModalityData
from m3col.data.dataset import Split
from m3col.data.images import cache
from m3col.data.images.cache import Table
from m3col.errors import InputError
from m3col.inputs.base import Described, Index, LazySource, Placement
from m3col.inputs.specs import ImageInput


class ImageSource(LazySource):
    """Images as [n, 3, S, S] in [0, 1], center-cropped to a square, or augmented if random numbers are passed."""

    def __init__(
        self, table: Table, at: NDArray[np.int64], device: torch.device, *, size: int, dtype: torch.dtype, augment: str
    ) -> None:
        super().__init__(table, at, device)
        self._size, self._dtype = size, dtype
        self._crop, self._flip = "crop" in augment, "flip" in augment

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Tensor:
        positions, size = self._positions(index), self._size
        batch = np.empty((len(positions), size, size, 3), np.uint8)
        for number, position in enumerate(positions):
            image = self._table[int(position)]
            draw = None if draws is None else draws[number]
            batch[number] = self._square(image, draw)
        pixels = devices.moved(torch.from_numpy(batch), self._device).permute(0, 3, 1, 2)
        return pixels.to(self._dtype) / 255

    def _square(self, image: NDArray[np.uint8], draw: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        size = self._size
        down, right = image.shape[0] - size, image.shape[1] - size
        top, left = down // 2, right // 2
        if draw is not None and self._crop:
            top, left = int(draw[0] * (down + 1)), int(draw[1] * (right + 1))
        square = image[top : top + size, left : left + size]
        return square[:, ::-1] if draw is not None and self._flip and draw[2] < 0.5 else square


@dataclass(frozen=True)
class ImageTransform:
    """The input transform of an image modality: decode, then cut a square.

    Attributes:
        size: side of the square in pixels.
        augment: augmentation of training images.
        resized: short side of the decoded images in pixels; None: 8/7 of `size` (256 for 224).
    """

    size: int
    augment: str
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
        return ImageSource(
            table, column.at, place.device, size=self.size, dtype=place.dtype, augment=self.augment
        )  # fmt: skip

    def state(self) -> Described:
        described = {"kind": self.kind, "size": self.size, "augment": self.augment}
        return described | ({} if self.resized is None else {"short_side": self.resized}), {}


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> ImageTransform:
    """Returns the crop and the augmentation of the config. Nothing is fitted on the images."""
    return of_config(config)


def of_config(config: RunConfig) -> ImageTransform:
    """The transform of all image modalities of a run."""
    image = config.data.image
    return ImageTransform(image.size, image.augment, image.short_side)


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ImageTransform:
    """Restores the transform of a checkpoint. Raises InputError."""
    if not isinstance(described.get("size"), int) or described["size"] < 1:
        raise InputError([f"stored preprocessing: must be of an image with its size, but is {dict(described)!r}"])
    return ImageTransform(described["size"], str(described.get("augment", "none")), described.get("short_side"))
