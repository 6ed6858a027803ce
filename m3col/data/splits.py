"""Partitions the development pool into training and validation folds, reproducibly from a seed."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data import modality_kinds
from m3col.data.columns import IntArray
from m3col.data.dataset import Dataset, Split, concat
from m3col.errors import InputError, nearest
from m3col.storage import atomic_files
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task

KINDS = ("kfold", "holdout", "given", "none")


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of the development pool into training and validation.

    Attributes:
        train: positions of the training samples, ascending.
        validation: positions of the validation samples, ascending; may be empty.
    """

    train: IntArray
    validation: IntArray


def default_kind(dataset: Dataset) -> str:
    """The kind of partition for a config that does not set one.

    It is `given` if the data set has a validation split, else `holdout` if it has images or texts (each model is
    expensive), else `kfold`.
    """
    if dataset.validation is not None:
        return "given"
    return "holdout" if modality_kinds.media(dataset.kinds.values()) else "kfold"


def pool(dataset: Dataset, kind: str) -> Split:
    """The development pool that the positions in folds refer to.

    It is the training split; for the kind `given`, followed by the validation split.
    """
    if kind == "given" and dataset.validation is not None:
        return concat(dataset.train, dataset.validation)
    return dataset.train


def faults(
    dataset: Dataset, *, kind: str, folds: int = 5, fraction: float = 0.2, task: Task | None = None
) -> list[str]:
    """Faults that prevent this partition of this data set, one line each.

    Args:
        dataset: the data set to divide.
        kind: one of `KINDS`.
        folds: number of folds of kfold.
        fraction: share of validation samples of holdout.
        task: defines the strata for stratified sampling; default: classification with one label per sample.

    Returns:
        The faults; empty if `draw` will succeed.
    """
    if kind not in KINDS:
        return [f"validation.kind: {kind!r} is unknown{nearest(kind, KINDS)}"]
    if kind == "given" and dataset.validation is None:
        return [f"validation.kind: 'given' needs a validation split, but {dataset.name} has none; use 'kfold'"]
    if kind == "kfold":
        return kfold_faults(dataset.train, folds, task or tasks.build(classes=dataset.classes))
    if kind == "holdout":
        return _holdout_faults(dataset, fraction, task or tasks.build(classes=dataset.classes))
    return []


