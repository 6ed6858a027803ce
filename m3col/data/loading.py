"""Finds the folder of a named data set and reads it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3col.data.catalog import TABLE
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats.csv_columns import Layout
from m3col.errors import InputError, nearest

FETCHABLE = ("rosmap", "brca")


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    modalities: Sequence[str | int] | None = None,
    splits: Sequence[str] = SPLITS,
    layout: Layout = Layout(),  # noqa: B008 - it is frozen
    images: bool = False,
) -> Dataset:
    """The named data set, with the splits asked for as far as it has them; files of other splits stay closed.

    `data_dir` is the data set's own folder or, for a named set, the one that holds it; see `locate`.
    `modalities` are names or numbers from 1; `layout`: which columns hold images, texts and labels; `images`: look
    at each of them, which costs time once; otherwise their files must only be there. Values may be NaN or infinite
    here: `faults` looks at that. Raises InputError.
    """
    if name not in TABLE:
        raise InputError([f"data.name: data set {name!r} is unknown{nearest(name, TABLE)}"])
    unknown = [f"splits: {split!r} is unknown{nearest(split, SPLITS)}" for split in splits if split not in SPLITS]
    if unknown or "train" not in splits:
        raise InputError(unknown or [f"splits: must contain 'train', but got {list(splits)}"])
    entry = TABLE[name]
    folder = Path() if entry.embedded else locate(name, data_dir=data_dir)
    if layout.text is None and entry.text is not None:
        layout = replace(layout, text=entry.text)
    return entry.read(folder, entry, modalities, splits, layout=layout, images=images)


def locate(name: str, *, data_dir: Path | None = None) -> Path:
    """The folder of a data set: the first of `data_dir`, $M3COL_DATA, ./data and ../shared/data that holds it
    (as the folder `name`, or itself). For a generic layout, `data_dir` is the folder. Raises InputError with the
    places.
    """
    entry = TABLE[name]
    variable = os.environ.get("M3COL_DATA")
    if data_dir is not None and not os.path.isdir(data_dir):  # False also for a path that is too long
        raise InputError([f"--data-dir: {data_dir} is not a folder"])
    if entry.generic and data_dir is not None:
        return Path(data_dir)
    given = [("--data-dir", data_dir), ("M3COL_DATA", Path(variable) if variable else None)]
    places = [(what, Path(path)) for what, path in given if path is not None]
    places += [("", Path("data")), ("", Path("..") / "shared" / "data")]
    for _, place in places:
        if not entry.generic and (place / name).is_dir():
            return place / name
        # a folder that carries the name of another set is that other set
        if place.resolve().name not in set(TABLE) - {name} and entry.looks_like(place):
            return place
    looked = ", ".join(f"{what} {path.resolve()}".strip() for what, path in places)
    fetch = (
        f"; get it with `m3col data fetch {name} --to data`"
        if name in FETCHABLE
        else "; give its folder with --data-dir"
    )
    raise InputError([f"data.name: {name!r} was not found; looked in {looked}{fetch}"])
