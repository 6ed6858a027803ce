"""Outer splits: all labelled samples of a data set are pooled, and divided anew into training and test samples.

Division number `index` is a function of the pooled labels and groups, and of the section `data.resplit`. It depends
neither on the number of divisions nor on the other ones, so that more of them can be added later.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from m3col.config.resplit import ResplitConfig
from m3col.data import label_tables, modality_kinds, splits
from m3col.data.columns import IntArray
from m3col.data.dataset import Dataset, Split, concat
from m3col.errors import InputError, nearest
from m3col.tasks.base import Task

EVERYTHING = "everything"

_KEY = "data.resplit"


def pool(dataset: Dataset, groups: str | None = None) -> Split:
    """All labelled samples of a data set, in the order training, validation, test.

    An id that occurs in two splits gets the name of its split in front (`test/17`). Where only some splits have groups,
    each sample of the others is a group of its own.

    Args:
        dataset: the data set.
        groups: see `ResplitConfig.groups`.

    Returns:
        The samples.

    Raises:
        InputError: there is no such column, or no labels.
    """
    labelled = {name: split for name, split in dataset.splits.items() if split.labels is not None}
    if dataset.train.labels is None:
        raise InputError([f"{_KEY}: outer splits need labels, but the training samples of {dataset.name} have none"])
    if groups is not None:
        labelled = {name: replace(split, groups=_column(dataset, split, groups)) for name, split in labelled.items()}
    elif any(split.groups is not None for split in labelled.values()):
        labelled = {
            name: split if split.groups is not None else replace(split, groups=_qualified(name, split.ids))
            for name, split in labelled.items()
        }
    ids = np.concatenate([split.ids for split in labelled.values()])
    if len(np.unique(ids)) < len(ids):
        labelled = {name: replace(split, ids=_qualified(name, split.ids)) for name, split in labelled.items()}
    return reduce(concat, labelled.values())


def _qualified(split: str, names: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.array([f"{split}/{name}" for name in names], dtype=np.str_)


def _column(dataset: Dataset, split: Split, name: str) -> NDArray[np.str_]:
    """The values of a column of a numeric table, as names of groups. A sample without a value is its own group."""
    columns = [
        (modality, at, f"{modality}.{feature}", feature)
        for modality, features in dataset.features.items()
        if dataset.kinds[modality] == modality_kinds.NUMERIC
        for at, feature in enumerate(features)
    ]
    matches = [column for column in columns if name in column[2:]]
    if len(matches) != 1:
        key = f"{_KEY}.groups"
        if matches:
            where = " and ".join(column[2] for column in matches)
            raise InputError([f"{key}: {name!r} is a column of several tables; write one of {where}"])
        known = [full for *_, full, _ in columns]
        close = nearest(name, [*known, *(column[3] for column in columns)])
        hint = close if "did you mean" in close or len(known) <= _FEW else f"; write modality.column, e.g. {known[0]}"
        raise InputError([f"{key}: no numeric table of {dataset.name} has a column {name!r}{hint}"])
    modality, at = matches[0][:2]
    values = split.inputs[modality]
    assert isinstance(values, np.ndarray)
    cells = values[:, at]
    return np.array(
        [f"alone/{own}" if np.isnan(cell) else f"{cell:.17g}" for own, cell in zip(split.ids, cells, strict=True)],
        dtype=np.str_,
    )


_FEW = 8  # with more columns a message does not list them all


def test_share(dataset: Dataset, settings: ResplitConfig) -> float:
    """The share of the pooled samples that a division tests."""
    test = dataset.test
    if settings.kind == EVERYTHING:
        return 0.0
    if settings.kind == "kfold" or test is None or test.labels is None:
        return 1 / settings.folds
    labelled = [split for split in dataset.splits.values() if split.labels is not None]
    return len(test) / sum(map(len, labelled))


def faults(dataset: Dataset, settings: ResplitConfig, *, task: Task) -> list[str]:
    """Faults that prevent every division of this data set, one line each; each begins with its dotted key."""
    lines = []
    if dataset.pretrain is not None:
        lines.append(
            f"{_KEY}: {dataset.name} has samples without labels for pretraining, and some of them may be those that a "
            "new division tests; leave it out, so that the data set's own test samples are used"
        )
    form = label_tables.dataset_faults(dataset, task.label_form, task.name)
    if form:  # strata rely on the form of the labels
        return [*lines, *form]
    try:
        samples = pool(dataset, settings.groups)
    except InputError as error:
        return [*lines, *error.faults]
    if settings.kind == EVERYTHING:
        return lines
    if settings.kind == "kfold":
        return lines + splits.kfold_faults(samples, settings.folds, task, where=f"{_KEY}.folds", of="")
    unit = "samples" if samples.groups is None else "groups"
    counts = splits.stratum_counts(samples, task)
    smallest = int(np.argmin(counts))
    if counts[smallest] < 2:
        what = task.stratum(smallest) if task.exact_strata else "the data set"
        lines.append(
            f"{_KEY}.kind: 'resplit' needs 2 {unit} of each class, one to train on and one to test, but {what} has "
            f"{counts[smallest]}"
        )
    return lines


def test_positions(samples: Split, settings: ResplitConfig, *, share: float, task: Task) -> IntArray:
    """The positions of the test samples of one division, ascending.

    Args:
        samples: the pooled samples.
        settings: which division.
        share: the share of test samples of a random division.
        task: defines the strata.

    Returns:
        Positions in `samples`.
    """
    if settings.kind == EVERYTHING:
        return np.empty(0, dtype=np.int64)
    number = settings.index // settings.folds if settings.kind == "kfold" else settings.index
    key = np.random.SeedSequence([settings.seed, number])
    if settings.kind == "kfold":
        whole = Dataset("pool", task.classes, dict.fromkeys(samples.inputs, ()), samples)
        seed = int(key.generate_state(1)[0])
        folds = splits.draw(whole, kind="kfold", folds=settings.folds, seed=seed, task=task)
        return folds[settings.index % settings.folds].validation
    assert samples.labels is not None
    strata = task.strata(samples.labels)
    return _random(strata, samples.groups, share=share, exact=task.exact_strata, draw=np.random.default_rng(key))


def _random(
    strata: IntArray, groups: NDArray[np.str_] | None, *, share: float, exact: bool, draw: np.random.Generator
) -> IntArray:
    """Test positions of a random division: of each stratum as near to `share` of its samples as whole groups allow.

    The stratum of a group is the most frequent one of its samples. With `exact` strata both sides get at least one
    group of each.
    """
    unit = np.arange(len(strata)) if groups is None else np.unique(groups, return_inverse=True)[1]
    votes = np.zeros((unit.max() + 1, strata.max() + 1), dtype=np.int64)
    np.add.at(votes, (unit, strata), 1)
    own, sizes = votes.argmax(axis=1), votes.sum(axis=1)
    present = np.unique(own)
    wanted = _shares([int(sizes[own == stratum].sum()) for stratum in present], share)
    chosen: list[int] = []
    for stratum, target in zip(present, wanted, strict=True):
        members = draw.permutation(np.flatnonzero(own == stratum))
        least, most = (min(1, len(members) - 1), len(members) - 1) if exact else (0, len(members))
        totals = np.concatenate([[0], np.cumsum(sizes[members])])
        count = least + int(np.argmin(np.abs(totals[least : most + 1] - target)))
        chosen += members[:count].tolist()
    return np.flatnonzero(np.isin(unit, chosen)).astype(np.int64)


def _shares(sizes: Sequence[int], share: float) -> list[int]:
    """Whole numbers near `share` of each size, whose sum is nearest to `share` of all: largest remainders first."""
    exact = share * np.asarray(sizes, dtype=np.float64)
    counts = np.floor(exact).astype(np.int64)
    whole = min(max(round(share * sum(sizes)), 1), sum(sizes) - 1)  # neither side may be empty
    missing = whole - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[: max(missing, 0)]] += 1
    return counts.tolist()


def apply(dataset: Dataset, settings: ResplitConfig, *, task: Task) -> Dataset:
    """The data set with the training and test samples of one outer split, and without a validation split.

    Args:
        dataset: the data set with all of its splits.
        settings: which division.
        task: defines the strata.

    Returns:
        The data set of that outer split. Samples keep the order of the pool.

    Raises:
        InputError: with every fault, see `faults`; or a class would be missing on one side.
    """
    lines = faults(dataset, settings, task=task)
    if lines:
        raise InputError(lines)
    samples = pool(dataset, settings.groups)
    test = test_positions(samples, settings, share=test_share(dataset, settings), task=task)
    train = np.setdiff1d(np.arange(len(samples), dtype=np.int64), test)
    if settings.kind != EVERYTHING:
        _require_all_strata(samples, {"training": train, "test": test}, settings, task)
    unlabelled = {} if dataset.test is None or dataset.test.labels is not None else {
        "test samples without a label, in outer splits": len(dataset.test)
    }  # fmt: skip
    return replace(
        dataset,
        train=samples.take(train),
        validation=None,
        test=samples.take(test) if len(test) else None,
        dropped={**dataset.dropped, **unlabelled},
    )


def _require_all_strata(samples: Split, parts: dict[str, IntArray], settings: ResplitConfig, task: Task) -> None:
    """Raises InputError if a side of a division is empty or lacks a class, as can happen with groups."""
    assert samples.labels is not None
    strata = task.strata(samples.labels)
    lines = []
    for side, positions in parts.items():
        missing = np.setdiff1d(strata, strata[positions]) if task.exact_strata else np.empty(0, dtype=np.int64)
        if len(positions) and not len(missing):
            continue
        what = f"no sample of {task.stratum(int(missing[0]))}" if len(missing) else "no sample"
        lines.append(
            f"{_KEY}.index: outer split {settings.index} (seed {settings.seed}) has {what} on its {side} side, because "
            f"groups are kept together; choose another {_KEY}.seed, or fewer folds"
        )
    if lines:
        raise InputError(lines)
