"""Reads MM-IMDb from the packed file of its authors, `multimodal_imdb.hdf5`: films as features of poster and plot.

Letters: N films, 4,096 VGG features of a poster, 300 numbers of a plot (the mean of its word2vec vectors), 23 genres.
Paper: Arevalo et al., "Gated Multimodal Units for Information Fusion", arXiv 1702.01992. MultiBench reads these arrays.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.data import arrays, label_tables
from m3col.data.dataset import SPLITS, Dataset, choose
from m3col.data.formats import hdf5_arrays
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.entry import Entry
from m3col.data.formats.mmimdb import FILE_SPLITS, GENRES
from m3col.errors import InputError, nearest

FILE = "multimodal_imdb.hdf5"

MODALITIES = {"image": "vgg_features", "text": "features"}  # name -> array

_GENRES, _IDS = "genres", "imdb_ids"

_NAMES, _TABLE = "target_names", "split"  # attributes: of the genres, and of the file

_SHOWN = 5  # genres listed in a message

# Rows of the published file, which MultiBench has in its code.
PUBLISHED = {"train": (0, 15_552), "dev": (15_552, 18_160), "test": (18_160, 25_959)}


def looks_like(folder: Path) -> bool:
    """Whether `folder` has the file."""
    return os.path.isfile(folder / FILE)  # False also for a path that is too long


def read(
    folder: Path,
    entry: Entry,
    select: Sequence[str | int] | None,
    splits: Sequence[str],
    *,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
) -> Dataset:
    """Reads the rows of the requested splits. See `m3col.data.formats.entry.Read`.

    The genres have the names and splits that the file gives them. Its posters and words are not read: the raw folder,
    `mmimdb`, has both as they were published.

    Raises:
        InputError: with all faults.
    """
    path, faults = folder / FILE, list[str]()
    names, lines = (tuple(MODALITIES), []) if select is None else choose(select, tuple(MODALITIES))
    if layout.form != label_tables.BINARY:
        lines = [*lines, f"{path}: a film has any number of genres; set task: multi_label"]
    if lines:
        raise InputError(lines)
    parts = hdf5_arrays.read(path, lambda file: _parts(file, path, names, splits, faults), faults)
    if not parts or faults:
        raise InputError(faults)
    try:
        dataset = arrays.from_arrays(
            *parts["train"], validation=parts.get("validation"), test=parts.get("test"), name=entry.name,
            task="multi_label",
        )  # fmt: skip
    except InputError as error:
        raise InputError([f"{path}: {line}" for line in error.faults]) from None
    others = tuple(name for name in MODALITIES if name not in names)
    return replace(dataset, known_issues=entry.known_issues, unselected=others)


def _parts(
    file: Any, path: Path, names: Sequence[str], splits: Sequence[str], faults: list[str]
) -> dict[str, tuple[dict[str, pd.DataFrame], pd.DataFrame]]:
    """By split the tables of the modalities and of the genres, with the ids of the films as index."""
    wanted: dict[str, Any] = {
        name: hdf5_arrays.array(file, MODALITIES[name], faults, path=path, dimensions=2) for name in names
    }
    genres = hdf5_arrays.array(file, _GENRES, faults, path=path, dimensions=2)
    ids = hdf5_arrays.array(file, _IDS, faults, path=path, dimensions=1, kinds=hdf5_arrays.TEXTS)
    if genres is None or ids is None or any(data is None for data in wanted.values()):
        return {}
    counts = {_IDS: len(ids), _GENRES: len(genres)} | {MODALITIES[name]: len(wanted[name]) for name in names}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        faults.append(f"{path}: all arrays must have the same number of films, but have {listed}")
    order = _columns(genres, path, faults)
    rows = _rows(file, path, len(genres), faults)
    if faults:
        return {}
    parts = {}
    for split in (split for split in SPLITS if split in splits and split in rows):
        own = rows[split]
        index = pd.Index([name.decode("ascii", errors="replace") for name in ids[own].tolist()], dtype=object)
        tables = {
            name: pd.DataFrame(
                wanted[name][own].astype(np.float64),
                index=index, columns=[f"{MODALITIES[name]}_{number}" for number in range(wanted[name].shape[1])],
            )
            for name in names
        }  # fmt: skip
        parts[split] = tables, pd.DataFrame(genres[own][:, order], index=index, columns=GENRES)
    return parts


def _columns(genres: Any, path: Path, faults: list[str]) -> list[int]:
    """The column of each of `GENRES`, from the names that the file gives its columns, in an order of its own."""
    text = genres.attrs.get(_NAMES)
    try:
        names = [str(name).strip().lower() for name in json.loads(text if isinstance(text, str | bytes) else "null")]
    except (ValueError, TypeError, RecursionError):
        faults.append(f"{path}: {_GENRES!r} must name its columns in the attribute {_NAMES!r}, a list in JSON")
        return []
    unknown = [name for name in names if name not in GENRES]
    faults += [f"{path}: genre {name!r:.40} is unknown{nearest(name, GENRES)}" for name in unknown[:_SHOWN]]
    if not unknown and (sorted(names) != sorted(GENRES) or len(names) != genres.shape[1]):
        faults.append(
            f"{path}: {_GENRES!r} must have a column for each of the {len(GENRES)} genres, but has {genres.shape[1]} "
            f"columns and {len(names)} names, {len(set(names))} of them different"
        )
    return [] if unknown or faults else [names.index(name) for name in GENRES]


def _rows(file: Any, path: Path, count: int, faults: list[str]) -> dict[str, slice]:
    """The rows of each split: those of the file's own table of splits; without one, those of the published file."""
    ends = dict(PUBLISHED)
    table = file.attrs.get(_TABLE)
    if table is None and count != max(end for _, end in ends.values()):
        faults.append(f"{path}: has {count:,} films, but no attribute {_TABLE!r} that says their splits")
        return {}
    if table is not None:
        if not {"split", "source", "start", "stop"} <= {*(getattr(table, "dtype", np.dtype(int)).names or ())}:
            faults.append(f"{path}: the attribute {_TABLE!r} must have the columns split, source, start and stop")
            return {}
        own = [row for row in table.ravel() if _text(row["source"]) == _GENRES]
        ends = {_text(row["split"]): (int(row["start"]), int(row["stop"])) for row in own}
    rows = {split: slice(*ends[name]) for split, name in FILE_SPLITS.items() if name in ends}
    before = 0
    for split, part in sorted(rows.items(), key=lambda item: item[1].start):
        if not before <= part.start < part.stop <= count:
            text = f"rows {part.start} to {part.stop} of {split} must be some of {count:,}, and of no other split"
            faults.append(f"{path}: {text}")
        before = max(before, part.stop)
    if "train" not in rows:
        faults.append(f"{path}: the attribute {_TABLE!r} has no training split")
    return rows


def _text(value: Any) -> str:
    return value.decode("ascii", errors="replace") if isinstance(value, bytes) else str(value)
