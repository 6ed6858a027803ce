"""`m3col leaderboard`: compares studies or trees, on one data set split by split, over several by ranks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markdown import Markdown

from jobs.terminal.console import console, runs_of
from m3col.errors import InputError
from m3col.storage import atomic_files
from tune.outer import summary, tree_board, tree_folder, tree_report
from tune.outer import table as tables
from tune.outer.tree_folder import TreeFolder
from tune.page import board_page
from tune.results import leaderboard as winners
from tune.results import rank_board
from tune.results import report as reports
from tune.results.sections import Section, to_markdown
from tune.study import directory

if TYPE_CHECKING:
    import pandas as pd

    from tune.study.record import StudyFolder

FIGURE = "critical_difference.png"


def leaderboard(arguments: argparse.Namespace) -> int:
    runs = runs_of(arguments)
    folders, faults = _folders(runs, arguments.study)
    if len(arguments.study) < 2:
        faults.append("leaderboard: name two or more studies or trees")
    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        faults.append(f"--out {arguments.out}: is a file; name a folder")
    if faults:
        raise InputError(faults)
    by_data: dict[str, list[StudyFolder | TreeFolder]] = {}
    for folder in folders:
        by_data.setdefault(folder.described()["dataset"]["name"], []).append(folder)
    if len(by_data) > 1:
        text = _ranks(by_data, arguments)
    elif any(isinstance(folder, TreeFolder) for folder in folders):
        text = _one_data_set(folders, arguments.reference)
    else:
        text = _studies([folder for folder in folders if not isinstance(folder, TreeFolder)], arguments)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(arguments.out / "leaderboard.md", text)
    screen = console()
    screen.print(Markdown(text) if screen.is_terminal else text, soft_wrap=True)
    return 0


def _folders(runs: Path, names: Sequence[str]) -> "tuple[list[StudyFolder | TreeFolder], list[str]]":
    folders: list[StudyFolder | TreeFolder] = []
    faults: list[str] = []
    for name in names:
        tree = tree_folder.find(runs, name)
        try:
            folders.append(directory.find(runs, name) if tree is None else tree)
        except InputError as error:
            faults += error.faults
    return folders, faults


def _one_data_set(folders: "Sequence[StudyFolder | TreeFolder]", reference: str | None) -> str:
    trees = [folder for folder in folders if isinstance(folder, TreeFolder)]
    if len(trees) < len(folders):
        others = ", ".join(folder.name for folder in folders if not isinstance(folder, TreeFolder))
        rule = "leaderboard: on one data set trees are compared, split by split, but these are studies"
        raise InputError([f"{rule}: {others}; a search with `outer` makes a tree"])
    lines = tree_board.compare(trees, reference=reference)
    sections = [Section(f"Winners on {trees[0].described()['dataset']['name']}, paired by split", level=1)]
    for metric in lines["metric"].unique():
        part = lines[lines["metric"] == metric].reset_index(drop=True)
        sections.append(Section(str(metric), table=summary.columns(part)))
    return to_markdown(sections)


def _studies(folders: "Sequence[StudyFolder]", arguments: argparse.Namespace) -> str:
    """The winners of finished studies of the same data, and with --out their page.

    Raises:
        InputError: a study is not finished, or has other data than the first.
    """
    faults = [] if arguments.reference is None else ["--reference: is for trees of one data set; these are studies"]
    first = _data_digests(folders[0])
    for folder in folders:
        if not folder.finished():
            faults.append(f"{folder.path}: the study is not finished; m3col search --resume {folder.resume_name}")
        faults += [
            f"{folder.path}: its {part} samples are not those of {folders[0].name} (digest {digest[:12]}, there "
            f"{first.get(part, 'none')[:12]}); compare studies of the same data"
            for part, digest in _data_digests(folder).items()
            if digest != first.get(part)
        ]
    if faults:
        raise InputError(faults)
    board = winners.leaderboard(folders, [reports.read(folder) for folder in folders])
    if board["metric"].nunique() != 1:
        raise InputError(["leaderboard: the studies have different metrics: " + ", ".join(board["metric"].unique())])
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(arguments.out / "leaderboard.csv", board.to_csv(index=False))
        atomic_files.write_text(arguments.out / "leaderboard.html", board_page.page(board))
    return to_markdown([board_page.section(board)])


def _data_digests(folder: "StudyFolder") -> dict[str, str]:
    digests = folder.described()["digests"]
    return {part: digests.get(part) or "none" for part in ("train", "test")}


def _ranks(by_data: "dict[str, list[StudyFolder | TreeFolder]]", arguments: argparse.Namespace) -> str:
    if arguments.reference is not None:
        raise InputError(["--reference: is for trees of one data set; ranks over several data sets have none"])
    several = any(len(folders) > 1 for folders in by_data.values())
    result = rank_board.board({name: _scores(folders, several) for name, folders in by_data.items()})
    if arguments.out is None:
        return rank_board.markdown(result)
    from m3col.plots import fonts, rank_plots

    figure = rank_plots.critical_difference(result.comparison)
    fonts.settle(figure)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_files.replaced(arguments.out / FIGURE) as part:
        figure.savefig(part, format="png", dpi=140, bbox_inches="tight", metadata={"Software": None})
    atomic_files.write_text(arguments.out / "leaderboard.csv", result.scores.to_csv())
    return rank_board.markdown(result, figure=FIGURE)


def _scores(folders: "Sequence[StudyFolder | TreeFolder]", several: bool) -> "pd.DataFrame":
    """The rows of one data set: those of its study; of `several` studies per data set their winners, by method."""
    import pandas as pd

    parts = []
    for folder in folders:
        if isinstance(folder, TreeFolder):
            lines = tables.declared(tree_report.write(folder).table).rename(columns={"mean": "score"})
        else:
            lines = reports.read(folder).test_table.rename(columns={"test": "score"})
        lines = lines[["row", "metric", "score"]]
        if several:
            method = folder.described()["config"]["run"]["method"]
            lines = lines[lines["row"] == "winner"].assign(row=method)
        parts.append(lines)
    return pd.concat(parts, ignore_index=True)
