"""Which images and pairs of images are in each split of Trifeatures, and their labels.

A combination is 100 shape + 10 texture + colour. Of the 1000 combinations 200 are in the test split, with one image
each, and 800 in the training split, with three images each. A pair (i, j) has two images of one split with the same
shape; it is ordered, and i = j is allowed.

The rule of synergy: colour(j) = m(texture(i)), where m is a random bijection from textures to colours.
"""

from typing import NamedTuple

import numpy as np

from m3col.data.columns import IntArray
from m3col.data.dataset import BoolArray
from m3col.data.trifeatures.images import COMBINATIONS, COPIES, KINDS
from m3col.randomness import generator

TEST_COMBINATIONS = 200

TARGETS = ("share", "unique1", "unique2", "synergy")


class Images(NamedTuple):
    """The images of one split.

    Attributes:
        combination: [n] of each image, ascending.
        copy: [n] number of the image among those of its combination.
    """

    combination: IntArray
    copy: IntArray

    @property
    def shape(self) -> IntArray:
        return self.combination // 100

    @property
    def texture(self) -> IntArray:
        return self.combination // 10 % 10

    @property
    def colour(self) -> IntArray:
        return self.combination % 10


def images_of(split: str, *, seed: int) -> Images:
    """The images of the split "train" (2,400) or "test" (200)."""
    order = generator(seed=seed, fold=0, epoch=0, purpose="trifeatures/split").permutation(COMBINATIONS)
    chosen = order[:TEST_COMBINATIONS] if split == "test" else order[TEST_COMBINATIONS:]
    copies = 1 if split == "test" else COPIES
    return Images(np.repeat(np.sort(chosen), copies), np.tile(np.arange(copies), len(chosen)))


def colour_of_texture(seed: int) -> IntArray:
    """m: the colour [10] of each texture in the rule of synergy.

    It has a generator of its own, so that it is the same whether images are drawn or read. Seed 42 gives the published
    5 6 0 7 3 2 4 9 1 8.
    """
    return np.random.default_rng(seed).permutation(KINDS)


def candidates(images: Images) -> IntArray:
    """All pairs [n, 2] of images with the same shape, as positions, in ascending order."""
    return np.argwhere(images.shape[:, None] == images.shape)


def obeys_rule(images: Images, pairs: IntArray, *, seed: int) -> BoolArray:
    """Whether the colour of the second image of each pair is that of the first one's texture."""
    first, second = pairs.T
    obeys: BoolArray = images.colour[second] == colour_of_texture(seed)[images.texture[first]]
    return obeys


def draw_pairs(split: str, count: int, *, biased: bool = False, seed: int) -> IntArray:
    """Draws pairs uniformly and without replacement, in random order.

    Args:
        split: "train" or "test".
        count: the largest number of pairs; there may be fewer candidates.
        biased: whether to draw among the pairs that obey the rule of synergy alone.
        seed: of the data set.

    Returns:
        [n, 2] positions in `images_of(split)`.

    Example:
        >>> draw_pairs("train", 100, seed=42).shape
        (100, 2)
    """
    images = images_of(split, seed=seed)
    pool = candidates(images)
    if biased:
        pool = pool[obeys_rule(images, pool, seed=seed)]
    purpose = f"trifeatures/pairs/{split}/{'biased' if biased else 'unbiased'}"
    keys = generator(seed=seed, fold=0, epoch=0, purpose=purpose).random(len(pool))
    return pool[np.argsort(keys, kind="stable")[:count]]


def labels(images: Images, pairs: IntArray, target: str, *, seed: int) -> IntArray:
    """The labels [n] of pairs.

    Args:
        images: the images of the split.
        pairs: [n, 2] positions in it.
        target: "share", the common shape (R); "unique1" and "unique2", the texture of the first and second image (U1,
            U2); "synergy", 1 where the pair obeys the rule (S).
        seed: of the data set.
    """
    first, second = pairs.T
    if target == "synergy":
        return obeys_rule(images, pairs, seed=seed).astype(np.int64)
    return {"share": images.shape[first], "unique1": images.texture[first], "unique2": images.texture[second]}[target]
