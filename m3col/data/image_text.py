"""Pairs of a picture and a text in a folder: what every such layout shares, and the layout of plain CSV files.

`train.csv`, and where there are any `val.csv` and `test.csv`: a header, then one pair per row, with the picture's path
relative to the folder, one or more columns of text, and a label. Faults name the file and the row, counted from 1 below
the header.
"""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m3col.data import labels, looks, overlaps, pictures, textfile
from m3col.data.columns import Kind, ObjectArray, Records, encodable
from m3col.data.dataset import SPLITS, Dataset, Split, build_split, choose
from m3col.data.entry import Entry
from m3col.data.layout import Layout
from m3col.data.looks import Look
from m3col.data.missing import MARKS
from m3col.faults import BadInput, nearest

MODALITIES = ("image", "text")
KINDS: dict[str, Kind] = {"image": "image", "text": "text"}
FILES = {"train": "train", "validation": "val", "test": "test"}  # names without suffix, see textfile.SUFFIXES
_LONGEST = 2**31 - 1  # characters of one field; the csv module stops at 131,072 unless it is told otherwise
_SHOWN = 5  # faults of one kind and file that are named one by one; the rest is counted


class Found:
    """Faults while a folder is read, kept by file and kind."""

    def __init__(self) -> None:
        self._lines: dict[tuple[Path, str], list[str]] = {}

    def add(self, file: Path, kind: str, text: str, row: int | None = None) -> None:
        place = f"{file}: " if row is None else f"{file}: row {row}: "
        self._lines.setdefault((file, kind), []).append(place + text)

    def lines(self) -> list[str]:
        """The first five of each kind and file, and how many more there are."""
        listed = []
        for (file, kind), lines in self._lines.items():
            listed += lines[:_SHOWN]
            if len(lines) > _SHOWN:
                listed.append(f"{file}: {len(lines) - _SHOWN} more rows: {kind}")
        return listed


@dataclass(frozen=True)
class Pair:
    """A row of a file. `image`: its path relative to the folder; `path`: its real path, None where it cannot be used;
    `text`, `label`: "" where there is none."""

    file: Path
    row: int
    image: str
    path: str | None
    text: str
    label: str