def kfold_faults(
    samples: Split, folds: int, task: Task, *, where: str = "validation.folds", of: str = "training "
) -> list[str]:
    """The fault of a number of folds that these samples cannot have.

    Args:
        samples: the samples to divide, with labels.
        folds: number of folds.
        task: defines the strata.
        where: the key of `folds`, for the message.
        of: what the samples are called, followed by a blank.

    Returns:
        At most one line.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        return [f"{where}: must be a whole number >= 2, but got {folds!r}; nearest 2"]
    counts = stratum_counts(samples, task)
    unit = "samples" if samples.groups is None else "groups"
    smallest = int(np.argmin(counts))
    if folds <= counts[smallest]:
        return []
    has = f"{task.stratum(smallest)} has only" if task.exact_strata else "there are only"
    most = f"at most {counts[smallest]} folds are possible" if counts[smallest] >= 2 else "no k is possible"
    return [f"{where}: {folds} folds, but {has} {counts[smallest]} {of}{unit}; {most}"]


def stratum_counts(samples: Split, task: Task) -> list[int]:
    """The number of samples, or of groups where there are any, in each stratum that every fold must have.

    Args:
        samples: the samples, with labels.
        task: defines the strata; without exact ones all samples are one stratum.
    """
    strata, groups = task.strata(_labels(samples)), samples.groups
    if not task.exact_strata:
        strata = np.zeros_like(strata)
    masks = [strata == stratum for stratum in range(task.num_strata if task.exact_strata else 1)]
    return [int(mask.sum()) if groups is None else len(np.unique(groups[mask])) for mask in masks]


def _holdout_faults(dataset: Dataset, fraction: float, task: Task) -> list[str]:
    where = "validation.fraction"
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        return [f"{where}: must be a number between 0 and 1, but got {fraction!r}; nearest 0.2"]
    if dataset.train.groups is not None:
        return ["validation.kind: 'holdout' does not keep groups together; use 'kfold'"]
    if not task.exact_strata:
        count = len(dataset.train)
        return [] if count > 1 else [f"validation.kind: 'holdout' needs 2 training samples, but there is {count}"]
    counts = np.bincount(task.strata(_labels(dataset.train)), minlength=task.num_strata)
    smallest = int(np.argmin(counts))
    if counts[smallest] < 2:
        return [f"validation.kind: 'holdout' needs 2 samples of each class, but {task.stratum(smallest)} has one"]
    total, classes = int(counts.sum()), task.num_strata
    validation = int(np.ceil(fraction * total))
    if validation < classes or total - validation < classes:
        nearest_fraction = classes / total if validation < classes else 1 - classes / total
        return [
            f"{where}: {fraction:g} of {total} samples leaves {validation} for validation and {total - validation} for "
            f"training, but each needs one per class ({classes}); nearest {nearest_fraction:.3g}"
        ]
    return []


def draw(
    dataset: Dataset,
    *,
    kind: str,
    folds: int = 5,
    fraction: float = 0.2,
    seed: int = 0,
    task: Task | None = None,
) -> list[Fold]:
    """Draws the folds of one partition of `pool(dataset, kind)`. Equal arguments give equal folds.

    Args:
        dataset: the data set to divide.
        kind: `kfold`: stratified folds (as far as the task has exact strata), with the samples of a group kept
            together; `holdout`: one fold that validates on a share of the samples; `given`: one fold that validates on
            the data set's validation split; `none`: one fold that trains on all samples.
        folds: number of folds of kfold.
        fraction: share of validation samples of holdout.
        seed: of the random numbers.
        task: defines the strata for stratified sampling; default: classification with one label per sample.

    Returns:
        The folds, as positions in `pool(dataset, kind)`.

    Raises:
        InputError: with the lines of `faults`.
    """
    task = task or tasks.build(classes=dataset.classes)
    lines = faults(dataset, kind=kind, folds=folds, fraction=fraction, task=task)
    if lines:
        raise InputError(lines)
    count = len(pool(dataset, kind))
    if kind == "none":
        return [_complement(np.empty(0, dtype=np.int64), count)]
    if kind == "given":
        return [_complement(np.arange(len(dataset.train), count), count)]
    if not task.exact_strata:
        strata = task.strata(_labels(dataset.train))
        share = None if kind == "kfold" else float(fraction)
        parts = _dealt(strata, folds=folds, fraction=share, seed=seed, groups=dataset.train.groups)
        return [_complement(part, count) for part in parts]
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit  # slow to import

    strata, placeholder = task.strata(_labels(dataset.train)), np.zeros((count, 1))
    if kind == "holdout":
        pairs = StratifiedShuffleSplit(1, test_size=float(fraction), random_state=seed).split(placeholder, strata)
    elif dataset.train.groups is None:
        pairs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(placeholder, strata)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        pairs = splitter.split(placeholder, strata, dataset.train.groups)
    return [_complement(validation, count) for _, validation in pairs]


def _dealt(
    strata: IntArray, *, folds: int, fraction: float | None, seed: int, groups: NDArray[np.str_] | None
) -> list[IntArray]:
    """Validation positions of each fold, in turn: every fold gets an equal share of each stratum, up to one sample.

    Samples are shuffled within strata, and the strata laid one after the other. With k folds, sample i of that row
    belongs to fold i modulo k; with a fraction, evenly spaced ones validate. Groups are dealt like samples: the stratum
    of a group is the most frequent one of its samples.
    """
    draw = np.random.default_rng(seed)
    unit, own = np.arange(len(strata)), strata
    if groups is not None:
        unit = np.unique(groups, return_inverse=True)[1]
        votes = np.zeros((unit.max() + 1, strata.max() + 1), dtype=np.int64)
        np.add.at(votes, (unit, strata), 1)
        own = votes.argmax(axis=1)
    row = np.lexsort((draw.permutation(len(own)), own))
    if fraction is None:
        place = np.empty(len(row), dtype=np.int64)
        place[row] = np.arange(len(row))
        return [np.flatnonzero(place[unit] % folds == fold) for fold in range(folds)]
    size = min(max(int(np.ceil(fraction * len(row))), 1), len(row) - 1)
    chosen = row[((np.arange(size) + draw.random()) * len(row) / size).astype(np.int64)]
    return [np.flatnonzero(np.isin(unit, chosen))]


def held_out_faults(samples: Split, task: Task, *, where: str) -> list[str]:
    """The faults of a training fold of which a part is to be held out, one line each.

    Args:
        samples: the training fold, with labels.
        task: defines the strata.
        where: the key of the share, for the messages.
    """
    unit = "samples" if samples.groups is None else "groups"
    return [
        f"{where}: needs 2 {unit} of each class in every training fold, one of them held out, but of "
        f"{task.stratum(number) if task.exact_strata else 'all'} there is {count or 'none'}; take more data, or "
        "objective.decision: fused"
        for number, count in enumerate(stratum_counts(samples, task))
        if count < 2
    ]


def held_out(samples: Split, share: float, *, seed: int, task: Task) -> Fold:
    """Divides a training fold within strata; groups stay together. Equal arguments give equal parts.

    Args:
        samples: the training fold, with labels.
        share: of the samples, or groups, that are held out; more where groups have samples of several strata. With
            exact strata each stratum has at least one on both sides, as far as groups allow it; see `held_out_faults`.
        seed: of the random numbers.
        task: defines the strata.

    Returns:
        Positions in `samples`; `validation` has those that are held out.
    """
    strata, groups = task.strata(_labels(samples)), samples.groups
    if not task.exact_strata:
        return _complement(_dealt(strata, folds=0, fraction=share, seed=seed, groups=groups)[0], len(samples))
    draw = np.random.default_rng(seed)
    unit = np.arange(len(strata)) if groups is None else np.unique(groups, return_inverse=True)[1]
    chosen: set[int] = set()
    members = [{*np.unique(unit[strata == stratum]).tolist()} for stratum in range(task.num_strata)]
    for stratum in range(task.num_strata):
        own = np.unique(unit[strata == stratum])
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        for one in draw.permutation(own).tolist():
            if len(chosen & members[stratum]) >= count:
                break
            # A group with samples of several strata is kept where it is the last one of any of them.
            if all(len(others - chosen) > 1 for others in members if one in others):
                chosen.add(one)
    return _complement(np.flatnonzero(np.isin(unit, [*chosen])), len(samples))


def _complement(positions: NDArray[np.integer], count: int) -> Fold:
    validation = np.sort(positions).astype(np.int64)
    return Fold(train=np.setdiff1d(np.arange(count, dtype=np.int64), validation), validation=validation)


def _labels(split: Split) -> NDArray[Any]:
    if split.labels is None:
        raise ValueError("the training split has no labels")
    return split.labels


def write_csv(path: Path, ids: Sequence[str] | NDArray[np.str_], partitions: dict[str, list[Fold]]) -> None:
    """Writes partitions to a CSV file atomically.

    The file has one row per sample of the pool and one column per partition. A cell is the number of the fold that
    validates on the sample, or -1 if none does.

    Args:
        path: the file.
        ids: ids of the samples of the pool.
        partitions: the folds of each partition, by its name.
    """
    columns = []
    for folds in partitions.values():
        column = np.full(len(ids), -1, dtype=np.int64)
        for number, fold in enumerate(folds):
            if len(fold.train) + len(fold.validation) != len(ids) or (column[fold.validation] != -1).any():
                raise ValueError("the folds of a partition must validate on each sample at most once")
            column[fold.validation] = number
        columns.append(column)
    with atomic_files.replaced(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *partitions])
        writer.writerows(zip(ids, *(column.tolist() for column in columns), strict=True))


def read_csv(path: Path, *, ids: Sequence[str] | NDArray[np.str_] | None = None) -> dict[str, list[Fold]]:
    """Reads the partitions that `write_csv` wrote.

    Args:
        path: the file.
        ids: ids of the samples of the pool, which the rows must have. None: not checked.

    Returns:
        The folds of each partition, by its name.

    Raises:
        InputError: with every fault of the file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError([f"{path}: cannot be read ({error})"]) from error
    if header[:1] != ["id"] or any(len(row) != len(header) for row in rows):
        raise InputError([f"{path}: must have a header that starts with `id` and rows of that length"])
    lines = _id_faults(path, [row[0] for row in rows], ids)
    partitions: dict[str, list[Fold]] = {}
    for index, name in enumerate(header[1:], start=1):
        try:
            column = np.array([int(row[index]) for row in rows], dtype=np.int64)
        except ValueError as error:
            lines.append(f"{path}: column {name!r}: a fold is a whole number >= -1 ({error})")
            continue
        last = max(column.max(initial=0), 0)
        if column.min(initial=-1) < -1 or (last and set(range(last + 1)) - set(column.tolist())):
            lines.append(f"{path}: column {name!r}: folds must be numbered 0..k-1 without a gap, or -1")
            continue
        partitions[name] = [_complement(np.flatnonzero(column == k), len(rows)) for k in range(last + 1)]
    if lines:
        raise InputError(lines)
    return partitions


def _id_faults(path: Path, stored: list[str], ids: Sequence[str] | NDArray[np.str_] | None) -> list[str]:
    expected = stored if ids is None else [str(i) for i in ids]
    if len(stored) != len(expected):
        return [f"{path}: has {len(stored)} samples, but the data set has {len(expected)}"]
    for row, (a, b) in enumerate(zip(stored, expected, strict=True), start=2):
        if a != b:
            return [f"{path}: row {row}: sample {a!r}, but the data set has {b!r} there"]
    return []
