"""Shared by the benchmarks: tables, medians, and opening a study without the rest of a search."""

import argparse
import os
import signal
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.metrics.spec import higher_is_better
from tune import checks
from tune.config.schema import StudyConfig
from tune.engine.run_executor import RunExecutor, SharedStudyData
from tune.scheduling.optuna_study import Trials
from tune.scheduling.plan import Plan
from tune.study import directory, partitions
from tune.study.record import StudyFolder
from tune.study.run_spec import RunSpec


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the switch `--quick` of all benchmarks."""
    new_parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    new_parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it works, its figures mean nothing"
    )
    return new_parser


def leave_in_order() -> None:
    """Converts SIGTERM to SystemExit, so that cleanup code stops the servers that this process started."""

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def machine() -> str:
    """The line above each table that describes the machine."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} CPU cores, load {load:.1f} at the start (the figures below assume an idle machine)"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, words: Collection[str] = ()) -> str:
    """A Markdown table with aligned columns.

    The first column and those named in `words` are text, aligned left. The others are numbers, aligned right.
    """
    lines = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [column == 0 or name in words for column, name in enumerate(header)]
    rule = ["-" * width if text else f"{'-' * (width - 1)}:" for width, text in zip(widths, texts, strict=True)]
    aligned = [
        [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, texts, strict=True)
        ]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round. Both values of a round were measured under the same load."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def executor_for(spec: RunSpec, folder: StudyFolder, dataset: Dataset) -> RunExecutor:
    """The executor of a run in this process, as an actor would create it."""
    return RunExecutor(spec, shared_data(folder, dataset), test_inputs=lambda: None)


def shared_data(folder: StudyFolder, dataset: Dataset) -> SharedStudyData:
    return SharedStudyData(str(folder.path), dataset.without_test(), splits.read_csv(folder.path / "splits.csv"))


class TrialsOnly(Plan):
    """A plan without refits: the search ends after its trials."""

    def refits(self) -> list[RunSpec]:
        return []


@dataclass(frozen=True)
class Opened:
    """A study on disk that is ready to run."""

    folder: StudyFolder
    config: StudyConfig
    plan: TrialsOnly
    dataset: Dataset


def open_study(runs: Path, raw: Mapping[str, Any], *, storage: optuna.storages.BaseStorage | None = None) -> Opened:
    """Creates a study below `runs`. `raw`: a search config; `storage`: used in place of the study's SQLite file."""
    raw = {**raw, "search": {"replicates": 0, "confirm": None, **raw.get("search", {})}}
    (ready,) = checks.validate(raw, data=None, overrides={}, options=checks.Options(runs=runs))
    config, dataset = ready.config, ready.dataset
    name = directory.new_name(runs, None, config)
    folder = StudyFolder.create(
        runs, name, config, dataset, partitions_digest=partitions.partitions_digest(config, dataset), search_id=name
    )
    samples = splits.pool(dataset, str(config.run.validation.kind))
    splits.write_csv(folder.path / "splits.csv", samples.ids, partitions.partitions(config, dataset))
    return opened(folder, config, dataset, storage=storage)


def opened(
    folder: StudyFolder, config: StudyConfig, dataset: Dataset, *, storage: optuna.storages.BaseStorage | None = None
) -> Opened:
    """Opens the study of an existing folder. Config and data set must be those of the study."""
    trials = Trials(
        storage or folder.storage(),
        name=folder.described()["name"],
        settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)),
        space=config.space,
    )
    return Opened(folder, config, TrialsOnly(folder, config, trials), dataset)
