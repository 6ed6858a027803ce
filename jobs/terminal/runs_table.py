"""`m3col runs`: lists and removes the contents of a runs folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from jobs.terminal.console import console
from m3col.config import loading as run_config
from m3col.config.keys import get
from m3col.errors import InputError, nearest
from tune.outer import tree_folder
from tune.study import directory, record


def list_runs(folder: Path) -> int:
    """Prints one row per study and training run, also for those that this version cannot read."""
    table = Table("name", "kind", "state", "data", "method", "runs", "MB")
    readable = {item.path: item for item in directory.all_studies(folder)}
    for path in sorted(folder.glob(f"*/{record.DESCRIPTION}"), key=lambda path: path.stat().st_mtime):
        item, size = readable.get(path.parent.absolute()), f"{_megabytes(path.parent):.1f}"
        if item is None:
            table.add_row(path.parent.name, "study", "unreadable", "", "", "", size)
            continue
        described = item.described()
        count = sum(1 for _ in item.runs())
        state = "finished" if item.finished() else "unfinished"
        data, method = get(described, "dataset.name", ""), get(described, "config.run.method", "")
        table.add_row(item.name, "study", state, data, method, str(count), size)
    for tree in tree_folder.all_trees(folder):
        described, ended = tree.described(), sum(study.finished() for study in tree.studies())
        state = "finished" if tree.finished() else "unfinished"
        data, method = get(described, "dataset.name", ""), get(described, "config.run.method", "")
        table.add_row(tree.name, "tree", state, data, method, f"{ended} studies", f"{_megabytes(tree.path):.1f}")
    for path in sorted(folder.glob("train/*/config.yaml")):
        name, size = f"train/{path.parent.name}", f"{_megabytes(path.parent):.1f}"
        state = "finished" if (path.parent / "metrics.json").exists() else "unfinished"
        try:
            run = run_config.load(path)
        except InputError:
            table.add_row(name, "training", "unreadable", "", "", "1", size)
        else:
            table.add_row(name, "training", state, run.data.name, run.method, "1", size)
    console().print(table if table.row_count else f"no runs in {folder}", soft_wrap=True)
    return 0


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def remove_runs(folder: Path, names: Sequence[str], *, ask: bool) -> int:
    """Removes studies and training runs. Raises InputError, and removes nothing, if one is unknown or in use."""
    if not names:
        raise InputError(["runs rm: name what to remove; `m3col runs list` shows it"])
    faults = []
    targets: list[Path] = []
    for name in names:
        path = (folder / name).resolve()
        described = [path / record.DESCRIPTION, path / record.TREE]
        known = any(map(Path.exists, described)) or (path.parent == (folder / "train").resolve())
        if folder.resolve() not in path.parents or not known or not path.is_dir():
            choices = [item.name for item in directory.all_studies(folder)]
            choices += [item.name for item in tree_folder.all_trees(folder)]
            choices += [f"train/{item.name}" for item in folder.glob("train/*")]
            faults.append(f"runs rm: {name!r} is not a study or training run in {folder}{nearest(name, choices)}")
        else:
            targets.append(path)
    locked = [record.StudyFolder(path) for path in targets if path.parent != (folder / "train").resolve()]
    for item in locked:
        try:
            item.lock()
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    for path in targets:
        if ask:
            answer = input(f"remove {path} ({_megabytes(path):.1f} MB)? [y/N] ")
            if answer.strip().lower() not in ("y", "yes"):
                continue
        shutil.rmtree(path)
        print(f"removed {path}")
    return 0
