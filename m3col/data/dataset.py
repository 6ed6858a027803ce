"""Samples in memory: a split, a data set of splits, and the rules that labels obey.

N samples, D_m features of modality m, C classes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.columns import Kind, ModalityData, join, kind_of
from m3col.data.digests import feed
from m3col.errors import InputError, nearest

BoolArray = NDArray[np.bool_]


SPLITS = ("train", "validation", "test")

MAX_LISTED = 5  # places named one by one in a message; the rest is counted


@dataclass(frozen=True, eq=False)
class Split:
    """N samples of a data set.

    Attributes:
        ids: [N] one text per sample.
        labels: [N] integers 0..C-1, or float targets [N, C] for a task that predicts numbers; None where withheld.
        inputs: by modality: a numeric table [N, D_m] (NaN is a missing value), or N images or texts.
        present: by modality [N]; False where the whole modality of a sample is missing.
        groups: [N] samples of one group stay in one fold; None: each sample on its own.
    """

    ids: NDArray[np.str_]
    labels: NDArray[Any] | None
    inputs: dict[str, ModalityData]
    present: dict[str, BoolArray]
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        counts = {"ids": len(self.ids)} | {name: len(x) for name, x in self.inputs.items()}
        counts |= {f"present[{name}]": len(x) for name, x in self.present.items()}
        counts |= {} if self.labels is None else {"labels": len(self.labels)}
        counts |= {} if self.groups is None else {"groups": len(self.groups)}
        if len(set(counts.values())) > 1:
            raise ValueError(f"all parts of a split must have the same number of samples, but got {counts}")
        if self.inputs.keys() != self.present.keys():
            raise ValueError(f"inputs and present must name the same modalities: {[*self.inputs]}, {[*self.present]}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[np.int64] | Sequence[int]) -> "Split":
        """The samples at positions `index`, in that order."""
        at = np.asarray(index, dtype=np.int64)
        return Split(
            ids=self.ids[at],
            labels=None if self.labels is None else self.labels[at],
            inputs={name: x[at] for name, x in self.inputs.items()},
            present={name: x[at] for name, x in self.present.items()},
            groups=None if self.groups is None else self.groups[at],
        )

    def without_labels(self) -> "Split":
        return replace(self, labels=None)

    def select(self, modalities: Iterable[str]) -> "Split":
        """The same samples with the named modalities only."""
        names = list(modalities)
        return replace(
            self,
            inputs={name: self.inputs[name] for name in names},
            present={name: self.present[name] for name in names},
        )

    def digest(self) -> str:
        """SHA-256 of modality names, values, masks, labels, groups and ids; the same on every machine."""
        sha = hashlib.sha256()
        for name, x in self.inputs.items():
            feed(sha, name, x)
            sha.update(np.ascontiguousarray(self.present[name], dtype=np.uint8).tobytes())
        labels = None if self.labels is None else self.labels.tolist()
        groups = None if self.groups is None else self.groups.tolist()
        sha.update(json.dumps({"labels": labels, "groups": groups, "ids": self.ids.tolist()}).encode())
        return sha.hexdigest()


def concat(a: Split, b: Split) -> Split:
    """The samples of `a`, then those of `b`. Labels or groups that only one of them has are dropped."""
    if a.inputs.keys() != b.inputs.keys():
        raise ValueError(f"splits must have the same modalities, but got {[*a.inputs]} and {[*b.inputs]}")
    both_labelled = a.labels is not None and b.labels is not None
    both_grouped = a.groups is not None and b.groups is not None
    return Split(
        ids=np.concatenate([a.ids, b.ids]),
        labels=np.concatenate([a.labels, b.labels]) if both_labelled else None,
        inputs={name: join(x, b.inputs[name]) for name, x in a.inputs.items()},
        present={name: np.concatenate([x, b.present[name]]) for name, x in a.present.items()},
        groups=np.concatenate([a.groups, b.groups]) if both_grouped else None,
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Splits of one data set. `features[m]` names the D_m columns of modality m (of an image or text: what it was
    read from); `classes` names the C labels; `known_issues` is one line for reports ("" where none is known);
    `dropped` counts samples that were left out, by reason; `unselected` names modalities that were left out;
    `warnings`: what is suspicious about its files, a line each.
    """

    name: str
    classes: tuple[str, ...]
    features: dict[str, tuple[str, ...]]
    train: Split
    validation: Split | None = None
    test: Split | None = None
    known_issues: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    unselected: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, Kind]:
        """Of each modality: numeric, image or text."""
        return {name: kind_of(self.train.inputs[name]) for name in self.features}

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are there, by name."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    def digests(self) -> dict[str, str]:
        """SHA-256 of the content of each split that is there."""
        return {name: split.digest() for name, split in self.splits.items()}

    def select(self, modalities: Sequence[str | int]) -> "Dataset":
        """The data set with the modalities named (or numbered from 1), in the data set's own order.

        Raises InputError for an unknown, repeated or missing choice.
        """
        names, faults = choose(modalities, self.modalities)
        if faults:
            raise InputError(faults)
        return replace(
            self,
            features={name: self.features[name] for name in names},
            train=self.train.select(names),
            validation=None if self.validation is None else self.validation.select(names),
            test=None if self.test is None else self.test.select(names),
            unselected=(*self.unselected, *(name for name in self.modalities if name not in names)),
        )

    def without_test(self) -> "Dataset":
        return replace(self, test=None)


def choose(requested: Sequence[str | int], available: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The requested modalities (names, or numbers from 1) in the order of `available`, and the faults."""
    where = "data.modalities"
    if isinstance(requested, str) or not isinstance(requested, Sequence):
        return (), [f"{where}: must be a list of names or numbers, but got {requested!r}"]
    if not requested:
        return (), [f"{where}: must name at least one modality, but the list is empty; choose from {list(available)}"]
    names: list[str] = []
    faults: list[str] = []
    for item in requested:
        if isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= len(available):
            name = available[item - 1]
        elif isinstance(item, str) and item in available:
            name = item
        elif isinstance(item, int) and not isinstance(item, bool):
            end = min(max(item, 1), len(available))
            faults.append(f"{where}: number {item} is not in 1..{len(available)}; nearest {end} ({available[end - 1]})")
            continue
        else:
            faults.append(f"{where}: modality {item!r} is unknown{nearest(item, available)}")
            continue
        if name in names:
            faults.append(f"{where}: modality {name!r} is named twice")
        names.append(name)
    return tuple(name for name in available if name in names), faults


def generated_ids(count: int, split: str) -> NDArray[np.str_]:
    """Ids for samples without any: `train-0`, `train-1`, ..."""
    return np.array([f"{split}-{row}" for row in range(count)], dtype=np.str_)


def own_ids(split: Split, name: str) -> list[str] | None:
    """The ids of the samples of a split where these are not the generated ones."""
    ids = [str(i) for i in split.ids]
    return None if ids == generated_ids(len(ids), name).tolist() else ids


def generated_features(modality: str, count: int) -> tuple[str, ...]:
    return tuple(f"{modality}_{column}" for column in range(count))


def build_split(
    inputs: Mapping[str, ModalityData],
    labels: NDArray[Any] | None,
    split: str,
    *,
    ids: NDArray[np.str_] | None = None,
    groups: NDArray[np.str_] | None = None,
) -> Split:
    """A split in which every modality of every sample is present."""
    count = len(next(iter(inputs.values())))
    return Split(
        ids=generated_ids(count, split) if ids is None else ids,
        labels=labels,
        inputs=dict(inputs),
        present={name: np.ones(count, dtype=np.bool_) for name in inputs},
        groups=groups,
    )
