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

MAX_LISTED = 5  # rows listed individually in a message; the others are only counted


@dataclass(frozen=True, eq=False)
class Split:
    """The N samples of one split (training, validation or test) of a data set.

    Attributes:
        ids: [N] sample ids.
        labels: [N] integers 0..C-1; or [N, C] integers 0 and 1, several labels per sample; or [N, K] floats, numbers to
            be predicted; None if unknown.
        inputs: by modality: a numeric table [N, D_m] (NaN means missing), or N images or texts.
        present: by modality, a mask [N]; False if the sample lacks the whole modality.
        groups: [N] group ids; samples of one group are kept in the same fold. None: samples are not grouped.
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
        """Returns the samples at positions `index`, in that order."""
        positions = np.asarray(index, dtype=np.int64)
        return Split(
            ids=self.ids[positions],
            labels=None if self.labels is None else self.labels[positions],
            inputs={name: x[positions] for name, x in self.inputs.items()},
            present={name: x[positions] for name, x in self.present.items()},
            groups=None if self.groups is None else self.groups[positions],
        )

    def without_labels(self) -> "Split":
        return replace(self, labels=None)

    def select(self, modalities: Iterable[str]) -> "Split":
        """Returns the same samples with only the named modalities."""
        names = list(modalities)
        return replace(
            self,
            inputs={name: self.inputs[name] for name in names},
            present={name: self.present[name] for name in names},
        )

    def digest(self) -> str:
        """SHA-256 of modality names, values, masks, labels, groups and ids. Does not depend on the machine."""
        sha = hashlib.sha256()
        for name, x in self.inputs.items():
            feed(sha, name, x)
            sha.update(np.ascontiguousarray(self.present[name], dtype=np.uint8).tobytes())
        labels = None if self.labels is None else self.labels.tolist()
        groups = None if self.groups is None else self.groups.tolist()
        sha.update(json.dumps({"labels": labels, "groups": groups, "ids": self.ids.tolist()}).encode())
        return sha.hexdigest()


def concat(a: Split, b: Split) -> Split:
    """Concatenates two splits. Labels or groups that only one of them has are dropped."""
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
    """The splits of one data set.

    Attributes:
        name: of the data set, for messages and reports.
        classes: the C class names, in the order of the labels; names of labels or targets, in the order of the columns.
        features: by modality, the names of its D_m columns; for images and texts, the columns they were read from.
        train: the training split.
        validation: the validation split, if the data set has one.
        test: the test split, if it was read.
        pretrain: samples without labels on which methods without labels are trained in place of `train`; None: they are
            trained on the training fold. Its modalities are put into the order of `features`.
        known_issues: one line for reports; "" if none is known.
        dropped: number of samples that were left out, by reason.
        unselected: names of the modalities that were left out.
        warnings: suspicious properties of the files, one line each.
    """

    name: str
    classes: tuple[str, ...]
    features: dict[str, tuple[str, ...]]
    train: Split
    validation: Split | None = None
    test: Split | None = None
    pretrain: Split | None = None
    known_issues: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    unselected: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pretrain = self.pretrain
        if pretrain is not None and {*pretrain.inputs} == {*self.features}:  # a missing modality is reported later
            object.__setattr__(self, "pretrain", pretrain.select(self.features))

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each modality: numeric, image or text."""
        return {name: kind_of(self.train.inputs[name]) for name in self.features}

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        by_name = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in by_name.items() if split is not None}

    def digests(self) -> dict[str, str]:
        """SHA-256 of the content of each split that exists."""
        pretrain = {} if self.pretrain is None else {"pretrain": self.pretrain.digest()}
        return {name: split.digest() for name, split in self.splits.items()} | pretrain

    def select(self, modalities: Sequence[str | int]) -> "Dataset":
        """Returns the data set with only the given modalities (names, or numbers from 1), in the data set's own order.

        Raises:
            InputError: a modality is unknown or repeated, or the list is empty.
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
            pretrain=None
            if self.pretrain is None
            else self.pretrain.select(n for n in names if n in self.pretrain.inputs),
            unselected=(*self.unselected, *(name for name in self.modalities if name not in names)),
        )

    def without_test(self) -> "Dataset":
        return replace(self, test=None)


def choose(requested: Sequence[str | int], available: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Resolves requested modalities (names, or numbers from 1) to names in the order of `available`.

    Returns:
        The names, and the faults of the request, one line each.
    """
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
    """Generated ids for samples without ids: `train-0`, `train-1`, ..."""
    return np.array([f"{split}-{row}" for row in range(count)], dtype=np.str_)


def own_ids(split: Split, name: str) -> list[str] | None:
    """The sample ids of a split; None if they are the generated ones."""
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
    """Builds a split in which every modality of every sample is present."""
    count = len(next(iter(inputs.values())))
    return Split(
        ids=generated_ids(count, split) if ids is None else ids,
        labels=labels,
        inputs=dict(inputs),
        present={name: np.ones(count, dtype=np.bool_) for name in inputs},
        groups=groups,
    )
