"""Reads a folder of sequences, tables and images: `train.csv` (`val.csv`, `test.csv`) with ids and labels, a file per
modality.

A modality is a long CSV (`id,time,feature...`), a `.safetensors` or `.npz` file of sequences, a table with one row per
sample (`id,feature...`), or a CSV of images (`id,image`) with paths relative to the folder. Its file has the samples of
all splits.
"""

import gzip
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.data import arrays, label_tables
from m3col.data.dataset import SPLITS, Dataset, choose
from m3col.data.formats import conversion, image_text_csv, table_faults, text_files
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.image_text_csv import FILES, Table
from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.pairs import FaultCollector
from m3col.data.images import decoding
from m3col.data.sequences import files
from m3col.data.sequences.files import SequenceFile
from m3col.data.sequences.long_csv import ID, TIME
from m3col.errors import InputError
from m3col.tasks import registry as tasks

GROUP = "group"

IMAGE = "image"  # column with paths of images

Modality = SequenceFile | pd.DataFrame | pd.Series

_SHOWN = 5  # ids listed in a message; the others are only counted


@dataclass
class Content:
    """What a folder has, as far as it could be read.

    Attributes:
        folder: the folder.
        layout: the columns of labels.
        splits: by split the rows of its file by id.
        paths: by split its file.
        modalities: by name the sequences, or a table [N, D] or paths of images [N] with the ids as index.
        sources: by name the file of a modality.
        faults: the faults, one line each.
        warnings: suspicious properties, one line each.
    """

    folder: Path
    layout: Layout
    splits: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    modalities: dict[str, Modality] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def labels(self, split: str) -> pd.Series | pd.DataFrame | None:
        """The labels of a split, with its ids as index; None for a test split without them."""
        rows = self.splits[split]
        named, missing = label_columns(self.layout, [*next(iter(rows.values()), {})])
        if missing:
            return None
        index = _index(rows)
        if self.layout.form == label_tables.CLASS:
            (column,) = named
            return pd.Series([row[column] for row in rows.values()], index=index, dtype=object)
        cells = {name: [_cell(row[column]) for row in rows.values()] for column, name in named.items()}
        return pd.DataFrame(cells, index=index)


