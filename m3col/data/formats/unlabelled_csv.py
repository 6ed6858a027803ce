"""A CSV file of pairs that are to be labelled: the columns of a data set of plain CSV files, without the labels."""

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
    path: Path, columns: Mapping[str, Sequence[str]], kinds: Mapping[str, Kind], found: FaultCollector
) -> dict[str, Any]:
    """What a predictor takes of each modality, as far as its `columns` are there: paths of images (relative ones
    begin at the file's folder; others are taken as the user names them), texts, or a table of cells that should be
    numbers. Every fault of images and texts is put into `found`.
    """
    table = image_text_csv.read_table(path, found)
    inputs: dict[str, Any] = {}
    for name, wanted in columns.items():
        if table is None or not all([image_text_csv.require(table, column, "", found) for column in wanted]):
            continue
        if kinds[name] == "image":
            inputs[name] = _images(table, wanted[0], found)
        elif kinds[name] == "text":
            inputs[name] = _texts(table, wanted, found)
        else:
            cells = [[row[column].strip() for column in wanted] for _, row in table.rows]
            inputs[name] = pd.DataFrame(cells, columns=list(wanted), dtype=object)
    return inputs


def _images(table: Table, column: str, found: FaultCollector) -> list[str]:
    folder = table.path.absolute().parent
    cells = [(number, row[column].strip()) for number, row in table.rows]
    paths = [str(folder / decoding.with_slashes(cell, str(folder))) for _, cell in cells]
    for (number, cell), look in zip(cells, index.inspect(paths), strict=True):
        if cell in MARKS:
            found.add(table.path, "no path of an image", pair_dataset.missing("the path of the image", cell), number)
        elif look.fault:
            mark = ":" if look.fault.startswith("the ") else ""
            found.add(table.path, "the image cannot be read", f"image {cell!r}{mark} {look.fault}", number)
    return paths


def _texts(table: Table, columns: Sequence[str], found: FaultCollector) -> list[str]:
    texts = [pair_dataset.joined(row[column] for column in columns) for _, row in table.rows]
    for (number, _), text in zip(table.rows, texts, strict=True):
        if text in MARKS:
            found.add(table.path, "the text is empty", pair_dataset.missing("the text", text), number)
    return texts
