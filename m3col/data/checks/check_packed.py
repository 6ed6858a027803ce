"""Checks a packed file of numeric tables, which only its reader understands, and reports its content."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from m3col.data import label_tables
from m3col.data.checks import data_warnings, dataset_values
from m3col.data.checks.folder_report import Report, Row
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.errors import InputError


def check_packed(folder: Path, entry: Entry) -> Report:
    """Reports shapes, constant and missing values, labels, faults and warnings.

    Nothing is raised for faults of the file: they are in the report.

    Args:
        folder: the folder with the file.
        entry: the data set, with several labels per sample.
    """
    form = label_tables.BINARY
    try:
        dataset = entry.read(folder, entry, None, SPLITS, layout=Layout(form=form), images=False)
    except InputError as error:
        return Report(folder, (), (), (), (), faults=tuple(error.faults), warnings=())
    tables = {split: part.labels for split, part in dataset.splits.items() if part.labels is not None}
    class_columns, class_rows = label_tables.describe(tables, dataset.classes, form)
    rows = [_describe(dataset, name, split) for name in dataset.modalities for split in dataset.splits]
    missing = sorted({row[0] for row in rows if row[-1] != "0"})
    warnings = [f"{folder}: {name} has missing values; data.preprocess needs `impute` first" for name in missing]
    report = Report(
        folder=folder,
        columns=("modality", "split", "samples", "features", "constant", "samples with missing"),
        rows=tuple(rows),
        class_columns=class_columns,
        class_rows=class_rows,
        faults=tuple(dataset_values.value_faults(dataset)),
        warnings=(*dataset.warnings, *warnings),
    )
    if report.faults:
        return report
    others = [*data_warnings.of_training(dataset), *data_warnings.across_splits(dataset, within=True)]
    return replace(report, warnings=tuple(dict.fromkeys([*report.warnings, *others])))


def _describe(dataset: Dataset, name: str, split: str) -> Row:
    """One row of the table: a modality in a split."""
    x = np.asarray(dataset.splits[split].inputs[name])
    constant = int((np.nanmin(x, axis=0, initial=np.inf) >= np.nanmax(x, axis=0, initial=-np.inf)).sum())
    with_missing = int(np.isnan(x).any(axis=1).sum())
    return (name, split, *map(str, (len(x), x.shape[1], constant, with_missing)))
