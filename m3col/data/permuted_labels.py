"""Labels in a random order: data on which nothing can be learnt, to see what a procedure reaches by chance.

Each split is permuted for itself, so that its class sizes, groups and inputs stay as they are. Where samples have
groups, labels are permuted inside of each group; where every group has one label only, the labels of whole groups are
permuted.
"""

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
    names, unit = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(unit == number) for number in range(len(names))]
    order = np.arange(len(labels))
    if all((labels[rows] == labels[rows[0]]).all() for rows in members):
        for rows, source in zip(members, rng.permutation(len(members)), strict=True):
            order[rows] = members[source][0]
        return order
    for rows in members:
        order[rows] = rng.permutation(rows)
    return order
