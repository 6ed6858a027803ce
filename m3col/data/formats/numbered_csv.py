"""Reads a folder in the MOGONET layout, or refuses it with all faults.

`<k>_tr.csv`, `<k>_te.csv`: numbers of modality k = 1..M without a header, one sample per row, in the same order in all
modalities. `labels_tr.csv`, `labels_te.csv`: one label per line, an integer 0..C-1 or the name of a class; for several
labels per sample and for numbers a table with one column for each, whose first line may name them. Optional:
`<k>_featname.csv` (one name per line), `classes.csv` (header `index,name`), and a validation split (`<k>_va.csv`,
`labels_va.csv`). Every file may also end with .tsv, .csv.gz or .tsv.gz.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from m3col.data import label_tables, labels
from m3col.data.columns import FloatArray
from m3col.data.dataset import SPLITS, Dataset, Split, build_split, choose, generated_features
from m3col.data.formats import table_csv, text_files
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.labels import Labels, training_label_faults, unseen_label_faults
from m3col.errors import InputError

SUFFIX = {"train": "tr", "validation": "va", "test": "te"}

_MODALITY_FILE = re.compile(r"([1-9]\d{0,3})_(?:tr|va|te)\.[ct]sv(?:\.gz)?")


@dataclass
class Parts:
    """The content of a folder as far as it could be read.

    Attributes:
        folder: the folder.
        modalities: names of all modalities, in the order of their files.
        matrices: by (split, modality), the table [N, D_m].
        form: what the labels are, see m3col.data.label_tables.
        labels: by split, the labels [N], or a table [N, C].
        features: by modality, names of its columns.
        classes: class names; None if they are not known.
        absent: pairs (split, modality) without a file in a split that exists.
        faults: one line each.
        training_labels: labels of the training split with their class names.
        warnings: changes made while reading, one line each.
    """

    folder: Path
    form: str = label_tables.CLASS
    modalities: tuple[str, ...] = ()
    matrices: dict[tuple[str, str], FloatArray] = field(default_factory=dict)
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    features: dict[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    absent: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    training_labels: Labels | None = None
    warnings: list[str] = field(default_factory=list)

    def file(self, split: str, modality: str, faults: list[str] | None = None) -> Path:
        return text_files.find(self.folder, f"{self.modalities.index(modality) + 1}_{SUFFIX[split]}", faults)

    def labels_file(self, split: str, faults: list[str] | None = None) -> Path:
        return text_files.find(self.folder, f"labels_{SUFFIX[split]}", faults)


def looks_like(folder: Path) -> bool:
    """Whether `folder` has a file of the layout."""
    return os.path.isdir(folder) and any(
        _MODALITY_FILE.fullmatch(p.name) or p == text_files.find(folder, "labels_tr") for p in folder.iterdir()
    )


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Files of splits and modalities that are not requested are not opened.

    Raises:
        InputError: with all faults.
    """
    parts = scan(folder, entry, select, splits, form=layout.form)
    for split, name in parts.absent:
        others = ", ".join(m for m in parts.features if (split, m) not in parts.absent)
        parts.faults.append(
            f"{parts.file(split, name)}: modality {name!r} has no {split} file; leave it out with "
            f"data.modalities: [{others}]"
        )
    if parts.faults:
        raise InputError(parts.faults)
    return dataset_of(parts, entry)


def dataset_of(parts: Parts, entry: Entry) -> Dataset:
    """Builds the data set from parts without faults. A split has only the modalities that it has files of."""
    built: dict[str, Split] = {
        split: build_split(
            {name: parts.matrices[split, name] for name in parts.features if (split, name) in parts.matrices},
            values,
            split,
        )
        for split, values in parts.labels.items()
    }
    training = parts.labels["train"]
    return Dataset(
        name=entry.name,
        classes=parts.classes or tuple(map(str, range(int(training.max()) + 1))),
        features=parts.features,
        train=built["train"],
        validation=built.get("validation"),
        test=built.get("test"),
        known_issues=entry.known_issues,
        warnings=tuple(parts.warnings),
    )


def scan(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    form: str = label_tables.CLASS,
) -> Parts:
    """Reads `folder` and collects the faults. `form`: what the labels are, see m3col.data.label_tables.

    A modality without a file in a split that has other files is not a fault but listed in `absent`.
    """
    parts = Parts(folder, form)
    if not os.path.isdir(folder):
        parts.faults.append(f"{folder}: is not a folder")
        return parts
    parts.modalities = entry.modalities or _numbered(parts)
    if not parts.modalities:
        return parts
    chosen = entry.default or parts.modalities
    if select is not None:
        names, selection_faults = choose(select, parts.modalities)
        parts.faults += selection_faults
        chosen = names or chosen
    parts.classes = entry.classes
    class_file = text_files.find(folder, "classes", parts.faults)
    if class_file.exists():
        parts.classes = text_files.read_classes(class_file, parts.faults) or entry.classes
    for split in (s for s in SPLITS if s in splits):
        if split == "train" or _has(parts, split) or (split == "test" and entry.modalities is not None):
            _read_split(parts, split, chosen)
    _validate_features(parts, chosen)
    _validate_labels(parts)
    return parts


