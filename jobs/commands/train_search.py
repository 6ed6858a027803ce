"""`m3col train` and `m3col search`."""

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from jobs.terminal.console import as_table, config_and_words, console, parse_overrides, print_metrics, refuse, runs_of
from jobs.terminal.streams import lasting_output
from m3col.errors import InputError
from m3col.runtime import phases
from m3col.storage.redaction import redacted, scrubbed
from tune import checks

if TYPE_CHECKING:
    from tune.checks import CheckedStudy
    from tune.engine.early_start import EarlyStart
    from tune.scheduling.coordinator import Coordinator
    from tune.study.record import StudyFolder


def train(arguments: argparse.Namespace) -> int:
    import m3col
    import tune
    from jobs.terminal.interrupt import claim, on_interrupt
    from m3col import api
    from m3col.training.history import Record

    config, words = config_and_words(arguments)
    if config is None and arguments.resume is None:
        raise InputError(["train: name a config, such as `m3col train digits`, or resume a run with --resume FOLDER"])
    overrides, faults = parse_overrides(words, arguments.data_dir)
    faults += _worker_faults(arguments)
    runs, resume = runs_of(arguments), arguments.resume
    if resume is not None and arguments.runs_dir is None and resume.absolute().parent.name == "train":
        runs = resume.absolute().parents[1]
    refuse(faults, lambda: api.validate(config or "digits", overrides=overrides, runs=runs))
    latest: dict[str, Path] = {}

    def farewell() -> str:
        # With several workers, `report` is called a moment after an epoch is stored; so the folder is read.
        if "folder" not in latest or not api.records_of(latest["folder"]):
            return "Interrupted before the first epoch ended."
        resume_words = ["--resume", str(latest["folder"])]
        options_given = {
            "--workers": arguments.workers, "--cpus-per-worker": arguments.cpus_per_worker,
            "--gpus-per-worker": arguments.gpus_per_worker, "--address": arguments.address,
        }  # fmt: skip
        for name, value in options_given.items():
            resume_words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else str(value)]
        return f"Interrupted. Resume with: m3col train {shlex.join(resume_words)}"

    on_interrupt(farewell)

    def started(folder: Path) -> None:
        claim()
        latest["folder"] = folder

    def report(record: Record, epochs: int, folder: Path) -> None:
        latest["folder"] = folder
        if record.epoch % max(1, epochs // 10) == 0 or record.epoch == epochs:
            value = "" if record.value is None else f"  value {record.value:.4f}"
            print(f"epoch {record.epoch}/{epochs}  loss {record.metrics['train/loss']:.4f}{value}", flush=True)

    common: dict[str, Any] = {
        "overrides": overrides, "runs": runs, "tracking_uri": arguments.tracking_uri, "resume": resume,
        "report": report,
    }  # fmt: skip
    with lasting_output():
        if (arguments.workers or 1) > 1:
            result = tune.train(
                config or "digits", workers=arguments.workers, cpus_per_worker=arguments.cpus_per_worker,
                gpus_per_worker=arguments.gpus_per_worker, address=arguments.address, started=started, **common,
            )  # fmt: skip
        else:
            result = m3col.train(config or "digits", **common)
        print_metrics(result.metrics)
        for reason, count in result.dropped.items():
            print(f"left out of the data: {count} ({reason})")
        print(f"checkpoint {result.checkpoint}")
    return 0


def _worker_faults(arguments: argparse.Namespace) -> list[str]:
    faults = []
    if arguments.workers is not None and arguments.workers < 1:
        faults.append(f"--workers {arguments.workers}: must be >= 1; nearest valid: 1")
    if arguments.address is not None and (arguments.workers or 1) < 2:
        faults.append("--address: a single worker trains in this process; give --workers 2 or more, or leave it out")
    cpus, gpus = arguments.cpus_per_worker, arguments.gpus_per_worker
    if cpus is not None and not 0 < cpus < math.inf:
        faults.append(f"--cpus-per-worker {cpus:g}: must be > 0; nearest valid: 1")
    elif cpus is not None and (arguments.workers or 1) < 2:
        faults.append(f"--cpus-per-worker {cpus:g}: is for several workers; set resources.threads, or leave it out")
    if gpus is not None and not 0 <= gpus < math.inf:
        faults.append(f"--gpus-per-worker {gpus:g}: must be >= 0; nearest valid: 0")
    elif gpus and (arguments.workers or 1) < 2:
        faults.append(f"--gpus-per-worker {gpus:g}: is for several workers; nearest valid: 0")
    return faults


def search(arguments: argparse.Namespace) -> int:
    from tune.engine.early_start import EarlyStart

    config, words, resume = _search_arguments(arguments)
    overrides, faults = parse_overrides(words, arguments.data_dir)
    runs = runs_of(arguments)
    options = checks.Options(name=arguments.name, resume=resume, runs=runs, address=arguments.address)
    refuse(faults, lambda: checks.validate(config, data=None, overrides=overrides, options=options))
    with EarlyStart(arguments.address, None) as cluster:
        options = dataclasses.replace(options, parsed=cluster.begin)
        ready = checks.validate(config, data=None, overrides=overrides, options=options)
        phases.ended("data checked")
        return _search(arguments, config, words, ready=ready, options=options, cluster=cluster)


def _search(
    arguments: argparse.Namespace, config: str | None, words: Sequence[str], *, ready: "Sequence[CheckedStudy]",
    options: checks.Options, cluster: "EarlyStart",
) -> int:  # fmt: skip
    """Runs the studies of `m3col search`, which have been checked, and prints their results."""
    from jobs.terminal import interrupt
    from jobs.terminal.progress import Progress
    from tune import api
    from tune.scheduling.coordinator import STOPS

    phases.ended("modules imported")
    with lasting_output():
        progress = Progress(force_plain=arguments.plain)

    def resume_hint() -> str:
        assert progress.folder is not None, "a study has been created"
        # One study is resumed by its name, several by the command that started them.
        resume_words = (
            [config, *words, "--resume"] if config and len(ready) > 1 else ["--resume", progress.folder.resume_name]
        )
        return f"Nothing that was finished is lost; resume with:\n  {_command('search', resume_words, arguments)}"

    def farewell() -> str:
        if progress.folder is None:
            return "Interrupted before the search began; nothing was written."
        return f"Interrupted. {resume_hint()}"

    def started(folder: "StudyFolder", coordinator: "Coordinator") -> None:
        interrupt.claim()
        progress.started(folder, coordinator)

    def warn(line: str) -> None:
        sys.stderr.write(f"warning: {scrubbed(line)}\n")

    interrupt.on_interrupt(farewell)
    run_options = dataclasses.replace(
        options, tracking_uri=arguments.tracking_uri, observe=progress.observe, on_study=progress.on_study,
        started=started, warn=warn,
    )  # fmt: skip
    try:
        with lasting_output(), progress:
            result = api.run_checked(ready, run_options, cluster)
    except STOPS as error:
        if progress.folder is None:
            raise
        sys.stderr.write(f"failed: {scrubbed(str(error))}\n{resume_hint()}\n")
        return 1
    with lasting_output():
        _print_results(result)
    phases.ended("result printed")
    return 0


def _search_arguments(arguments: argparse.Namespace) -> tuple[str | None, list[str], bool | str]:
    """Config, overrides and resume of a search. Raises InputError if neither a config nor a study is named."""
    from tune.study.directory import AUTO

    config, words = config_and_words(arguments)
    resume = arguments.resume or False
    if isinstance(resume, str) and "=" in resume:  # `--resume trials=80`: the word belongs to the overrides
        words, resume = [resume, *words], True
    if config is None and (resume == AUTO or not isinstance(resume, str)):
        raise InputError(["search: name a config, such as `m3col search digits`, or resume a study with --resume NAME"])
    return config, words, resume


def _command(name: str, words: Sequence[str], arguments: argparse.Namespace) -> str:
    """A command line with the options of this call, without passwords."""
    options = {"--runs-dir": arguments.runs_dir, "--tracking-uri": arguments.tracking_uri}
    options |= {"--address": arguments.address, "--data-dir": arguments.data_dir}
    options_given = [part for option, value in options.items() if value for part in (option, str(value))]
    return f"m3col {shlex.join(redacted(word) for word in (name, *words, *options_given))}"


def _print_results(result: Any) -> None:
    screen = console()
    # The tables of the other metrics stay in the file: on a terminal they would scroll the result away.
    folders = result.trees or result.studies
    summaries = [(folder / "results/summary.md").read_text(encoding="utf-8") for folder in folders]
    text = "\n\n".join(part.partition("\n## Other metrics")[0].rstrip() for part in summaries)
    screen.print(Markdown(text) if screen.is_terminal else text, soft_wrap=True)
    if result.leaderboard is not None:
        screen.print(as_table(result.leaderboard), soft_wrap=True)
    for folder in folders:
        screen.print(f"results {folder / 'results'}", soft_wrap=True)
    screen.print("browse  m3col ui", soft_wrap=True)
