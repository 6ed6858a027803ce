"""What makes a data set suspicious, as warnings: samples on both sides of a split, columns that only number the rows,
classes that differ only in case.

Nothing here forbids a training; each line says what was found, where, and in how many samples or columns.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

from m3col.data.columns import FloatArray, IntArray, MediaColumn, ModalityData
from m3col.data.dataset import Dataset, Split
from m3col.data.images import cache
from m3col.data.labels import case_warnings
from m3col.data.splits import Fold

_SHOWN = 5  # columns that are named one by one; the rest is counted

_ROW_NAMES = ("Unnamed: 0", "index", "level_0", "rownames", "row.names")

_FEW = 10  # rows below which a rising column may be chance


def of_dataset(dataset: Dataset) -> list[str]:
    """Warnings about a data set, whichever way it is divided for validation."""
    return [*across_splits(dataset), *of_training(dataset)]


def of_training(dataset: Dataset) -> list[str]:
    """Warnings about the training split alone: its columns and its classes."""
    found: list[str] = []
    labels = dataset.train.labels
    if labels is not None and labels.dtype.kind in "iu":  # the warnings are about classes
        for name, column in dataset.train.inputs.items():
            if not isinstance(column, MediaColumn):
                place = f"{dataset.name}, modality {name!r}"
                found += _column_warnings(column, labels, dataset.features[name], place)
        counts = np.bincount(labels, minlength=dataset.num_classes).tolist()
        found += case_warnings(dataset.classes, counts, dataset.name)
    return found


# Samples on both sides


def across_splits(dataset: Dataset, *, within: bool = False) -> list[str]:
    """Samples, ids and groups that stand in two splits. `within`: also samples that stand in one split twice.

    Two samples are equal where all modalities that both splits have are.
    """
    found = []
    for first, second in combinations_with_replacement(dataset.splits, 2):
        if first == second and not within:
            continue
        a, b = dataset.splits[first], dataset.splits[second]
        pairs = equal_rows(a, b, same=first == second)
        if pairs:
            row, other = pairs[0]
            where = f"within {first}" if first == second else f"across {first} and {second}"
            samples = len({pair[1] for pair in pairs})
            counted = "" if first == second else f"; {samples} of the {len(b)} samples of {second}"
            found.append(
                f"{dataset.name}: {len(pairs)} pairs of samples {where} are equal in every value ({first} row "
                f"{row + 1} = {second} row {other + 1}{counted})"
            )
        if first == second:
            continue
        for what, left, right in (("ids", a.ids, b.ids), ("groups", a.groups, b.groups)):
            shared = "" if left is None or right is None else _shared_names(left, right, first, second)
            found += [f"{dataset.name}: of its {what} {shared}"] if shared else []
    return found


def across_folds(name: str, samples: Split, folds: Sequence[Fold]) -> list[str]:
    """Samples and groups that stand on both sides of a fold: the validation then sees what was trained on.

    Args:
        name: of the data set, for the lines.
        samples: what the positions in `folds` refer to.
        folds: one partition.
    """
    keys = sample_keys(samples)
    equal, total, example = 0, 0, ""
    shared: set[str] = set()
    for fold in folds:
        train = {keys[at]: at for at in fold.train.tolist()}
        twins = [(train[keys[at]], at) for at in fold.validation.tolist() if keys[at] in train]
        equal, total = equal + len(twins), total + len(fold.validation)
        if twins and not example:
            example = f" (row {twins[0][0] + 1} = row {twins[0][1] + 1})"
        if samples.groups is not None:
            shared |= set(samples.groups[fold.train].tolist()) & set(samples.groups[fold.validation].tolist())
    found = []
    if equal:
        found.append(
            f"{name}: {equal} of the {total} validation samples equal a training sample of their fold in every value"
            f"{example}, so that validation scores are too good; remove them, or give equal samples one group"
        )
    if shared:
        found.append(f"{name}: {len(shared)} groups stand on both sides of a fold")
    return found


def _shared_names(a: NDArray[np.str_], b: NDArray[np.str_], first: str, second: str) -> str:
    """How many names two splits have in common and where the first of them stands; "" for none. Names are not shown:
    the line goes into reports, and they may be those of persons. Whole numbers are no names: each split may
    number its own rows.
    """
    rows = {name: row for row, name in reversed(list(enumerate(a.tolist()))) if not name.isdigit()}
    common = [(rows[name], row) for row, name in enumerate(b.tolist()) if name in rows]
    count = len({row for row, _ in common})
    if not common:
        return ""
    return (
        f"{count} stand in {first} and in {second} ({first} row {common[0][0] + 1} = {second} row {common[0][1] + 1})"
    )


def equal_rows(a: Split, b: Split, *, same: bool) -> list[tuple[int, int]]:
    """Pairs (row of a, row of b) of equal samples; `same`: a and b are one split, of which each pair counts once."""
    common = [name for name in a.inputs if name in b.inputs]
    fits = common and all(_width(a.inputs[name]) == _width(b.inputs[name]) for name in common)
    if not fits:
        return []
    seen: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(sample_keys(a.select(common))):
        seen[key].append(row)
    keys = sample_keys(b.select(common))
    pairs = [(row, other) for other, key in enumerate(keys) for row in seen.get(key, ())]
    return [(row, other) for row, other in pairs if not same or row < other]


def _width(column: ModalityData) -> int | str:
    return column.kind if isinstance(column, MediaColumn) else column.shape[1]


def sample_keys(split: Split) -> list[bytes]:
    """A digest of each sample's content, all modalities together."""
    parts = [_row_keys(column) for column in split.inputs.values()]
    return [hashlib.blake2b(b"".join(row), digest_size=16).digest() for row in zip(*parts, strict=True)]