def _numbered(parts: Parts) -> tuple[str, ...]:
    """Generated names of the modalities that have files in the folder; empty, with a fault, if they are not usable."""
    matches = [_MODALITY_FILE.fullmatch(p.name) for p in parts.folder.iterdir()]
    numbers = sorted({int(matched.group(1)) for matched in matches if matched})
    if not numbers:
        parts.faults.append(f"{parts.folder}: holds no 1_tr.csv, 2_tr.csv, ...: modality k must be in <k>_tr.csv")
    elif numbers != list(range(1, len(numbers) + 1)):
        missing = next(k for k in range(1, len(numbers) + 1) if k not in numbers)
        parts.faults.append(
            f"{parts.folder}: modalities must be numbered 1..M without a gap, but there are "
            f"{', '.join(map(str, numbers))}; {missing}_tr.csv is missing"
        )
    elif len(numbers) < 2:
        parts.faults.append(f"{parts.folder}: at least two modalities are needed, but 2_tr.csv is missing")
    else:
        return tuple(f"modality_{k}" for k in numbers)
    return ()


def _has(parts: Parts, split: str) -> bool:
    files = [parts.labels_file(split), *(parts.file(split, name) for name in parts.modalities)]
    return any(path.exists() for path in files)


def _read_split(parts: Parts, split: str, chosen: Sequence[str]) -> None:
    """Reads the chosen modalities and the labels of one split, and compares their numbers of rows."""
    rows: dict[str, int] = {}
    has_tables = any(parts.file(split, name).exists() for name in parts.modalities)
    for name in chosen:
        path = parts.file(split, name, parts.faults)
        if split != "train" and has_tables and not path.exists():
            parts.absent.append((split, name))
            continue
        matrix = table_csv.read_matrix(path, parts.faults)
        if matrix is not None:
            parts.matrices[split, name] = matrix
            rows[path.name] = len(matrix)
    path = parts.labels_file(split, parts.faults)
    cells = table_csv.read_labels(path, parts.faults) if parts.form == label_tables.CLASS else None
    if cells is not None:
        rows[path.name] = len(cells)
        _read_labels(parts, split, path, cells)
    elif parts.form != label_tables.CLASS:
        rows |= _read_label_table(parts, split, path)
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in rows.items())
        hint = _header_hint(rows, path.name, cells)
        parts.faults.append(
            f"{parts.folder}: the {split} files must have the same number of rows, but have {listed}{hint}"
        )


def _read_labels(parts: Parts, split: str, path: Path, cells: Sequence[str]) -> None:
    parsed = labels.parse(cells, str(path), parts.faults, classes=parts.classes, training=parts.training_labels)
    if parsed is None:
        return
    parts.labels[split] = parsed.values
    parts.warnings += parsed.warnings
    if split == "train":
        parts.training_labels, parts.classes = parsed, parsed.classes or parts.classes


def _read_label_table(parts: Parts, split: str, path: Path) -> dict[str, int]:
    """Reads several labels per sample, or numbers. Returns the number of rows by name of the file; {} with faults."""
    table = table_csv.read_label_table(path, parts.faults)
    if table is None:
        return {}
    header, rows = table
    parsed = label_tables.read(
        rows if header is None else pd.DataFrame(rows, columns=list(header)),
        str(path),
        parts.faults,
        form=parts.form,
        names=parts.classes,
        training=parts.training_labels,
        text_numbers=True,
    )
    if parsed is not None:
        parts.labels[split] = parsed[0].values
        if split == "train":
            parts.training_labels, parts.classes = parsed[0], parsed[0].classes
    return {path.name: len(rows)}


def _header_hint(rows: Mapping[str, int], labels_file: str, cells: Sequence[str] | None) -> str:
    """A hint for labels with exactly one row more than all tables: their first line may be a header. Else ""."""
    others = {count for name, count in rows.items() if name != labels_file}
    if cells and len(others) == 1 and rows.get(labels_file) == others.pop() + 1:
        return f"; is the first line of {labels_file}, {text_files.short(cells[0])}, a header? then delete that line"
    return ""


def _validate_features(parts: Parts, chosen: Sequence[str]) -> None:
    """Checks that the splits have equal numbers of columns, and reads the feature names or generates them."""
    for name in chosen:
        reference = parts.matrices.get(("train", name))
        for split in ("validation", "test"):
            matrix = parts.matrices.get((split, name))
            if reference is not None and matrix is not None and matrix.shape[1] != reference.shape[1]:
                parts.faults.append(
                    f"{parts.file(split, name)}: has {matrix.shape[1]} columns, but "
                    f"{parts.file('train', name).name} has {reference.shape[1]}"
                )
        width = 0 if reference is None else reference.shape[1]
        parts.features[name] = generated_features(name, width)
        path = text_files.find(parts.folder, f"{parts.modalities.index(name) + 1}_featname", parts.faults)
        names = text_files.read_names(path, parts.faults) if path.exists() else None
        if names is not None and reference is not None and len(names) != width:
            parts.faults.append(
                f"{path}: has {len(names)} names, but {parts.file('train', name).name} has {width} columns"
            )
        elif names is not None:
            parts.features[name] = names


def _validate_labels(parts: Parts) -> None:
    training = parts.labels.get("train")
    if training is None:
        return
    if parts.form != label_tables.CLASS:
        where = str(parts.labels_file("train"))
        parts.faults += label_tables.training_faults(training, parts.classes or (), parts.form, where)
        return
    parts.faults += training_label_faults(training, str(parts.labels_file("train")), parts.classes)
    for split in ("validation", "test"):
        if split in parts.labels:
            where = str(parts.labels_file(split))
            parts.faults += unseen_label_faults(parts.labels[split], training, where, parts.classes)
