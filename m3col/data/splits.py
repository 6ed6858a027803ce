"""Partitions of the development pool: which samples train and which validate, drawn once from a seed."""

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
    """One division of the development pool.

    Attributes:
        train: positions of the samples that train, ascending.
        validation: positions of the samples that validate, ascending; empty where all samples train.
    """

    train: IntArray
    validation: IntArray


def default_kind(dataset: Dataset) -> str:
    """The kind of partition of a config that names none: `given` where the data set has a validation split; else
    `kfold`, or `holdout` where images or texts make each model expensive."""
    if dataset.validation is not None:
        return "given"
    return "holdout" if modality_kinds.media(dataset.kinds.values()) else "kfold"


def pool(dataset: Dataset, kind: str) -> Split:
    """The development pool, whose samples folds refer to: the training split, followed for `given` by the validation
    split."""
    if kind == "given" and dataset.validation is not None:
        return concat(dataset.train, dataset.validation)
    return dataset.train


def faults(
    dataset: Dataset, *, kind: str, folds: int = 5, fraction: float = 0.2, task: Task | None = None
) -> list[str]:
    """What forbids this partition of this data set, a line each.

    Args:
        dataset: what would be divided.
        kind: one of `KINDS`.
        folds: number of folds of kfold.
        fraction: share of the samples that holdout validates on.
        task: has the strata within which is drawn; default: one label per sample.

    Returns:
        The faults, none where `draw` can draw.
    """
    if kind not in KINDS:
        return [f"validation.kind: {kind!r} is unknown{nearest(kind, KINDS)}"]
    if kind == "given" and dataset.validation is None:
        return [f"validation.kind: 'given' needs a validation split, but {dataset.name} has none; use 'kfold'"]
    if kind == "kfold":
        return _kfold_faults(dataset, folds, task or tasks.build(classes=dataset.classes))
    if kind == "holdout":
        return _holdout_faults(dataset, fraction, task or tasks.build(classes=dataset.classes))
    return []


def _kfold_faults(dataset: Dataset, folds: int, task: Task) -> list[str]:
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        return [f"validation.folds: must be a whole number >= 2, but got {folds!r}; nearest 2"]
    strata, groups = task.strata(_labels(dataset.train)), dataset.train.groups
    unit = "samples" if groups is None else "groups"
    members = [strata == k for k in range(task.num_strata)]
    counts = [int(m.sum()) if groups is None else len(np.unique(groups[m])) for m in members]
    smallest = int(np.argmin(counts))
    if folds <= counts[smallest]:
        return []
    most = f"at most {counts[smallest]} folds are possible" if counts[smallest] >= 2 else "no k is possible"
    return [
        f"validation.folds: {folds} folds, but {task.stratum(smallest)} has only "
        f"{counts[smallest]} training {unit}; {most}"
    ]


def _holdout_faults(dataset: Dataset, fraction: float, task: Task) -> list[str]:
    where = "validation.fraction"
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        return [f"{where}: must be a number between 0 and 1, but got {fraction!r}; nearest 0.2"]
    if dataset.train.groups is not None:
        return ["validation.kind: 'holdout' does not keep groups together; use 'kfold'"]
    counts = np.bincount(task.strata(_labels(dataset.train)), minlength=task.num_strata)
    smallest = int(np.argmin(counts))
    if counts[smallest] < 2:
        return [f"validation.kind: 'holdout' needs 2 samples of each class, but {task.stratum(smallest)} has one"]
    total, classes = int(counts.sum()), task.num_strata
    held = int(np.ceil(fraction * total))
    if held < classes or total - held < classes:
        near = classes / total if held < classes else 1 - classes / total
        return [
            f"{where}: {fraction:g} of {total} samples leaves {held} for validation and {total - held} for "
            f"training, but each needs one per class ({classes}); nearest {near:.3g}"
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
    """The folds of one partition of `pool(dataset, kind)`, a function of the arguments alone.

    Args:
        dataset: what is divided.
        kind: `kfold`: stratified folds, groups kept together where there are groups; `holdout`: one fold that
            validates on a share of the samples; `given`: one fold that validates on the data set's validation split;
            `none`: one fold that trains on everything.
        folds: number of folds of kfold.
        fraction: share of the samples that holdout validates on.
        seed: of the draw.
        task: has the strata within which is drawn; default: one label per sample.

    Returns:
        The folds, as positions in `pool(dataset, kind)`.

    Raises:
        InputError: with the lines of `faults`.
    """
    task = task or tasks.build(classes=dataset.classes)
    wrong = faults(dataset, kind=kind, folds=folds, fraction=fraction, task=task)
    if wrong:
        raise InputError(wrong)
    count = len(pool(dataset, kind))
    if kind == "none":
        return [_complement(np.empty(0, dtype=np.int64), count)]
    if kind == "given":
        return [_complement(np.arange(len(dataset.train), count), count)]
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit  # slow to import

    strata, blank = task.strata(_labels(dataset.train)), np.zeros((count, 1))
    if kind == "holdout":
        pairs = StratifiedShuffleSplit(1, test_size=float(fraction), random_state=seed).split(blank, strata)
    elif dataset.train.groups is None:
        pairs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(blank, strata)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        pairs = splitter.split(blank, strata, dataset.train.groups)
    return [_complement(held, count) for _, held in pairs]


def _complement(held: NDArray[np.integer], count: int) -> Fold:
    validation = np.sort(held).astype(np.int64)
    return Fold(train=np.setdiff1d(np.arange(count, dtype=np.int64), validation), validation=validation)


def _labels(split: Split) -> NDArray[Any]:
    if split.labels is None:
        raise ValueError("the training split has no labels")
    return split.labels


def write_csv(path: Path, ids: Sequence[str] | NDArray[np.str_], partitions: dict[str, list[Fold]]) -> None:
    """Writes partitions as a CSV in one step.

    Args:
        path: the file. It has one row per sample of the pool and one column per partition, with the number of the fold
            that validates on the sample, or -1 where none does.
        ids: of the samples of the pool.
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
        ids: of the samples of the pool; the rows must be those samples. None: not checked.

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
    wrong = _id_faults(path, [row[0] for row in rows], ids)
    partitions: dict[str, list[Fold]] = {}
    for at, name in enumerate(header[1:], start=1):
        try:
            column = np.array([int(row[at]) for row in rows], dtype=np.int64)
        except ValueError as error:
            wrong.append(f"{path}: column {name!r}: a fold is a whole number >= -1 ({error})")
            continue
        last = max(column.max(initial=0), 0)
        if column.min(initial=-1) < -1 or (last and set(range(last + 1)) - set(column.tolist())):
            wrong.append(f"{path}: column {name!r}: folds must be numbered 0..k-1 without a gap, or -1")
            continue
        partitions[name] = [_complement(np.flatnonzero(column == k), len(rows)) for k in range(last + 1)]
    if wrong:
        raise InputError(wrong)
    return partitions


def _id_faults(path: Path, stored: list[str], ids: Sequence[str] | NDArray[np.str_] | None) -> list[str]:
    wanted = stored if ids is None else [str(i) for i in ids]
    if len(stored) != len(wanted):
        return [f"{path}: has {len(stored)} samples, but the data set has {len(wanted)}"]
    for row, (a, b) in enumerate(zip(stored, wanted, strict=True), start=2):
        if a != b:
            return [f"{path}: row {row}: sample {a!r}, but the data set has {b!r} there"]
    return []
