"""Checks the folder of a data set and reports its content, faults and warnings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3col.data import label_tables
from m3col.data.catalog import TABLE
from m3col.data.checks import data_warnings, dataset_values, naming
from m3col.data.checks.check_packed import check_packed
from m3col.data.checks.check_sequences import check_sequences
from m3col.data.checks.folder_report import Report, Row
from m3col.data.checks.image_text import check_pairs, layout_of
from m3col.data.dataset import SPLITS
from m3col.data.formats import conversion, mmimdb_packed, numbered_csv, sequence_folder
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry

if TYPE_CHECKING:
    from tokenizers import Tokenizer


__all__ = ["Report", "check"]


def check(
    folder: Path, *, layout: Layout | None = None, tokenizer: "Tokenizer | None" = None, max_length: int = 512
) -> Report:
    """Reports shapes, classes per split, constant and missing values, missing modalities and duplicate rows.

    Nothing is raised for faults of the folder: they are in the report. For images and texts see `check_pairs`.

    Args:
        folder: the folder, which may be that of a named data set.
        layout: columns of images, texts and labels, and what the labels are; default: those of the named data set,
            and one class per sample.
        tokenizer: see `check_pairs`.
        max_length: see `check_pairs`.
    """
    named = TABLE.get(folder.resolve().name)
    if named is not None and named.embedded and not folder.exists():
        fault = f"{folder}: this data set is bundled or drawn; it has no folder, and nothing to check"
        return Report(folder=folder, columns=(), rows=(), class_columns=(), class_rows=(), faults=(fault,), warnings=())
    if sequence_folder.looks_like(folder):
        return check_sequences(folder, layout=layout or Layout(label=conversion.label_of(folder)))
    if mmimdb_packed.looks_like(folder):
        return check_packed(folder, TABLE["mmimdb_packed"])
    pairs = layout_of(folder)
    if pairs is not None:
        layout = layout or Layout()
        if layout.text is None and named is not None:
            layout = replace(layout, text=named.text)
        return check_pairs(folder, name=pairs, layout=layout, tokenizer=tokenizer, max_length=max_length)
    entry = TABLE["omics"] if named is None or named.embedded else named
    modalities = list(entry.modalities) if entry.modalities else None
    form = label_tables.CLASS if layout is None else layout.form
    parts = numbered_csv.scan(folder, entry, modalities, SPLITS, form=form)
    warnings = [f"{parts.file(split, name)}: modality {name!r} is missing from {split}" for split, name in parts.absent]
    rows = []
    for split in SPLITS:
        for name in parts.features:
            if (split, name) in parts.matrices:
                row, column_warnings = _describe(parts, split, name)
                rows.append(row)
                warnings += column_warnings
    faults, content_warnings = _content(parts, entry)
    warnings += [*parts.warnings, *content_warnings]
    splits = [split for split in SPLITS if split in parts.labels]
    if form == label_tables.CLASS:
        class_columns, class_rows = ("class", *splits), _class_rows(parts, splits)
    else:
        tables = {split: parts.labels[split] for split in splits}
        class_columns, class_rows = label_tables.describe(tables, parts.classes or (), form)
    return Report(
        folder=folder,
        columns=("file", "modality", "split", "samples", "features", "constant", "with missing"),
        rows=tuple(rows),
        class_columns=class_columns,
        class_rows=class_rows,
        faults=(*parts.faults, *faults),
        warnings=tuple(warnings),
    )


def _content(parts: numbered_csv.Parts, entry: Entry) -> tuple[list[str], list[str]]:
    """Faults and warnings about the content of the files: names, values, equal samples."""
    features = {name: names for name, names in parts.features.items() if names}
    faults = naming.faults(features, features, parts.classes or (), dict.fromkeys(features, "numeric"))
    if parts.faults or "train" not in parts.labels:
        return faults, []
    dataset = numbered_csv.dataset_of(parts, entry)
    faults += dataset_values.value_faults(dataset)
    return faults, [*data_warnings.of_training(dataset), *data_warnings.across_splits(dataset, within=True)]


def _describe(parts: numbered_csv.Parts, split: str, name: str) -> tuple[Row, list[str]]:
    """One row of the table, and warnings about constant columns and missing values."""
    x = parts.matrices[split, name]
    path = parts.file(split, name)
    finite = np.isfinite(x)
    with_missing = np.flatnonzero(np.isnan(x).any(axis=0))
    # a column without finite values counts as constant: nothing can be learned from it
    low = np.where(finite, x, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, x, -np.inf).max(axis=0, initial=-np.inf)
    constant = np.flatnonzero(low >= high)
    warnings = []
    if len(constant) and split == "train":
        warnings.append(f"{path}: {_columns(constant)} constant; minmax and standard turn them into 0")
    if len(with_missing):
        warnings.append(f"{path}: {_columns(with_missing)} missing in some rows; data.preprocess needs `impute` first")
    sizes = (len(x), x.shape[1], len(constant), len(with_missing))
    return (path.name, name, split, *map(str, sizes)), warnings


def _columns(at: np.ndarray) -> str:
    listed = ", ".join(str(column + 1) for column in at[:5]) + (", ..." if len(at) > 5 else "")
    return f"column {listed} is" if len(at) == 1 else f"{len(at)} columns ({listed}) are"


def _class_rows(parts: numbered_csv.Parts, splits: list[str]) -> tuple[Row, ...]:
    values = sorted({int(label) for labels in parts.labels.values() for label in np.unique(labels)})
    class_names = parts.classes or ()
    names = {
        k: f"{k} ({class_names[k]})" if k < len(class_names) and class_names[k] != str(k) else str(k) for k in values
    }
    return tuple((names[k], *(str(int((parts.labels[split] == k).sum())) for split in splits)) for k in values)
