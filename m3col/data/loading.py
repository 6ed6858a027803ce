"""Finds the folder of a named data set and reads it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3col.config.resplit import ResplitConfig
from m3col.data import resplits
from m3col.data.catalog import TABLE
from m3col.data.dataset import SPLITS, Dataset
from m3col.data.formats.csv_columns import Layout
from m3col.data.permuted_labels import permuted
from m3col.errors import InputError, nearest
from m3col.tasks import registry as tasks

FETCHABLE = ("rosmap", "brca")


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    modalities: Sequence[str | int] | None = None,
    splits: Sequence[str] = SPLITS,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    images: bool = False,
    resplit: ResplitConfig | None = None,
    permutation: int | None = None,
    task: str = tasks.DEFAULT,
) -> Dataset:
    """Reads the named data set. Files of splits that are not requested are not opened.

    Values may be NaN or infinite: `m3col.data.checks.dataset_values` checks them.

    Args:
        name: name of the data set.
        data_dir: folder of the data set or, for a named data set, the folder that contains it; see `locate`.
        modalities: names, or numbers from 1; None: the default ones.
        splits: the requested splits; those that the data set lacks are ignored.
        layout: columns of images, texts and labels.
        images: whether to decode each image to validate it (slow the first time); otherwise the files must only exist.
        resplit: an outer split of all labelled samples; None: the data set's own splits. Then all files are read.
        permutation: seed of a random order of the labels, see m3col.data.permuted_labels; None: they stay.
        task: what the labels are for; decides how an outer split is stratified.

    Returns:
        The data set.

    Raises:
        InputError: the data set is unknown, was not found or has faults.
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
    wanted = splits if resplit is None else SPLITS
    dataset = entry.read(folder, entry, modalities, wanted, layout=layout, images=images)
    if resplit is not None:
        dataset = resplits.apply(dataset, resplit, task=tasks.build(task, dataset.classes))
        dataset = dataset if "test" in splits else dataset.without_test()
    return dataset if permutation is None else permuted(dataset, permutation)


def locate(name: str, *, data_dir: Path | None = None) -> Path:
    """Finds the folder of a data set.

    The first of `data_dir`, $M3COL_DATA, ./data and ../shared/data is used that contains the folder `name` or has the
    layout of the data set itself. For a generic layout, `data_dir` is the folder.

    Raises:
        InputError: the data set is in none of these folders; the message lists them.
    """
    entry = TABLE[name]
    variable = os.environ.get("M3COL_DATA")
    if data_dir is not None and not os.path.isdir(data_dir):  # False also for a path that is too long
        raise InputError([f"--data-dir: {data_dir} is not a folder"])
    if entry.generic and data_dir is not None:
        return Path(data_dir)
    configured = [("--data-dir", data_dir), ("M3COL_DATA", Path(variable) if variable else None)]
    folders = [(source, Path(path)) for source, path in configured if path is not None]
    folders += [("", Path("data")), ("", Path("..") / "shared" / "data")]
    for _, folder in folders:
        if not entry.generic and (folder / name).is_dir():
            return folder / name
        # a folder with the name of another data set contains that other data set
        if folder.resolve().name not in set(TABLE) - {name} and entry.looks_like(folder):
            return folder
    searched = ", ".join(f"{source} {path.resolve()}".strip() for source, path in folders)
    fetch = (
        f"; get it with `m3col data fetch {name} --to data`"
        if name in FETCHABLE
        else "; give its folder with --data-dir"
    )
    raise InputError([f"data.name: {name!r} was not found; looked in {searched}{fetch}"])
