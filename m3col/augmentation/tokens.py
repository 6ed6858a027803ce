"""Augmentations of texts. Letters: n texts of this rank, L tokens of the longest one."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Mask


def mask(
    texts: list[NDArray[np.int32]], settings: Mask, draws: Draws, *, token: int, kept: Collection[int]
) -> list[NDArray[np.int32]]:
    """Replaces each token by the mask token with probability p.

    Differs: the published code masks inside of the encoder, so that masks depend on the state of a generator.

    Args:
        texts: the token ids of each text.
        settings: the probability p.
        draws: random numbers.
        token: id of the mask token.
        kept: ids that are never replaced: those of padding and of both ends of a text.

    Returns:
        The token ids of each text, in new arrays.
    """
    numbers = draws.of_steps(np.array([len(text) for text in texts], dtype=np.int64), "mask")
    ends = np.array(sorted(kept))
    return [
        np.where((row[: len(text)] < settings.p) & ~np.isin(text, ends), np.int32(token), text)
        for text, row in zip(texts, numbers, strict=True)
    ]
