"""What each command does: arguments to a call of m3col or tune, and its answer to text."""

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from m3col import config as run_config
from m3col import data as datasets
from m3col import files
from m3col.faults import BadInput, nearest

if TYPE_CHECKING:
    from tune.conductor import Conductor
    from tune.study import StudyFolder


def _overrides(words: Sequence[str], data_dir: Path | None) -> tuple[dict[str, Any], list[str]]:
    """`key=value` words as overrides, and the faults of those that do not have that form."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for word in words:
        try:
            key, value = run_config.parse_override(word)
        except BadInput as error:
            faults += error.faults
        else:
            found[key] = value
    if data_dir is not None:
        found["data.dir"] = str(data_dir.absolute())
    return found, faults


def _refuse(faults: Sequence[str], judge: Callable[[], object]) -> None:
    """Raises BadInput with `faults`, if there are any, and with what `judge` has to say beside them."""
    if not faults:
        return
    more: Sequence[str] = ()
    try:
        judge()
    except BadInput as error:
        more = error.faults
    raise BadInput([*faults, *more])


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
    from m3col import api
    from m3col.training import Record

    config, words = _config_and_words(arguments)
    if config is None and arguments.resume is None:
        raise BadInput(["train: name a config, such as `m3col train digits`, or go on with --resume FOLDER"])
    overrides, faults = _overrides(words, arguments.data_dir)
    runs, resume = _runs(arguments), arguments.resume
    if resume is not None and arguments.runs_dir is None and resume.absolute().parent.name == "train":
        runs = resume.absolute().parents[1]
    _refuse(faults, lambda: api.judge(config or "digits", overrides=overrides, runs=runs))
    place: dict[str, Path] = {}

    def farewell() -> str:
        if "folder" not in place:
            return "Interrupted before the first epoch was through."
        return f"Interrupted. Go on with: m3col train --resume {shlex.quote(str(place['folder']))}"

    on_interrupt(farewell)

    def report(record: Record, epochs: int, folder: Path) -> None:
        place["folder"] = folder
        if record.epoch % max(1, epochs // 10) == 0 or record.epoch == epochs:
            value = "" if record.value is None else f"  value {record.value:.4f}"
            print(f"epoch {record.epoch}/{epochs}  loss {record.metrics['train/loss']:.4f}{value}", flush=True)

    result = m3col.train(
        config or "digits",
        overrides=overrides,
        runs=runs,
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
    from jobs import interrupt
    from jobs.live import Progress
    from tune import api

    config, words = _config_and_words(arguments)
    resume = arguments.resume or False
    if isinstance(resume, str) and "=" in resume:  # `--resume trials=80`: the word belongs to the overrides
        words, resume = [resume, *words], True
    if config is None and not isinstance(resume, str):
        raise BadInput(["search: name a config, such as `m3col search digits`, or go on with --resume NAME"])
    overrides, faults = _overrides(words, arguments.data_dir)
    runs = _runs(arguments)
    options = api.Options(name=arguments.name, resume=resume, runs=runs)
    _refuse(faults, lambda: api.judge(config, data=None, overrides=overrides, options=options))
    several = len(api.judge(config, data=None, overrides=overrides, options=options)) > 1
    progress = Progress(force_plain=arguments.plain)

    def farewell() -> str:
        if progress.folder is None:
            return "Interrupted before the search began; nothing was written."
        # One study is resumed by its name; several, as the command that began them.
        again = [config, *words, "--resume"] if config and several else ["--resume", progress.folder.name]
        options = {"--runs-dir": arguments.runs_dir, "--tracking-uri": arguments.tracking_uri}
        options |= {"--address": arguments.address, "--data-dir": arguments.data_dir}
        for name, value in options.items():
            again += [name, str(value)] if value else []
        return f"Interrupted. Nothing that was finished is lost; go on with:\n  m3col search {shlex.join(again)}"

    def started(folder: "StudyFolder", conductor: "Conductor") -> None:
        interrupt.claim()
        progress.started(folder, conductor)

    interrupt.on_interrupt(farewell)
    with progress:
        result = tune.search(
            config,
            overrides=overrides,
            name=arguments.name,
            resume=resume,
            runs=runs,
            tracking_uri=arguments.tracking_uri,
            address=arguments.address,
            observe=progress.observe,
            started=started,
            warn=lambda line: sys.stderr.write(f"warning: {line}\n"),
        )
    _print_results(result)
    return 0


def _print_results(result: Any) -> None:
    console = Console()
    # The tables of the other metrics stay in the file: on a terminal they would push the answer off the screen.
    summaries = [(folder / "results/summary.md").read_text(encoding="utf-8") for folder in result.studies]
    text = "\n\n".join(part.partition("\n## Other metrics")[0].rstrip() for part in summaries)
    console.print(Markdown(text) if console.is_terminal else text, soft_wrap=True, markup=False)
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
    folder.lock()
    try:
        summary = reports.write(folder).summary
    finally:
        folder.unlock()
    console.print(Markdown(summary) if console.is_terminal else summary, soft_wrap=True)
    console.print(f"results {folder.results}", soft_wrap=True)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    import m3col
    from m3col import ledger, metrics
    from m3col.prepare import disk_faults

    predictor = m3col.load(arguments.checkpoint)
    name = arguments.data or predictor.config["data"]["name"]
    if name == run_config.IN_MEMORY:
        raise BadInput(["evaluate: the checkpoint was trained on arrays in memory; name a data set with --data"])
    trained_on = None if arguments.data else predictor.config["data"].get("dir")
    folder = arguments.data_dir or (Path(trained_on) if trained_on else None)
    dataset = datasets.load(name, data_dir=folder, modalities=list(predictor.modalities))
    faults = disk_faults(_runs(arguments), 0, what="the ledger")
    if dataset.test is None or dataset.test.labels is None:
        faults.append(f"{name}: has no labelled test split to evaluate on")
    if dataset.classes != predictor.classes:
        faults.append(f"{name}: has the classes {dataset.classes}, but the checkpoint has {predictor.classes}")
    faults += [
        f"{name}: the features of {modality!r} are not those that the checkpoint was trained on"
        for modality, features in predictor.features.items()
        if dataset.features[modality] != features
    ]
    if faults or dataset.test is None or dataset.test.labels is None:
        raise BadInput(faults)
    found = metrics.compute(dataset.test.labels, predictor.predict_proba(dataset.test.inputs))
    by = f"evaluate/{'+'.join(str(Path(folder).absolute()) for folder in arguments.checkpoint)}"
    ledger.add(_runs(arguments), dataset=name, digest=dataset.digests()["test"], by=by, rows=1)
    _print_metrics({f"test/{key}": value for key, value in found.items()})
    return 0


def predict(arguments: argparse.Namespace) -> int:
    import m3col

    predictor = m3col.load(arguments.checkpoint)
    inputs = _read_inputs(arguments, predictor.modalities)
    votes = predictor.votes(inputs)
    header = ["row", "label", *(f"p({name})" for name in predictor.classes)]
    header += [f"vote({name})" for name in votes if name != "fused"]
    classes = np.asarray(predictor.classes)
    rows = [
        [row + 1, classes[p.argmax()], *(f"{value:.6g}" for value in p)]
        + [classes[value[row].argmax()] for name, value in votes.items() if name != "fused"]
        for row, p in enumerate(votes["fused"])
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if arguments.out is None:
        sys.stdout.write(text.getvalue())
        return 0
    files.write_text(arguments.out, text.getvalue())
    print(f"{len(rows)} predictions in {arguments.out}")
    return 0


def _read_inputs(arguments: argparse.Namespace, modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """The files of `modality=file.csv` words. Raises BadInput with every fault of words, files and --out."""
    from m3col.data.textfile import read_matrix

    faults: list[str] = []
    inputs: dict[str, np.ndarray] = {}
    named: list[str] = []
    for word in arguments.inputs:
        name, sign, file = word.partition("=")
        if not sign or name not in modalities:
            faults.append(f"{word!r}: must have the form modality=file.csv{nearest(name, modalities)}")
            continue
        if name in named:
            faults.append(f"{word!r}: modality {name!r} is given twice")
        named.append(name)
        matrix = read_matrix(Path(file), faults)
        if matrix is not None:
            inputs[name] = matrix
    faults += [f"modality {name!r} is missing; add {name}=file.csv" for name in modalities if name not in named]
    if arguments.out is not None and not arguments.out.absolute().parent.is_dir():
        faults.append(f"--out {arguments.out}: {arguments.out.absolute().parent} is not a folder")
    if arguments.out is not None and arguments.out.is_dir():
        faults.append(f"--out {arguments.out}: is a folder; name a file in it, such as {arguments.out / 'labels.csv'}")
    if faults:
        raise BadInput(faults)
    return inputs


def data(arguments: argparse.Namespace) -> int:
    return {"list": _data_list, "check": _data_check, "fetch": _data_fetch}[arguments.action](arguments)


def _data_list(arguments: argparse.Namespace) -> int:
    from m3col.data import mogonet

    table = Table("name", "here", "modalities", "what it is")
    for name, entry in datasets.TABLE.items():
        try:
            folder = None if entry.embedded else datasets.locate(name, data_dir=arguments.data_dir)
            place = "embedded" if folder is None else str(folder) if mogonet.looks_like(folder) else "-"
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


def _studies(runs: Path, names: Sequence[str]) -> "tuple[list[StudyFolder], list[str]]":
    """The named studies (all of them where none is named), and a fault for each that is not there."""
    from tune import study

    if not names:
        return list(study.all_studies(runs)), []
    found: list[StudyFolder] = []
    faults: list[str] = []
    for name in names:
        try:
            found.append(study.find(runs, name))
        except BadInput as error:
            faults += error.faults
    return found, faults


def sync(arguments: argparse.Namespace) -> int:
    from m3col import tracking
    from tune import sync as syncing

    runs = _runs(arguments)
    folders, faults = _studies(runs, arguments.study)
    if arguments.tracking_uri == tracking.OFF:
        faults.append("--tracking-uri none: there is nothing to write to")
    if faults:
        raise BadInput(faults)
    tracker = tracking.connect(arguments.tracking_uri, runs)
    if tracker is None:
        raise BadInput(["MLFLOW_TRACKING_URI is none: there is nothing to write to; give --tracking-uri"])
    for folder in folders:
        try:
            folder.lock()  # the driver of a running search writes to MLflow itself
        except BadInput as error:
            if arguments.study:
                raise
            print(f"left out: {error}")
            continue
        try:
            syncing.sync(folder, tracker)
        finally:
            folder.unlock()
        print(f"{folder.name} is in {tracker.uri}")
    return 0


def runs(arguments: argparse.Namespace) -> int:
    from jobs import housekeeping

    folder = _runs(arguments)
    if arguments.action == "list":
        return housekeeping.list_runs(folder)
    return housekeeping.remove_runs(folder, arguments.name, ask=not arguments.yes)


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