def _row_keys(column: ModalityData) -> list[bytes]:
    if isinstance(column, MediaColumn):
        return [digest.encode() for digest in cache.content_digests(column)]
    # One bit pattern for every NaN, and one zero.
    canonical = np.ascontiguousarray(np.where(np.isnan(column), np.nan, column) + 0.0)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in canonical]


# Columns that number the rows


def _column_warnings(x: FloatArray, labels: IntArray, features: Sequence[str], where: str) -> list[str]:
    """Columns of the training split that follow the order of the rows, or that hold the labels."""
    found = [
        f"{where}: {_named(at, features)} is what pandas or R calls a column of row numbers; remove it"
        for at, name in enumerate(features)
        if name in _ROW_NAMES
    ]
    if len(x) < _FEW:
        return found
    steps = np.diff(x, axis=0)
    counts = (steps == 1).all(axis=0)
    rises = ((steps > 0).all(axis=0) | (steps < 0).all(axis=0)) & ~counts
    is_label = (x == labels[:, None]).all(axis=0)
    is_sorted = len(np.unique(labels)) == 1 + int((np.diff(labels) != 0).sum())
    follows = (steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)
    follows &= ~(counts | rises | is_label)
    # Where such a column separates the classes, the rows are sorted by class.
    follows[follows] = [_separates(column, labels) for column in x[:, follows].T]
    leak = "; the rows are sorted by class, so that it alone separates the classes" if is_sorted else ""
    shuffled = ~(counts | rises | is_label) & _is_permutation(x)
    kinds = (
        (shuffled, "holds each of as many whole numbers as there are rows once, as row numbers in another order do"),
        (counts, f"is the row number{leak}"),
        (rises, f"grows or falls from each row to the next, as a sample number or a date does{leak}"),
        (is_label, "equals the label in every row"),
        (follows, "follows the order of the rows, which are sorted by class, and alone separates the classes"),
    )
    for mask, text in kinds:
        at = np.flatnonzero(mask)
        found += [
            f"{where}: {_named(column, features)} {text}; remove it if it is no measurement" for column in at[:_SHOWN]
        ]
        if len(at) > _SHOWN:
            found.append(f"{where}: {len(at) - _SHOWN} more columns of this kind")
    return found


def _is_permutation(x: FloatArray) -> NDArray[np.bool_]:
    """Of each column, whether it holds N consecutive whole numbers, each once."""
    low = x.min(axis=0)
    candidates = (x.max(axis=0) - low == len(x) - 1) & (low % 1 == 0)
    found = np.zeros(x.shape[1], dtype=np.bool_)
    for at in np.flatnonzero(candidates):
        found[at] = np.array_equal(np.sort(x[:, at]), low[at] + np.arange(len(x)))
    return found


def _named(at: int, features: Sequence[str]) -> str:
    return f"column {at + 1} ({features[at]})"


def _separates(column: FloatArray, labels: IntArray) -> bool:
    """Whether no two classes overlap in this column."""
    ranges = sorted((column[labels == k].min(), column[labels == k].max()) for k in np.unique(labels))
    return all(left[1] < right[0] for left, right in pairwise(ranges))
