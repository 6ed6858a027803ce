"""Labels in a random order: data on which nothing can be learnt, to see what a procedure reaches by chance.

Each split is permuted for itself, so that its class sizes, groups and inputs stay as they are. Where samples have
groups, labels are permuted inside of each group that has several. A group with one label swaps it with another such
group of the same size; the samples of those that are alone with their size are permuted together.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.dataset import SPLITS, Dataset, Split


def permuted(dataset: Dataset, seed: int) -> Dataset:
    """The data set with permuted labels.

    Args:
        dataset: the data set; splits that were not read may be missing.
        seed: of the permutations. That of a split does not depend on which other splits are there.

    Returns:
        The same samples with the labels of other samples of their split.
    """
    changes: dict[str, Any] = {
        name: _permuted(split, np.random.default_rng([seed, SPLITS.index(name)]))
        for name, split in dataset.splits.items()
    }
    return replace(dataset, **changes)


def _permuted(split: Split, rng: np.random.Generator) -> Split:
    if split.labels is None:
        return split
    return replace(split, labels=split.labels[_order(split.labels, split.groups, rng)])


def _order(labels: NDArray[np.generic], groups: NDArray[np.str_] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each sample the position of the sample whose label it gets."""
    if groups is None:
        return rng.permutation(len(labels))
    _, unit = np.unique(groups, return_inverse=True)
    order, by_size = np.arange(len(labels)), defaultdict[int, list[NDArray[np.int64]]](list)
    for number in range(unit.max() + 1):
        rows = np.flatnonzero(unit == number)
        if (labels[rows] == labels[rows[0]]).all():
            by_size[len(rows)].append(rows)
        else:
            order[rows] = rng.permutation(rows)
    alone = [blocks[0] for blocks in by_size.values() if len(blocks) == 1]
    for blocks in by_size.values():
        if len(blocks) > 1:
            for rows, source in zip(blocks, rng.permutation(len(blocks)), strict=True):
                order[rows] = blocks[source]
    if alone:
        together = np.concatenate(alone)
        order[together] = rng.permutation(together)
    return order
