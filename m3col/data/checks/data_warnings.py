"""Warnings about suspicious data: samples that occur in two splits, columns that only number the rows, classes whose
names differ only in case.

Warnings do not prevent training. Each line names the problem, where it is, and how many samples or columns it affects.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.columns import FloatArray, IntArray, MediaColumn, ModalityData
from m3col.data.dataset import Dataset, Split
from m3col.data.images import cache
from m3col.data.labels import case_warnings
from m3col.data.sequences.column import SequenceColumn
from m3col.data.splits import Fold

_SHOWN = 5  # columns listed individually; the others are only counted

_ROW_NAMES = ("Unnamed: 0", "index", "level_0", "rownames", "row.names")

_FEW = 10  # with fewer rows, a monotonic column may be chance


def of_dataset(dataset: Dataset) -> list[str]:
    """Warnings about a data set that do not depend on its partition for validation."""
    return [*across_splits(dataset), *of_training(dataset)]


def of_training(dataset: Dataset) -> list[str]:
    """Warnings about the training split alone: its columns and its classes."""
    warnings: list[str] = []
    labels = dataset.train.labels
    if labels is not None:
        for name, column in dataset.train.inputs.items():
            prefix = f"{dataset.name}, modality {name!r}"
            if isinstance(column, SequenceColumn):
                warnings += _empty_features(column, dataset.features[name], prefix)
            elif isinstance(column, np.ndarray):
                warnings += _column_warnings(column, labels, dataset.features[name], prefix)
        if labels.ndim == 1:  # classes, not a table of labels or numbers
            counts = np.bincount(labels, minlength=dataset.num_classes).tolist()
            warnings += case_warnings(dataset.classes, counts, dataset.name)
    return warnings


# Samples, ids and groups in two splits


def across_splits(dataset: Dataset, *, within: bool = False) -> list[str]:
    """Warnings about samples, ids and groups that occur in two splits.

    Two samples are equal if all modalities that both splits have are equal.

    Args:
        dataset: the data set.
        within: whether to report equal samples within one split, too.
    """
    warnings = []
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
            warnings.append(
                f"{dataset.name}: {len(pairs)} pairs of samples {where} are equal in every value ({first} row "
                f"{row + 1} = {second} row {other + 1}{counted})"
            )
        if first == second:
            continue
        for attribute, left, right in (("ids", a.ids, b.ids), ("groups", a.groups, b.groups)):
            shared = "" if left is None or right is None else _shared_names(left, right, first, second)
            warnings += [f"{dataset.name}: of its {attribute} {shared}"] if shared else []
    return warnings


def across_folds(name: str, samples: Split, folds: Sequence[Fold]) -> list[str]:
    """Warnings about equal samples and about groups that are in both training and validation of a fold.

    Args:
        name: of the data set, for the messages.
        samples: the samples that the positions in `folds` refer to.
        folds: the folds of one partition.
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
    warnings = []
    if equal:
        warnings.append(
            f"{name}: {equal} of the {total} validation samples equal a training sample of their fold in every value"
            f"{example}, so that validation scores are too good; remove them, or give equal samples one group"
        )
    if shared:
        warnings.append(f"{name}: {len(shared)} groups stand on both sides of a fold")
    return warnings


