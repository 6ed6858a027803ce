"""Reads pairs of an image and a text from plain CSV files, and the CSV functions that other layouts use as well.

The files are `train.csv` and, optionally, `val.csv` and `test.csv`. Each has a header, then one pair per row: the path
of the image relative to the folder, one or more columns of text, and a label. Faults name the file and the row, counted
from 1 below the header.
"""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from m3col.data import label_tables, labels
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats import text_files
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.pair_dataset import build, joined, read_pair, validate_labels
from m3col.data.formats.pairs import FaultCollector, Pairs
from m3col.errors import nearest

FILES = {"train": "train", "validation": "val", "test": "test"}  # names without suffix, see text_files.SUFFIXES

_LONGEST = 2**31 - 1  # characters of one field; the default limit of the csv module is 131,072


@dataclass(frozen=True)
class Table:
    """A CSV file. `rows`: number and fields (by column) of each row that has as many fields as the header."""

    path: Path
    header: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]


def looks_like(folder: Path) -> bool:
    """Whether `folder` has the layout. (Food-101 has such files as well, but also a folder of texts.)"""
    has_file = any(text_files.find(folder, name).is_file() for name in FILES.values())
    return has_file and not (folder / "texts_txt").is_dir()


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Files of splits that are not requested are not opened.

    `images`: whether to decode all images to validate them; otherwise the files must only exist.

    Raises:
        InputError: with all faults.
    """
    return build(scan(folder, splits, layout), entry, select, layout, decode_images=images)


def scan(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Reads `folder` and collects the faults."""
    pairs = Pairs(folder)
    if not os.path.isdir(folder):
        pairs.faults.add(folder, "folder", "is not a folder")
        return pairs
    tables = {}
    for split in (s for s in SPLITS if s in splits):
        duplicates: list[str] = []
        path = text_files.find(folder, FILES[split], duplicates)
        for line in duplicates:
            pairs.faults.add(folder, "two files", line.removeprefix(f"{folder}: "))
        if split == "train" or path.exists():
            table = read_table(path, pairs.faults)
            if table is not None:
                tables[split] = table
    if "train" in tables:
        pairs.columns = _text_columns(tables["train"], layout, pairs.faults)
    for split, table in tables.items():
        texts = [column for column in pairs.columns if require(table, column, "data.text.columns", pairs.faults)]
        has_image = require(table, layout.image, "data.image.column", pairs.faults)
        label = layout.label if layout.form == label_tables.CLASS and isinstance(layout.label, str) else None
        has_label = label is not None and require(table, label, "data.label_column", pairs.faults)
        if label is None:
            _read_label_table(pairs, split, table, layout)
        elif has_label:
            raw = [row[label] for _, row in table.rows]
            pairs.warnings += labels.blank_warnings(raw, str(table.path))
        pairs.splits[split] = [
            read_pair(
                pairs,
                table.path,
                number,
                image=row[layout.image] if has_image else None,
                text=joined(row[column] for column in texts) if texts else None,
                label=row[label] if label is not None and has_label else None,
            )
            for number, row in table.rows
        ]
    validate_labels(pairs)
    return pairs


def _read_label_table(pairs: Pairs, split: str, table: Table, layout: Layout) -> None:
    """Reads several labels per sample, or numbers, from columns of their own."""
    named, missing = layout.label_columns(table.header)
    for column in missing:
        require(table, column, "data.label_column", pairs.faults)
    if missing or not table.rows:
        return
    cells = pd.DataFrame({name: [row[column] for _, row in table.rows] for column, name in named.items()}, dtype=object)
    lines: list[str] = []
    parsed = label_tables.read(
        cells, str(table.path), lines, form=layout.form, training=pairs.tables.get("train"), text_numbers=True
    )
    if parsed is not None:
        pairs.tables[split] = parsed[0]
        if split == "train":
            names = parsed[0].classes or ()
            lines += label_tables.training_faults(parsed[0].values, names, layout.form, str(table.path))
    for line in lines:
        pairs.faults.add(table.path, line, line.removeprefix(f"{table.path}: "))


