"""Random numbers for the augmentation of one batch, keyed by modality, view and position in the global batch.

A number is the same on every rank, after a resume, and whatever other augmentations are set.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from m3col.data.columns import FloatArray, IntArray
from m3col.data.dataset import BoolArray
from m3col.randomness import generator


@dataclass(frozen=True)
class Draws:
    """The random numbers for one modality and view of a batch.

    Attributes:
        key: seed, fold, epoch and step, which key every number.
        modality: name of the modality.
        view: name of the view; "" for the only view of a method that has one.
        size: N, the number of samples in the global batch.
        rows: the n of them that this rank augments.

    Example:
        >>> key = {"seed": 0, "fold": 0, "epoch": 1, "step": 0}
        >>> Draws(key, "image", "a", 4, slice(2, 4)).uniform(3).shape
        (2, 3)
    """

    key: Mapping[str, int]
    modality: str
    view: str
    size: int
    rows: slice

    def uniform(self, width: int, name: str = "", *, shared: bool = False) -> FloatArray:
        """Uniform numbers [n, width] in [0, 1).

        Args:
            width: numbers per sample.
            name: of the augmentation; "" for crop and flip, which use the same three numbers.
            shared: whether all modalities of a sample get the same numbers.
        """
        return self._generator(name, shared=shared).random((self.size, width))[self.rows]

    def normal(self, width: int, name: str) -> FloatArray:
        """Standard normal numbers [n, width]."""
        return self._generator(f"{name}/normal").standard_normal((self.size, width))[self.rows]

    def beta(self, alpha: float, name: str) -> FloatArray:
        """Numbers [n] of Beta(alpha, alpha)."""
        return self._generator(f"{name}/beta").beta(alpha, alpha, self.size)[self.rows]

    def of_steps(self, lengths: IntArray, name: str, *, width: int = 0, fill: float = np.inf) -> FloatArray:
        """Random numbers for each step of samples of different lengths.

        Args:
            lengths: [n] steps of each sample.
            name: of the augmentation.
            width: 0 for one uniform number per step; else standard normal numbers per step.
            fill: value behind the end of a sample.

        Returns:
            [n, L] or [n, L, width], where L is the largest length.
        """
        longest = int(lengths.max(initial=0))
        numbers = np.full((len(lengths), longest, *([width] if width else [])), fill)
        first = range(self.size)[self.rows].start
        for row, length in enumerate(lengths.tolist()):
            own = self._generator(f"{name}/steps", position=first + row)
            numbers[row, :length] = own.standard_normal((length, width)) if width else own.random(length)
        return numbers

    def coin(self, p: float, name: str, *, shared: bool = False) -> BoolArray:
        """Whether each sample is augmented [n], with probability p. `shared`: see `uniform`."""
        return self.uniform(1, f"{name}/coin", shared=shared)[:, 0] < p

    def _generator(self, name: str, *, position: int = 0, shared: bool = False) -> np.random.Generator:
        parts = ("augment", "*" if shared else self.modality, self.view, name)
        purpose = "/".join(part for part in parts if part)  # "augment/<modality>" alone is that of version 0.1
        return generator(**self.key, shard=position, purpose=purpose)
