"""Pairs of scikit-learn's handwritten digits (8 x 8 gray values 0..16); the label is the last digit of their sum.

left [64], right [64]: the two images, row by row. The label of a pair is (a + b) mod 10, so that one image alone says
nothing about it: for each a, the ten digits b give the ten labels. No function that adds something of the left image
and something of the right one can compute it, which excludes linear models and late fusion.

The 1,797 images are divided first: 600 make training pairs, 197 others validation pairs, 1,000 others test pairs. The
images of a part are divided at random into blocks of about 50, those of the test split into blocks of 5. The images of
a block stand in a circle. An image is paired with the four that follow it, in the test split only with the next one.
So no image is in two splits, no pair occurs twice, and each test image is in one pair on the left and in one on the
right. Blocks are the groups of the data set: other divisions of the pairs (`kfold`, outer splits) keep them together,
so that no image is on both sides.
"""

import numpy as np

from m3col import randomness
from m3col.data.columns import IntArray
from m3col.data.dataset import Dataset, Split, build_split

MODALITIES = ("left", "right")

CLASSES = tuple(map(str, range(10)))

IMAGES = {"train": 600, "validation": 197, "test": 1000}

BLOCKS = {"train": 12, "validation": 4, "test": 200}

NEIGHBOURS = {"train": 4, "validation": 4, "test": 1}  # pairs that have the same image on the left


def read(*, test: bool = True, seed: int = 0) -> Dataset:
    """Draws the data set.

    Args:
        test: whether to include the test split.
        seed: seed of the division of the images and of the pairs, in 0..2^64 - 1. Other seeds than 0 are for repeats of
            an experiment with other pairs.

    Returns:
        2,400 training pairs, 788 validation pairs and 1,000 test pairs.

    Raises:
        InputError: the seed is not an integer in that range.

    Example:
        >>> dataset = read()
        >>> len(dataset.train), len(dataset.validation), len(dataset.test), dataset.modalities
        (2400, 788, 1000, ('left', 'right'))
    """
    from sklearn.datasets import load_digits  # imported late: slow, and other data sets do not need it

    bunch = load_digits()
    images = np.asarray(bunch.images, dtype=np.float64).reshape(len(bunch.images), -1)
    digits = np.asarray(bunch.target, dtype=np.int64)
    rng = randomness.generator(seed=seed, fold=0, epoch=0, purpose="digit_sums")
    order = rng.permutation(len(digits))
    members = np.split(order, np.cumsum([*IMAGES.values()])[:-1])
    parts = {name: _pairs(images, digits, rows, name) for name, rows in zip(IMAGES, members, strict=True)}
    pixels = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Dataset(
        name="digit_sums",
        classes=CLASSES,
        features=dict.fromkeys(MODALITIES, pixels),
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"] if test else None,
    )


def _pairs(images: np.ndarray, digits: IntArray, rows: IntArray, name: str) -> Split:
    """The pairs of the images `rows`, which are in random order: block by block, distance by distance."""
    left, right, groups = [], [], []
    for number, block in enumerate(np.array_split(rows, BLOCKS[name])):
        for distance in range(1, NEIGHBOURS[name] + 1):
            left.append(block)
            right.append(np.roll(block, -distance))
            groups += [f"{name}-{number}"] * len(block)
    first, second = np.concatenate(left), np.concatenate(right)
    return build_split(
        {"left": images[first], "right": images[second]},
        (digits[first] + digits[second]) % 10,
        name,
        ids=np.array([f"{a}+{b}" for a, b in zip(first.tolist(), second.tolist(), strict=True)], dtype=np.str_),
        groups=np.array(groups, dtype=np.str_),
    )
