"""Checks a folder of sequences and tables and reports its content, faults and warnings."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from m3col.data import label_tables
from m3col.data.checks import data_warnings, dataset_values, naming
from m3col.data.checks.folder_report import Report, Row
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats import sequence_folder
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.sequence_folder import Content
from m3col.data.sequences.files import SequenceFile
from m3col.errors import InputError


def check_sequences(folder: Path, *, layout: Layout) -> Report:
    """Reports samples, features, lengths and missing values per modality and split, labels, faults and warnings.

    Nothing is raised for faults of the folder: they are in the report.

    Args:
        folder: the folder.
        layout: its column of labels.
    """
    content = sequence_folder.scan(folder, SPLITS, layout)
    faults, warnings = list(content.faults), list(content.warnings)
    rows = [
        _describe(content, name, split) for name in content.modalities for split in content.splits if not content.faults
    ]
    dataset = None
    if not faults:
        try:
            dataset = sequence_folder.dataset_of(content, "sequences")
        except InputError as error:
            faults += error.faults
        else:
            faults += naming.faults(dataset.modalities, dataset.features, dataset.classes, dataset.kinds)
            faults += dataset_values.value_faults(dataset)
            warnings = [
                *dataset.warnings,
                *data_warnings.of_training(dataset),
                *data_warnings.across_splits(dataset, within=True),
            ]
    class_columns, class_rows = _labels(content, dataset)
    return Report(
        folder=folder,
        columns=("file", "split", "samples", "features", "missing", "fewest steps", "median", "most"),
        rows=tuple(rows),
        class_columns=class_columns,
        class_rows=class_rows,
        faults=tuple(faults),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _labels(content: Content, dataset: Dataset | None) -> tuple[Row, tuple[Row, ...]]:
    """The header and the rows of the table of labels: samples of each class, or a description of each label."""
    labels = {split: own for split in content.splits if (own := content.labels(split)) is not None}
    if content.layout.form == label_tables.CLASS:
        counts = {split: Counter(map(str, own)) for split, own in labels.items()}
        names = sorted({name for counter in counts.values() for name in counter})
        return ("class", *labels), tuple((name, *(str(counts[s][name]) for s in labels)) for name in names)
    if dataset is None:
        return (), ()
    tables = {split: part.labels for split, part in dataset.splits.items() if part.labels is not None}
    return label_tables.describe(tables, dataset.classes, content.layout.form)


def _describe(content: Content, name: str, split: str) -> Row:
    """One row of the table: a modality in a split. "missing": the share of the values that are missing."""
    modality, ids = content.modalities[name], [*content.splits[split]]
    head = (content.sources[name].name, split, str(len(ids)))
    if isinstance(modality, pd.Series):
        return (*head, "-", "-", "-", "-", "-")
    if not isinstance(modality, SequenceFile):
        values = modality.loc[ids].to_numpy()
        return (*head, str(values.shape[1]), f"{np.isnan(values).mean():.1%}", "-", "-", "-")
    at = {own: row for row, own in enumerate(modality.ids)}
    column = modality.column[np.array([at[own] for own in ids], dtype=np.int64)]
    steps = (column.lengths.min(), np.median(column.lengths), column.lengths.max())
    return (*head, str(column.width), f"{np.isnan(column.steps).mean():.1%}", *(f"{value:g}" for value in steps))
