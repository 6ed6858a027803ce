"""Pairs of an image and a text in a folder: what every such layout shares, and the layout of plain CSV files.

`train.csv`, and where there are any `val.csv` and `test.csv`: a header, then one pair per row, with the image's path
relative to the folder, one or more columns of text, and a label. Faults name the file and the row, counted from 1 below
the header.
"""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3col.data import labels
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats import text_files
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.pair_dataset import build, joined, judge, judge_labels
from m3col.data.formats.pairs import FaultCollector, Pairs
from m3col.errors import nearest

FILES = {"train": "train", "validation": "val", "test": "test"}  # names without suffix, see textfile.SUFFIXES

_LONGEST = 2**31 - 1  # characters of one field; the csv module stops at 131,072 unless it is told otherwise


@dataclass(frozen=True)
class Table:
    """A CSV file: `rows` with their numbers, each as long as the header."""

    path: Path
    header: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]


def looks_like(folder: Path) -> bool:
    """Whether `folder` holds a file of the layout. (Food-101 has such files too, but its texts lie beside them.)"""
    found = any(text_files.find(folder, name).is_file() for name in FILES.values())
    return found and not (folder / "texts_txt").is_dir()


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """The data set of `folder`. Files of splits that are not asked for are not opened. `images`: decode them all to
    judge them; otherwise they must only be there.

    Raises InputError with every fault.
    """
    return build(scan(folder, splits, layout), entry, select, layout, judge_images=images)


def scan(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Read what can be read of `folder` and collect the faults."""
    pairs = Pairs(folder)
    if not os.path.isdir(folder):
        pairs.found.add(folder, "folder", "is not a folder")
        return pairs
    tables = {}
    for split in (s for s in SPLITS if s in splits):
        doubles: list[str] = []
        path = text_files.find(folder, FILES[split], doubles)
        for line in doubles:
            pairs.found.add(folder, "two files", line.removeprefix(f"{folder}: "))
        if split == "train" or path.exists():
            table = read_table(path, pairs.found)
            if table is not None:
                tables[split] = table
    if "train" in tables:
        pairs.columns = _text_columns(tables["train"], layout, pairs.found)
    for split, table in tables.items():
        texts = [column for column in pairs.columns if require(table, column, "data.text.columns", pairs.found)]
        has_image = require(table, layout.image, "data.image.column", pairs.found)
        has_label = require(table, layout.label, "data.label_column", pairs.found)
        if has_label:
            raw = [row[layout.label] for _, row in table.rows]
            pairs.warnings += labels.blank_warnings(raw, str(table.path))
        pairs.splits[split] = [
            judge(
                pairs,
                table.path,
                number,
                image=row[layout.image] if has_image else None,
                text=joined(row[column] for column in texts) if texts else None,
                label=row[layout.label] if has_label else None,
            )
            for number, row in table.rows
        ]
    judge_labels(pairs)
    return pairs


def _text_columns(table: Table, layout: Layout, found: FaultCollector) -> tuple[str, ...]:
    """The columns that are joined to a text; none, and a fault, where they are not said or cannot be used."""
    where = "data.text.columns"
    if layout.text is None:
        if "text" in table.header:
            return ("text",)
        others = [name for name in table.header if name not in (layout.image, layout.label) and _wordy(table, name)]
        hint = f"say where the texts are: {where}: [{', '.join(others)}]" if others else "no column holds texts"
        found.add(table.path, "text column", f"column 'text' is missing; {hint}")
        return ()
    if not layout.text:
        found.add(table.path, "text column", f"{where} must name at least one column, but the list is empty")
    used = {layout.image: "data.image.column", layout.label: "data.label_column"}
    for name in layout.text:
        if name in used:
            found.add(table.path, "text column", f"{where}: {name!r} cannot be a text, because it is {used[name]}")
    return tuple(name for name in dict.fromkeys(layout.text) if name not in used)


def _wordy(table: Table, column: str) -> bool:
    return any(character.isalpha() for _, row in table.rows[:100] for character in row[column])


# What every layout shares.


def read_lines(path: Path, found: FaultCollector) -> list[str] | None:
    """The lines of a UTF-8 file, with or without byte order mark; None and a fault where there are none."""
    faults: list[str] = []
    lines = text_files.read_lines(path, faults)
    for fault in faults:
        # A record may span lines, and a header is no row: a place of bytes is a line.
        text = re.sub(r"^row (\d+): ", r"line \1: ", fault.removeprefix(f"{path}: "))
        found.add(path, text, text)
    return lines


def read_table(path: Path, found: FaultCollector) -> Table | None:
    """The CSV file; None and a fault where it cannot be read. Rows of another length are faults and left out."""
    lines = read_lines(path, found)
    if lines is None:
        return None
    named = text_files.separator_line(lines)
    lines = lines if named is None else lines[1:]
    mark = named or _separator(lines[0] if lines else "")
    # Strict: else a quote that is never closed would make one text of all rows below it.
    reader = csv.reader([line + "\n" for line in lines], strict=True, delimiter=mark)
    rows: list[tuple[int, dict[str, str]]] = []
    number = 0
    limit = csv.field_size_limit(_LONGEST)
    try:
        header = tuple(name.strip() for name in next(reader, []))
        for number, cells in enumerate(reader, start=1):
            if not cells:
                found.add(path, "blank", "is blank", number)
            elif len(cells) != len(header):
                fault = f"has {len(cells)} fields, but the header has {len(header)}{_ends(cells, header, mark)}"
                found.add(path, "another number of fields than the header", fault, number)
            else:
                rows.append((number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        found.add(path, "csv", f"is not CSV ({error}); look for a quote that is not closed", number + 1)
        return None
    finally:
        csv.field_size_limit(limit)
    for name in dict.fromkeys(header):
        if header.count(name) > 1 and name:  # columns without a name are of no use, and do no harm
            found.add(path, f"header {name}", f"column {name!r} stands {header.count(name)} times in the header")
    if not number:
        found.add(path, "rows", "has no rows below its header")
    return Table(path, header, rows)


def _separator(header: str) -> str:
    """What separates the names of a header: a comma, or else a semicolon or a tab."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _ends(cells: Sequence[str], header: Sequence[str], mark: str) -> str:
    """Why a row may have one field more than the header."""
    ends = len(cells) == len(header) + 1 and not cells[-1].strip()
    return f"; it ends with {mark!r}: delete that last separator" if ends else ""


def require(table: Table, column: str, key: str, found: FaultCollector) -> bool:
    """Whether the table has the column; `key`: the setting that names it, "" for none."""
    if column in table.header:
        return True
    setting = f" ({key})" if key else ""
    fault = f"column {column!r}{setting} is missing{nearest(column, table.header)}"
    found.add(table.path, f"column {column}", fault)
    return False