@dataclass
class Pairs:
    """What a folder holds, as far as it could be read. `columns`: those that the texts come from; `dropped`: pairs that
    were left out, by reason; `warnings`: what is suspicious."""

    folder: Path
    columns: tuple[str, ...] = ()
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur in training, sorted."""
        return tuple(sorted({pair.label for pair in self.splits.get("train", ()) if pair.label}))

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


@dataclass(frozen=True)
class Table:
    """A CSV file: `rows` with their numbers, each as long as the header."""

    path: Path
    header: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]


def looks_like(folder: Path) -> bool:
    """Whether `folder` holds a file of the layout. (Food-101 has such files too, but its texts lie beside them.)"""
    found = any(textfile.find(folder, name).is_file() for name in FILES.values())
    return found and not (folder / "texts_txt").is_dir()


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    pictures: bool = False,
) -> Dataset:
    """The data set of `folder`. Files of splits that are not asked for are not opened. `pictures`: decode them all to
    judge them; otherwise they must only be there.

    Raises BadInput with every fault.
    """
    return build(scan(folder, splits, layout), entry, select, layout, judge_pictures=pictures)


def scan(folder: Path, splits: Sequence[str], layout: Layout) -> Pairs:
    """Read what can be read of `folder` and collect the faults."""
    pairs = Pairs(folder)
    if not os.path.isdir(folder):
        pairs.found.add(folder, "folder", "is not a folder")
        return pairs
    tables = {}
    for split in (s for s in SPLITS if s in splits):
        doubles: list[str] = []
        path = textfile.find(folder, FILES[split], doubles)
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


def _text_columns(table: Table, layout: Layout, found: Found) -> tuple[str, ...]:
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


def read_lines(path: Path, found: Found) -> list[str] | None:
    """The lines of a UTF-8 file, with or without byte order mark; None and a fault where there are none."""
    faults: list[str] = []
    lines = textfile.read_lines(path, faults)
    for fault in faults:
        # A record may span lines, and a header is no row: a place of bytes is a line.
        text = re.sub(r"^row (\d+): ", r"line \1: ", fault.removeprefix(f"{path}: "))
        found.add(path, text, text)
    return lines


def read_table(path: Path, found: Found) -> Table | None:
    """The CSV file; None and a fault where it cannot be read. Rows of another length are faults and left out."""
    lines = read_lines(path, found)
    if lines is None:
        return None
    named = textfile.separator_line(lines)
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


def require(table: Table, column: str, key: str, found: Found) -> bool:
    """Whether the table has the column; `key`: the setting that names it, "" for none."""
    if column in table.header:
        return True
    setting = f" ({key})" if key else ""
    fault = f"column {column!r}{setting} is missing{nearest(column, table.header)}"
    found.add(table.path, f"column {column}", fault)
    return False


def joined(texts: Iterable[str]) -> str:
    """The texts that are neither blank nor marked as missing, one per line; where there is none, the first mark."""
    stripped = [text.strip() for text in texts]
    there = [text for text in stripped if text not in MARKS]
    return "\n".join(there) if there else next(filter(None, stripped), "")


def missing(what: str, cell: str) -> str:
    """The fault of a cell that is empty or marked as missing."""
    return f"{what} is empty" if not cell else f"{what} is {cell!r}, which stands for a missing one; leave the pair out"


def judge(pairs: Pairs, file: Path, row: int, *, image: str | None, text: str | None, label: str | None) -> Pair:
    """A row as a pair, with its faults put into `pairs.found`. None: the file has no such column, a fault already."""
    path = None
    image = None if image is None else image.strip()
    if image in MARKS:
        pairs.found.add(file, "no path of a picture", missing("the path of the picture", str(image)), row)
    elif image is not None:
        try:
            path = pictures.inside(image, pairs.root)
        except pictures.Outside as error:
            pairs.found.add(file, "the picture is outside of the data folder", f"picture {image!r} {error}", row)
        except pictures.Unreadable as error:
            pairs.found.add(file, "the picture is missing", f"picture {image!r}: {error}", row)
    if text is not None and text in MARKS:
        pairs.found.add(file, "the text is empty", missing("the text", text), row)
    label = None if label is None else label.strip()
    if label in MARKS:
        pairs.found.add(file, "the label is empty", missing("the label", str(label)), row)
        label = ""
    for what, value in (("text", text), ("label", label)):
        if value and not encodable(value):  # JSON can spell what no tokenizer and no file takes
            pairs.found.add(file, f"the {what} is not Unicode", f"the {what} holds half a surrogate pair", row)
    shown = os.path.normpath(pictures.with_slashes(image or "", pairs.root))
    return Pair(file, row, shown, path, "" if text in MARKS else text or "", label or "")


def judge_labels(pairs: Pairs) -> None:
    """Training has at least two classes, and every class that occurs."""
    classes, train = pairs.classes, pairs.splits.get("train")
    if not train or not classes:
        return
    if len(classes) == 1:
        fault = f"at least two classes are needed, but every label is {classes[0]!r}"
        pairs.found.add(train[0].file, "classes", fault)
    known = set(classes)
    for split in ("validation", "test"):
        for pair in pairs.splits.get(split, ()):
            if pair.label and pair.label not in known:
                near = close(pair.label, classes)
                fault = f"label {pair.label!r} never occurs in {train[0].file.name}{near}"
                pairs.found.add(pair.file, "a label that training lacks", fault, pair.row)


def close(value: str, choices: Iterable[str]) -> str:
    """`nearest`, but silent where no choice is close: the list of all classes would hide the line."""
    near = nearest(value, choices)
    return near if near.startswith("; did") else ""


def judge_decoding(pairs: Pairs) -> dict[str, Look]:
    """A look at every picture, by its path; what cannot be decoded becomes a fault."""
    every = [pair for split in pairs.splits.values() for pair in split if pair.path is not None]
    paths = list(dict.fromkeys(pair.path for pair in every if pair.path is not None))
    seen = dict(zip(paths, looks.look(paths), strict=True))
    for pair in every:
        if pair.path is not None and seen[pair.path].fault:
            fault = f"picture {pair.image!r} {seen[pair.path].fault}"
            pairs.found.add(pair.file, "the picture cannot be read", fault, pair.row)
    return seen


def build(
    pairs: Pairs, entry: Entry, select: Sequence[str | int] | None, layout: Layout, *, judge_pictures: bool
) -> Dataset:
    """The data set of what was read. Raises BadInput with every fault."""
    chosen, faults = (MODALITIES, []) if select is None else choose(select, MODALITIES)
    warnings = list(pairs.warnings)
    if judge_pictures and "image" in (chosen or MODALITIES):
        seen = judge_decoding(pairs)
        shared = [found for found in overlaps.find(pairs.splits, seen) if found.pictures]
        warnings += [f"{pairs.folder}: {found.line}" for found in shared]
    faults = [*faults, *pairs.found.lines()]
    if faults:
        raise BadInput(faults)
    built = _splits(pairs)
    dataset = Dataset(
        name=entry.name,
        classes=pairs.classes,
        features={"image": (layout.image,), "text": pairs.columns},
        known_issues=entry.known_issues,
        dropped=dict(pairs.dropped),
        warnings=tuple(warnings),
        train=built["train"],
        validation=built.get("validation"),
        test=built.get("test"),
    )
    return dataset.select(chosen)


def _splits(pairs: Pairs) -> dict[str, Split]:
    numbers = {label: number for number, label in enumerate(pairs.classes)}
    used: set[str] = set()
    every = [pair for split in pairs.splits.values() for pair in split]
    images, image_at = _distinct([str(pair.path) for pair in every])
    texts, text_at = _distinct([pair.text for pair in every])
    built, start = {}, 0
    for split, members in pairs.splits.items():
        here = np.arange(start, start + len(members))
        start += len(members)
        built[split] = build_split(
            {"image": Records("image", images, image_at[here]), "text": Records("text", texts, text_at[here])},
            np.array([numbers[pair.label] for pair in members], dtype=np.int64),
            split,
            ids=np.array([_unique(pair.image, used) for pair in members], dtype=np.str_),
        )
    return built


def _distinct(values: list[str]) -> tuple[ObjectArray, np.ndarray]:
    """The distinct values in the order of their first occurrence, and the position of each value in them: what occurs
    twice is decoded once."""
    positions = {value: position for position, value in enumerate(dict.fromkeys(values))}
    source = np.empty(len(positions), dtype=object)
    source[:] = list(positions)
    return source, np.array([positions[value] for value in values], dtype=np.int64)


def _unique(name: str, used: set[str]) -> str:
    """The name, with `#2`, `#3`, ... where it was used before."""
    unique, count = name, 1
    while unique in used:
        count += 1
        unique = f"{name}#{count}"
    used.add(unique)
    return unique
