"""Reads a CSV file of unlabelled samples for prediction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m3col.data.columns import Kind
from m3col.data.formats import image_text_csv, pair_dataset
from m3col.data.formats.image_text_csv import Table
from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.pairs import FaultCollector
from m3col.data.images import decoding, index


def read(
    path: Path, columns: Mapping[str, Sequence[str]], kinds: Mapping[str, Kind], faults: FaultCollector
) -> dict[str, Any]:
    """Reads the input of a predictor for each modality.

    Args:
        path: the CSV file. Relative paths of images start at its folder.
        columns: columns of each modality.
        kinds: kind of each modality.
        faults: gets the faults of the file, and of its images and texts. Numeric cells are not checked.

    Returns:
        By modality: paths of images, texts, or a DataFrame of cells. Modalities with missing columns are absent.
    """
    table = image_text_csv.read_table(path, faults)
    inputs: dict[str, Any] = {}
    for name, names in columns.items():
        if table is None or not all([image_text_csv.require(table, column, "", faults) for column in names]):
            continue
        if kinds[name] == "image":
            inputs[name] = _images(table, names[0], faults)
        elif kinds[name] == "text":
            inputs[name] = _texts(table, names, faults)
        else:
            cells = [[row[column].strip() for column in names] for _, row in table.rows]
            inputs[name] = pd.DataFrame(cells, columns=list(names), dtype=object)
    return inputs


def _images(table: Table, column: str, faults: FaultCollector) -> list[str]:
    folder = table.path.absolute().parent
    cells = [(number, row[column].strip()) for number, row in table.rows]
    paths = [str(folder / decoding.with_slashes(cell, str(folder))) for _, cell in cells]
    for (number, cell), info in zip(cells, index.inspect(paths), strict=True):
        if cell in MARKS:
            faults.add(table.path, "no path of an image", pair_dataset.missing("the path of the image", cell), number)
        elif info.fault:
            colon = ":" if info.fault.startswith("the ") else ""
            faults.add(table.path, "the image cannot be read", f"image {cell!r}{colon} {info.fault}", number)
    return paths


def _texts(table: Table, columns: Sequence[str], faults: FaultCollector) -> list[str]:
    texts = [pair_dataset.joined(row[column] for column in columns) for _, row in table.rows]
    for (number, _), text in zip(table.rows, texts, strict=True):
        if text in MARKS:
            faults.add(table.path, "the text is empty", pair_dataset.missing("the text", text), number)
    return texts