def label_columns(layout: Layout, header: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The name of each label or target by its column, and the columns that the header lacks."""
    if layout.form == label_tables.CLASS and isinstance(layout.label, str):
        return {layout.label: layout.label}, () if layout.label in header else (layout.label,)
    return layout.label_columns(header)


def _cell(cell: str) -> float | str:
    """A number, or the text that is none."""
    return table_faults.to_number(cell) if table_faults.is_number(cell) else cell


def looks_like(folder: Path) -> bool:
    """Whether the folder has the layout, with at least one modality of sequences."""
    if not os.path.isdir(folder):  # False also for a path that is too long
        return False
    train = text_files.find(folder, FILES["train"])
    return train.is_file() and ID in _header(train) and any(map(_has_sequences, _sources(folder, []).values()))


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the data set of `folder`. Label files of splits that are not requested are not opened.

    Raises:
        InputError: with all faults.
    """
    content = scan(folder, splits, layout, select)
    if content.faults:
        raise InputError(content.faults)
    return dataset_of(content, entry.name)


def scan(
    folder: Path, splits: Sequence[str], layout: Layout, select: Sequence[str | int] | None = None
) -> Content:  # fmt: skip
    """Reads `folder` and collects the faults. `select`: modalities by name, or number from 1; None: all."""
    content = Content(folder, layout)
    if not os.path.isdir(folder):
        content.faults.append(f"{folder}: is not a folder")
        return content
    content.warnings += conversion.remarks_of(folder)
    for split in (s for s in SPLITS if s in splits):
        path = text_files.find(folder, FILES[split], content.faults)
        if split == "train" or path.exists():
            _read_split(content, split, path)
    sources = _sources(folder, content.faults)
    if not sources:
        content.faults.append(f"{folder}: has no file of a modality, such as motion.csv with the header id,time,x,y")
    if select is not None and sources:
        names, lines = choose(select, [*sources])
        content.faults += lines
        sources = {name: sources[name] for name in names}
    for name, path in sources.items():
        modality = _read_modality(path, content.faults)
        content.sources[name] = path
        if modality is not None:
            content.modalities[name] = modality
            _compare_ids(content, name, modality, complete=set(SPLITS) <= set(splits))
    return content


def _sources(folder: Path, faults: list[str]) -> dict[str, Path]:
    """The files of modalities by name, in alphabetical order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in (*text_files.SUFFIXES[::-1], *files.ARRAYS) if path.name.endswith(s)), None)
        name = path.name.removesuffix(suffix or "")
        if suffix is not None and name and not name.startswith(".") and name not in FILES.values() and path.is_file():
            found.setdefault(name, []).append(path)
    for paths in found.values():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            faults.append(f"{folder}: {names} are two files of one modality; keep one of them")
    return {name: paths[0] for name, paths in found.items()}


def _read_modality(path: Path, faults: list[str]) -> Modality | None:
    if _has_sequences(path):
        return files.read_file(path, faults)
    return read_images(path, faults) if _header(path) == {ID, IMAGE} else read_table(path, faults)


def read_images(path: Path, faults: list[str]) -> "pd.Series[str] | None":
    """Reads the paths of images with their ids as index; None, with `faults`, if there are faults."""
    collector = FaultCollector()
    table = image_text_csv.read_table(path, collector)
    rows = {} if table is None else _by_id(table, collector, Content(path.parent, Layout()))
    root, paths = os.path.realpath(path.parent), list[str]()
    for number, row in [] if table is None else table.rows:
        try:
            paths.append(decoding.inside(row[IMAGE].strip(), root))
        except decoding.Unreadable as error:
            collector.add(path, "the image cannot be used", f"image {row[IMAGE].strip()!r:.200}: {error}", number)
    lines = collector.lines()
    faults += lines
    return None if lines else pd.Series(paths, index=_index(rows), dtype=object)


def has_ids(path: Path) -> bool:
    """Whether a CSV has a column `id`."""
    return ID in _header(path)


def _has_sequences(path: Path) -> bool:
    return path.suffix in files.ARRAYS or {ID, TIME} <= _header(path)


def _header(path: Path) -> set[str]:
    """The names in the first line of a CSV; empty if it cannot be read."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            line = str(file.readline(1_000_000))
            if text_files.separator_line([line.rstrip("\r\n")]) is not None:
                line = str(file.readline(1_000_000))
    except (OSError, EOFError):
        return set()
    mark = next((mark for mark in (",", ";", "\t") if mark in line), ",")
    return {name.strip().strip('"') for name in line.split(mark)}


def _read_split(content: Content, split: str, path: Path) -> None:
    """Reads ids, labels and groups of one split."""
    collector = FaultCollector()
    table = image_text_csv.read_table(path, collector)
    if table is not None:
        has_id = image_text_csv.require(table, ID, "", collector)
        named, missing = label_columns(content.layout, table.header)
        if split == "test" and not set(named) & set(table.header):
            missing = ()  # the test split has no labels
        for column in missing:
            image_text_csv.require(table, column, "data.label_column", collector)
        if has_id and not missing:
            content.paths[split] = path
            content.splits[split] = _by_id(table, collector, content)
    content.faults += collector.lines()


def _by_id(table: Table, faults: FaultCollector, content: Content) -> dict[str, dict[str, str]]:
    """The rows of a table by id; rows without an id, and repeated ids, are faults."""
    rows: dict[str, dict[str, str]] = {}
    elsewhere = {name: split for split, others in content.splits.items() for name in others}
    for number, row in table.rows:
        name = row[ID].strip()
        if name in MARKS:
            faults.add(table.path, "the id is missing", f"the id is missing ({row[ID]!r})", number)
        elif name in rows or name in elsewhere:
            where = content.paths[elsewhere[name]].name if name in elsewhere else "a row above"
            faults.add(table.path, "repeated ids", f"id {name!r} is in {where} as well; each sample has one id", number)
        else:
            rows[name] = row
    return rows


def read_table(path: Path, faults: list[str]) -> pd.DataFrame | None:
    """Reads a table with one row per sample and its ids as index; None, with `faults`, if there are faults."""
    collector = FaultCollector()
    table = image_text_csv.read_table(path, collector)
    rows: dict[str, dict[str, str]] = {}
    features: list[str] = []
    if table is not None and image_text_csv.require(table, ID, "", collector):
        features = [name for name in table.header if name not in (ID, "")]
        if not features:
            collector.add(path, "header", "there is no column of a feature beside 'id'")
        rows = _by_id(table, collector, Content(path.parent, Layout()))
        for number, row in table.rows:
            for name in features:
                if not table_faults.is_number(row[name]):
                    text = f"column {name!r}: {row[name].strip()!r:.40} is not a number"
                    text += table_faults.why(row[name].strip())
                    collector.add(path, "not a number", text, number)
    lines = collector.lines()
    faults += lines
    if lines:
        return None
    values = [[table_faults.to_number(row[name]) for name in features] for row in rows.values()]
    return pd.DataFrame(np.array(values, dtype=np.float64), index=_index(rows), columns=features)


def _index(ids: Iterable[str]) -> pd.Index:
    return pd.Index([*ids], dtype=object)


def _compare_ids(content: Content, name: str, modality: Modality, *, complete: bool) -> None:
    """Adds a fault for ids without a row in a modality, and a warning for ids in no split (if all were read)."""
    path = content.sources[name]
    own = set(_ids(modality))
    for split, rows in content.splits.items():
        missing = [row for row in rows if row not in own]
        if missing:
            unit = "sequence" if isinstance(modality, SequenceFile) else "row"
            content.faults.append(f"{path}: has no {unit} for {_listed(missing)} of {content.paths[split].name}")
    used = {row for rows in content.splits.values() for row in rows}
    unused = [row for row in _ids(modality) if row not in used]
    if unused and complete and content.splits and not content.faults:
        content.warnings.append(f"{path}: {_listed(unused)} are in no split and left out")


def _ids(modality: Modality) -> Iterable[str]:
    return modality.ids if isinstance(modality, SequenceFile) else map(str, modality.index)


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN]))
    return f"the ids {shown}" + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def dataset_of(content: Content, name: str) -> Dataset:
    """Builds the data set of a folder without faults. Raises InputError for faults of its labels."""
    pairs: dict[str, tuple[dict[str, Any], Any]] = {}
    for split, rows in content.splits.items():
        inputs = {key: _part(modality, [*rows]) for key, modality in content.modalities.items()}
        pairs[split] = (inputs, content.labels(split))
    train = content.splits["train"]
    given = [row.get(GROUP) for row in train.values()]
    groups: Any = None if None in given else pd.Series(given, index=_index(train), dtype=object)
    try:
        dataset = arrays.from_arrays(
            *pairs["train"],
            test=pairs.get("test"),
            validation=pairs.get("validation"),
            groups=groups,
            name=name,
            task=next(task for task in tasks.names() if tasks.load(task).label_form == content.layout.form),
        )
    except InputError as error:
        raise InputError([f"{content.folder}: {line}" for line in error.faults]) from None
    features = {
        key: modality.features if isinstance(modality, SequenceFile) else dataset.features[key]
        for key, modality in content.modalities.items()
    }
    splits: dict[str, Any] = {
        split: replace(part, ids=np.array([*content.splits[split]], dtype=np.str_))
        for split, part in dataset.splits.items()
    }
    others = tuple(key for key in _sources(content.folder, []) if key not in features)
    return replace(dataset, features=features, unselected=others, **splits,
                   warnings=(*content.warnings, *dataset.warnings))  # fmt: skip


def _part(modality: Modality, ids: Sequence[str]) -> Any:
    """The samples `ids` of a modality, in this order."""
    if isinstance(modality, pd.Series):
        return modality.loc[list(ids)].map(Path)  # a path is an image, whatever its ending
    if isinstance(modality, pd.DataFrame):
        return modality.loc[list(ids)]
    at = {name: row for row, name in enumerate(modality.ids)}
    return modality.column[np.array([at[name] for name in ids], dtype=np.int64)]
