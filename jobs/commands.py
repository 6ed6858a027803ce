"""What each command does: arguments to a call of m3col or tune, and its answer to text."""

import argparse
import csv
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from m3col import config as run_config
from m3col import data as datasets
from m3col.faults import BadInput, nearest


def _overrides(words: Sequence[str], data_dir: Path | None) -> dict[str, Any]:
    """`key=value` words as overrides; all that do not have that form in one BadInput."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for word in words:
        try:
            key, value = run_config.parse_override(word)
        except BadInput as error:
            faults += error.faults
        else:
            found[key] = value
    if faults:
        raise BadInput(faults)
    if data_dir is not None:
        found["data.dir"] = str(data_dir.absolute())
    return found


def _config_and_words(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The first word is the config unless it has the form of an override."""
    words = list(arguments.overrides)
    if arguments.config is not None and "=" in arguments.config:
        return None, [arguments.config, *words]
    return arguments.config, words


def _runs(arguments: argparse.Namespace) -> Path:
    from tune.study import runs_folder

    return runs_folder(arguments.runs_dir)


def train(arguments: argparse.Namespace) -> int:
    import m3col
    from jobs.interrupt import on_interrupt
    from m3col.training import Record

    config, words = _config_and_words(arguments)
    if config is None and arguments.resume is None:
        raise BadInput(["train: name a config, such as `m3col train digits`, or go on with --resume FOLDER"])
    place: dict[str, Path] = {}
    on_interrupt(lambda: f"Interrupted. Go on with: m3col train --resume {place.get('folder', 'FOLDER')}")

    def report(record: Record, epochs: int, folder: Path) -> None:
        place["folder"] = folder
        if record.epoch % max(1, epochs // 10) == 0 or record.epoch == epochs:
            value = "" if record.value is None else f"  value {record.value:.4f}"
            print(f"epoch {record.epoch}/{epochs}  loss {record.metrics['train/loss']:.4f}{value}", flush=True)

    result = m3col.train(
        config or "digits",
        overrides=_overrides(words, arguments.data_dir),
        runs=_runs(arguments),
        tracking_uri=arguments.tracking_uri,
        resume=arguments.resume,
        report=report,
    )
    _print_metrics(result.metrics)
    print(f"checkpoint {result.checkpoint}")
    return 0


def _print_metrics(metrics: dict[str, float]) -> None:
    table = Table("metric", "value")
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        if name.startswith(("val/", "test/")):
            table.add_row(name, f"{value:.4f}")
    if table.row_count:
        Console().print(table)


def search(arguments: argparse.Namespace) -> int:
    import tune
    from jobs.interrupt import on_interrupt
    from jobs.live import Progress

    config, words = _config_and_words(arguments)
    resume = arguments.resume or False
    if isinstance(resume, str) and "=" in resume:  # `--resume trials=80`: the word belongs to the overrides
        words, resume = [resume, *words], True
    if config is None and not isinstance(resume, str):
        raise BadInput(["search: name a config, such as `m3col search digits`, or go on with --resume NAME"])
    progress = Progress(force_plain=arguments.plain)

    def farewell() -> str:
        if progress.folder is None:
            return "Interrupted before the search began; nothing was written."
        extra = f" --runs-dir {shlex.quote(str(progress.folder.path.parent))}" if arguments.runs_dir else ""
        return (
            f"Interrupted. Nothing that was finished is lost; go on with:\n"
            f"  m3col search --resume {shlex.quote(progress.folder.name)}{extra}"
        )

    on_interrupt(farewell)
    with progress:
        result = tune.search(
            config,
            overrides=_overrides(words, arguments.data_dir),
            name=arguments.name,
            resume=resume,
            runs=_runs(arguments),
            tracking_uri=arguments.tracking_uri,
            address=arguments.address,
            observe=progress.observe,
            started=progress.started,
            warn=lambda line: sys.stderr.write(f"warning: {line}\n"),
        )
    _print_results(result)
    return 0


def _print_results(result: Any) -> None:
    console = Console()
    console.print(Markdown(result.summary) if console.is_terminal else result.summary, soft_wrap=True)
    if result.leaderboard is not None:
        console.print(_as_table(result.leaderboard), soft_wrap=True)
    for folder in result.studies:
        console.print(f"results {folder / 'results'}", soft_wrap=True)
    console.print("browse  m3col ui", soft_wrap=True)


def _as_table(frame: Any) -> Table:
    table = Table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return table


def report(arguments: argparse.Namespace) -> int:
    from tune import report as reports
    from tune import study

    folder = study.find(_runs(arguments), arguments.study)
    console = Console()
    summary = reports.write(folder).summary
    console.print(Markdown(summary) if console.is_terminal else summary, soft_wrap=True)
    console.print(f"results {folder.results}", soft_wrap=True)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    import m3col
    from m3col import ledger, metrics

    predictor = m3col.load(arguments.checkpoint)
    name = arguments.data or predictor.config["data"]["name"]
    dataset = datasets.load(name, data_dir=arguments.data_dir, modalities=list(predictor.modalities))
    if dataset.test is None or dataset.test.labels is None:
        raise BadInput([f"{name}: has no labelled test split to evaluate on"])
    if tuple(dataset.classes) != predictor.classes:
        raise BadInput([f"{name}: has the classes {dataset.classes}, but the checkpoint has {predictor.classes}"])
    inputs = dataset.test.inputs
    found = metrics.compute(dataset.test.labels, predictor.predict_proba(inputs))
    by = f"evaluate/{'+'.join(str(Path(folder).absolute()) for folder in arguments.checkpoint)}"
    runs = _runs(argparse.Namespace(runs_dir=None))
    ledger.add(runs, dataset=name, digest=dataset.digests()["test"], by=by, rows=1)
    _print_metrics({f"test/{key}": value for key, value in found.items()})
    return 0


def predict(arguments: argparse.Namespace) -> int:
    import m3col
    from m3col.data.textfile import read_matrix

    predictor = m3col.load(arguments.checkpoint)
    faults: list[str] = []
    inputs: dict[str, np.ndarray] = {}
    for word in arguments.inputs:
        name, sign, file = word.partition("=")
        if not sign or name not in predictor.modalities:
            faults.append(f"{word!r}: must have the form modality=file.csv{nearest(name, predictor.modalities)}")
            continue
        matrix = read_matrix(Path(file), faults)
        if matrix is not None:
            inputs[name] = matrix
    if faults:
        raise BadInput(faults)
    votes = predictor.votes(inputs)
    header = ["row", "label", *(f"p({name})" for name in predictor.classes)]
    header += [f"vote({name})" for name in votes if name != "fused"]
    classes = np.asarray(predictor.classes)
    rows = [
        [row + 1, classes[p.argmax()], *(f"{value:.6g}" for value in p)]
        + [classes[value[row].argmax()] for name, value in votes.items() if name != "fused"]
        for row, p in enumerate(votes["fused"])
    ]
    if arguments.out is None:
        csv.writer(sys.stdout).writerows([header, *rows])
        return 0
    with arguments.out.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    print(f"{len(rows)} predictions in {arguments.out}")
    return 0


def data(arguments: argparse.Namespace) -> int:
    return {"list": _data_list, "check": _data_check, "fetch": _data_fetch}[arguments.action](arguments)


def _data_list(arguments: argparse.Namespace) -> int:
    table = Table("name", "here", "modalities", "what it is")
    for name, entry in datasets.TABLE.items():
        try:
            place = "embedded" if entry.embedded else str(datasets.locate(name, data_dir=arguments.data_dir))
        except BadInput:
            place = "-"
        table.add_row(name, place, ", ".join(entry.default or entry.modalities or ()), entry.description)
    Console().print(table)
    return 0


def _data_check(arguments: argparse.Namespace) -> int:
    from m3col.data.check import check

    found = check(arguments.folder)
    console = Console()
    for columns, rows in ((found.columns, found.rows), (found.class_columns, found.class_rows)):
        if rows:
            table = Table(*columns)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in found.warnings:
        console.print(f"warning: {line}", soft_wrap=True, markup=False)
    sys.stderr.write("".join(f"error: {line}\n" for line in found.faults))
    if found.ok:
        console.print("ok: this folder can be used", soft_wrap=True)
    return 0 if found.ok else 2


def _data_fetch(arguments: argparse.Namespace) -> int:
    import warnings

    from m3col.data import fetch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        place = fetch.fetch(arguments.name, arguments.to, base_url=arguments.base_url or fetch.DEFAULT)
    for item in caught:
        sys.stderr.write(f"warning: {item.message}\n")
    print(f"{arguments.name} is in {place}")
    return 0


def ui(arguments: argparse.Namespace) -> int:
    from jobs.ui import serve

    return serve(
        _runs(arguments), uri=arguments.tracking_uri, port=arguments.port, open_browser=not arguments.no_browser
    )


def sync(arguments: argparse.Namespace) -> int:
    from m3col import tracking
    from tune import study
    from tune import sync as syncing

    runs = _runs(arguments)
    tracker = tracking.connect(arguments.tracking_uri, runs)
    if tracker is None:
        raise BadInput(["--tracking-uri none: there is nothing to write to"])
    folders = [study.find(runs, name) for name in arguments.study] or list(study.all_studies(runs))
    for folder in folders:
        syncing.sync(folder, tracker)
        print(f"{folder.name} is in {tracker.uri}")
    return 0


def runs(arguments: argparse.Namespace) -> int:
    folder = _runs(arguments)
    return _runs_list(folder) if arguments.action == "list" else _runs_remove(folder, arguments)


def _runs_list(folder: Path) -> int:
    from tune import study

    table = Table("name", "kind", "state", "data", "method", "runs", "MB")
    for item in study.all_studies(folder):
        described = item.described()
        count = sum(1 for _ in item.runs())
        state = "finished" if item.finished() else "unfinished"
        table.add_row(item.name, "study", state, described["dataset"]["name"], described["config"]["run"]["method"],
                      str(count), f"{_megabytes(item.path):.1f}")  # fmt: skip
    for path in sorted(folder.glob("train/*/config.yaml")):
        state = "finished" if (path.parent / "metrics.json").exists() else "unfinished"
        run = run_config.load(path)
        table.add_row(f"train/{path.parent.name}", "training", state, run.data.name, run.method, "1",
                      f"{_megabytes(path.parent):.1f}")  # fmt: skip
    Console().print(table if table.row_count else f"no runs in {folder}")
    return 0


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _runs_remove(folder: Path, arguments: argparse.Namespace) -> int:
    from tune import study

    if not arguments.name:
        raise BadInput(["runs rm: name what to remove; `m3col runs list` shows it"])
    faults = []
    targets: list[Path] = []
    for name in arguments.name:
        path = (folder / name).resolve()
        known = (path / study.DESCRIPTION).exists() or (path.parent == (folder / "train").resolve())
        if folder.resolve() not in path.parents or not known or not path.is_dir():
            choices = [item.name for item in study.all_studies(folder)]
            choices += [f"train/{item.name}" for item in folder.glob("train/*")]
            faults.append(f"runs rm: {name!r} is not a study or training run in {folder}{nearest(name, choices)}")
        else:
            targets.append(path)
    if faults:
        raise BadInput(faults)
    for path in targets:
        if not arguments.yes:
            answer = input(f"remove {path} ({_megabytes(path):.1f} MB)? [y/N] ")
            if answer.strip().lower() not in ("y", "yes"):
                continue
        if (path / study.DESCRIPTION).exists():
            study.StudyFolder(path).lock()
        shutil.rmtree(path)
        print(f"removed {path}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": train,
    "search": search,
    "report": report,
    "evaluate": evaluate,
    "predict": predict,
    "data": data,
    "ui": ui,
    "sync": sync,
    "runs": runs,
}
