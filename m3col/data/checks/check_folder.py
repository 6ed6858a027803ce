"""What the folder of a data set holds and what is wrong or suspicious about it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3col.data.catalog import TABLE
from m3col.data.checks import data_warnings, dataset_values, naming
from m3col.data.checks.folder_report import Report, Row
from m3col.data.checks.image_text import check_pairs, layout_of
from m3col.data.dataset import SPLITS
from m3col.data.formats import numbered_csv
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry

if TYPE_CHECKING:
    from tokenizers import Tokenizer


__all__ = ["Report", "check"]


def check(
    folder: Path, *, layout: Layout | None = None, tokenizer: "Tokenizer | None" = None, max_length: int = 512
) -> Report:
    """Shapes, classes per split, constant and non-finite columns, missing modalities and duplicate rows of
    `folder`, which may be the folder of a named data set; of images and texts see `check_pairs`. `layout`: which
    columns hold them, default: those of the named data set. `tokenizer`, `max_length`: see there. Raises nothing: what
    is wrong is in the report.
    """
    named = TABLE.get(folder.resolve().name)
    pairs = layout_of(folder)
    if pairs is not None:
        layout = layout or Layout()
        if layout.text is None and named is not None:
            layout = replace(layout, text=named.text)
        return check_pairs(folder, name=pairs, layout=layout, tokenizer=tokenizer, max_length=max_length)
    entry = TABLE["omics"] if named is None or named.embedded else named
    every = list(entry.modalities) if entry.modalities else None
    parts = numbered_csv.scan(folder, entry, every, SPLITS)
    warnings = [f"{parts.file(split, name)}: modality {name!r} is missing from {split}" for split, name in parts.absent]
    rows = []
    for split in SPLITS:
        for name in parts.features:
            if (split, name) in parts.matrices:
                row, found = _describe(parts, split, name)
                rows.append(row)
                warnings += found
    faults, more = _content(parts, entry)
    warnings += [*parts.warnings, *more]
    splits = [split for split in SPLITS if split in parts.labels]
    return Report(
        folder=folder,
        columns=("file", "modality", "split", "samples", "features", "constant", "with missing"),
        rows=tuple(rows),
        class_columns=("class", *splits),
        class_rows=_class_rows(parts, splits),
        faults=(*parts.faults, *faults),
        warnings=tuple(warnings),
    )


def _content(parts: numbered_csv.Parts, entry: Entry) -> tuple[list[str], list[str]]:
    """Faults and warnings about what the files say: names, values, and what they have in common."""
    features = {name: names for name, names in parts.features.items() if names}
    faults = naming.faults(features, features, parts.classes or (), dict.fromkeys(features, "numeric"))
    if parts.faults or "train" not in parts.labels:
        return faults, []
    dataset = numbered_csv.dataset_of(parts, entry)
    faults += dataset_values.value_faults(dataset)
    return faults, [*data_warnings.of_training(dataset), *data_warnings.across_splits(dataset, within=True)]


def _describe(parts: numbered_csv.Parts, split: str, name: str) -> tuple[Row, list[str]]:
    """One row of the table, and warnings for constant and non-finite columns."""
    x = parts.matrices[split, name]
    path = parts.file(split, name)
    finite = np.isfinite(x)
    holes = np.flatnonzero(np.isnan(x).any(axis=0))
    # a column without any finite value counts as constant: nothing can be learned from it
    low = np.where(finite, x, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, x, -np.inf).max(axis=0, initial=-np.inf)
    constant = np.flatnonzero(low >= high)
    warnings = []
    if len(constant) and split == "train":
        warnings.append(f"{path}: {_columns(constant)} constant; minmax and standard turn them into 0")
    if len(holes):
        warnings.append(f"{path}: {_columns(holes)} missing in some rows; data.preprocess needs `impute` first")
    sizes = (len(x), x.shape[1], len(constant), len(holes))
    return (path.name, name, split, *map(str, sizes)), warnings


def _columns(at: np.ndarray) -> str:
    listed = ", ".join(str(column + 1) for column in at[:5]) + (", ..." if len(at) > 5 else "")
    return f"column {listed} is" if len(at) == 1 else f"{len(at)} columns ({listed}) are"


def _class_rows(parts: numbered_csv.Parts, splits: list[str]) -> tuple[Row, ...]:
    values = sorted({int(label) for labels in parts.labels.values() for label in np.unique(labels)})
    known = parts.classes or ()
    names = {k: f"{k} ({known[k]})" if k < len(known) and known[k] != str(k) else str(k) for k in values}
    return tuple((names[k], *(str(int((parts.labels[split] == k).sum())) for split in splits)) for k in values)