def _shared_names(a: NDArray[np.str_], b: NDArray[np.str_], first: str, second: str) -> str:
    """Counts the names that two splits have in common and locates the first; "" if there are none.

    The names themselves are not shown: the line goes into reports, and they may identify persons. Whole numbers are
    ignored, because each split may number its own rows.
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
    """Pairs (row of a, row of b) of equal samples. `same`: a and b are the same split; each pair is listed once."""
    common = [name for name in a.inputs if name in b.inputs]
    comparable = common and all(_width(a.inputs[name]) == _width(b.inputs[name]) for name in common)
    if not comparable:
        return []
    rows_by_key: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(sample_keys(a.select(common))):
        rows_by_key[key].append(row)
    keys = sample_keys(b.select(common))
    pairs = [(row, other) for other, key in enumerate(keys) for row in rows_by_key.get(key, ())]
    return [(row, other) for row, other in pairs if not same or row < other]


def _width(column: ModalityData) -> int | str:
    if isinstance(column, SequenceColumn):
        return f"{column.kind} {column.width}"
    return column.kind if isinstance(column, MediaColumn) else column.shape[1]


def sample_keys(split: Split) -> list[bytes]:
    """A digest of the content of each sample, over all modalities."""
    parts = [_row_keys(column) for column in split.inputs.values()]
    return [hashlib.blake2b(b"".join(row), digest_size=16).digest() for row in zip(*parts, strict=True)]


def _row_keys(column: ModalityData) -> list[bytes]:
    if isinstance(column, MediaColumn):
        return [digest.encode() for digest in cache.content_digests(column)]
    if isinstance(column, SequenceColumn):
        steps = column.canonical() + np.float32(0)  # one zero
        parts = np.split(steps, column.offsets[1:-1])
        return [hashlib.blake2b(part.tobytes(), digest_size=16).digest() for part in parts]
    # One bit pattern for every NaN, and one zero.
    canonical = np.ascontiguousarray(np.where(np.isnan(column), np.nan, column) + 0.0)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in canonical]


# Columns that number the rows


def _column_warnings(x: FloatArray, labels: NDArray[Any], features: Sequence[str], where: str) -> list[str]:
    """Warnings about columns of the training split that follow the row order or equal the labels."""
    warnings = [
        f"{where}: {_named(column, features)} is what pandas or R calls a column of row numbers; remove it"
        for column, name in enumerate(features)
        if name in _ROW_NAMES
    ]
    if len(x) < _FEW:
        return warnings
    steps = np.diff(x, axis=0)
    counts = (steps == 1).all(axis=0)
    rises = ((steps > 0).all(axis=0) | (steps < 0).all(axis=0)) & ~counts
    targets = labels.reshape(len(labels), -1)
    is_label = np.any([(x == target[:, None]).all(axis=0) for target in targets.T], axis=0)
    has_classes = labels.ndim == 1
    is_sorted = has_classes and len(np.unique(labels)) == 1 + int((np.diff(labels) != 0).sum())
    follows = ((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)) & has_classes
    follows &= ~(counts | rises | is_label)
    # A monotonic column can separate the classes only if the rows are sorted by class.
    follows[follows] = [_separates(column, labels) for column in x[:, follows].T]
    leak = "; the rows are sorted by class, so that it alone separates the classes" if is_sorted else ""
    shuffled = ~(counts | rises | is_label) & _is_permutation(x)
    findings = (
        (shuffled, "holds each of as many whole numbers as there are rows once, as row numbers in another order do"),
        (counts, f"is the row number{leak}"),
        (rises, f"grows or falls from each row to the next, as a sample number or a date does{leak}"),
        (is_label, f"equals {'the' if has_classes else 'a'} label in every row"),
        (follows, "follows the order of the rows, which are sorted by class, and alone separates the classes"),
    )
    for mask, text in findings:
        columns = np.flatnonzero(mask)
        warnings += [
            f"{where}: {_named(column, features)} {text}; remove it if it is no measurement"
            for column in columns[:_SHOWN]
        ]
        if len(columns) > _SHOWN:
            warnings.append(f"{where}: {len(columns) - _SHOWN} more columns of this kind")
    return warnings


def _empty_features(column: SequenceColumn, features: Sequence[str], where: str) -> list[str]:
    """Warnings about features of the training sequences that never have a value."""
    empty = np.flatnonzero(np.isnan(column.steps).all(axis=0))
    lines = [
        f"{where}: feature {at + 1} ({features[at]}) has no value at any step; it becomes 0" for at in empty[:_SHOWN]
    ]
    return lines + ([f"{where}: {len(empty) - _SHOWN} more features without a value"] if len(empty) > _SHOWN else [])


def _is_permutation(x: FloatArray) -> NDArray[np.bool_]:
    """For each column, whether it contains N consecutive whole numbers in any order, each once."""
    low = x.min(axis=0)
    candidates = (x.max(axis=0) - low == len(x) - 1) & (low % 1 == 0)
    is_permutation = np.zeros(x.shape[1], dtype=np.bool_)
    for at in np.flatnonzero(candidates):
        is_permutation[at] = np.array_equal(np.sort(x[:, at]), low[at] + np.arange(len(x)))
    return is_permutation


def _named(at: int, features: Sequence[str]) -> str:
    return f"column {at + 1} ({features[at]})"


def _separates(column: FloatArray, labels: IntArray) -> bool:
    """Whether no two classes overlap in this column."""
    ranges = sorted((column[labels == k].min(), column[labels == k].max()) for k in np.unique(labels))
    return all(left[1] < right[0] for left, right in pairwise(ranges))