def _text_columns(table: Table, layout: Layout, faults: FaultCollector) -> tuple[str, ...]:
    """The columns whose texts are joined; empty, with a fault, if none are configured and there is no column `text`."""
    where = "data.text.columns"
    if layout.text is None:
        if "text" in table.header:
            return ("text",)
        used = {layout.image, *_label_columns(table, layout)}
        others = [name for name in table.header if name not in used and _wordy(table, name)]
        hint = f"say where the texts are: {where}: [{', '.join(others)}]" if others else "no column holds texts"
        faults.add(table.path, "text column", f"column 'text' is missing; {hint}")
        return ()
    if not layout.text:
        faults.add(table.path, "text column", f"{where} must name at least one column, but the list is empty")
    keys = {layout.image: "data.image.column"} | dict.fromkeys(_label_columns(table, layout), "data.label_column")
    for name in layout.text:
        if name in keys:
            faults.add(table.path, "text column", f"{where}: {name!r} cannot be a text, because it is {keys[name]}")
    return tuple(name for name in dict.fromkeys(layout.text) if name not in keys)


def _label_columns(table: Table, layout: Layout) -> tuple[str, ...]:
    if layout.form == label_tables.CLASS and isinstance(layout.label, str):
        return (layout.label,)
    return tuple(layout.label_columns(table.header)[0])


def _wordy(table: Table, column: str) -> bool:
    return any(character.isalpha() for _, row in table.rows[:100] for character in row[column])


# Functions that other layouts use as well


def read_lines(path: Path, faults: FaultCollector) -> list[str] | None:
    """The lines of a UTF-8 file, with or without byte order mark; None and a fault if it cannot be read."""
    messages: list[str] = []
    lines = text_files.read_lines(path, messages)
    for message in messages:
        # `text_files` counts lines. In a CSV file these are not rows: it has a header, and a record may span lines.
        text = re.sub(r"^row (\d+): ", r"line \1: ", message.removeprefix(f"{path}: "))
        faults.add(path, text, text)
    return lines


def read_table(path: Path, faults: FaultCollector) -> Table | None:
    """Reads a CSV file; None and a fault if it cannot be read. Rows of another length are faults and left out."""
    lines = read_lines(path, faults)
    if lines is None:
        return None
    named = text_files.separator_line(lines)
    lines = lines if named is None else lines[1:]
    mark = named or _separator(lines[0] if lines else "")
    # Strict mode: otherwise an unclosed quote would silently merge all rows below it into one field.
    reader = csv.reader([line + "\n" for line in lines], strict=True, delimiter=mark)
    rows: list[tuple[int, dict[str, str]]] = []
    number = 0
    limit = csv.field_size_limit(_LONGEST)
    try:
        header = tuple(name.strip() for name in next(reader, []))
        for number, cells in enumerate(reader, start=1):
            if not cells:
                faults.add(path, "blank", "is blank", number)
            elif len(cells) != len(header):
                fault = f"has {len(cells)} fields, but the header has {len(header)}{_ends(cells, header, mark)}"
                faults.add(path, "another number of fields than the header", fault, number)
            else:
                rows.append((number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        faults.add(path, "csv", f"is not CSV ({error}); look for a quote that is not closed", number + 1)
        return None
    finally:
        csv.field_size_limit(limit)
    for name in dict.fromkeys(header):
        if header.count(name) > 1 and name:  # columns without a name are ignored
            faults.add(path, f"header {name}", f"column {name!r} stands {header.count(name)} times in the header")
    if not number:
        faults.add(path, "rows", "has no rows below its header")
    return Table(path, header, rows)


def _separator(header: str) -> str:
    """The separator of a header: a comma if it contains one, else a semicolon or a tab."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _ends(cells: Sequence[str], header: Sequence[str], mark: str) -> str:
    """The end of a message about a row with one field too many: it may end with a separator. "" if it does not."""
    ends = len(cells) == len(header) + 1 and not cells[-1].strip()
    return f"; it ends with {mark!r}: delete that last separator" if ends else ""


def require(table: Table, column: str, key: str, faults: FaultCollector) -> bool:
    """Whether the table has the column; adds a fault if not. `key`: the config key that names it, "" for none."""
    if column in table.header:
        return True
    setting = f" ({key})" if key else ""
    fault = f"column {column!r}{setting} is missing{nearest(column, table.header)}"
    faults.add(table.path, f"column {column}", fault)
    return False
