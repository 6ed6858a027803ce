"""A study driven by hand, without ray: the same coordinator and executor, in one process and one thread."""

import copy
from pathlib import Path
from typing import Any

from m3col.data.dataset import Dataset
from m3col.data.splits import pool, read_csv, write_csv
from m3col.metrics.spec import higher_is_better
from tune import checks, study_run
from tune.engine.run_executor import RunExecutor, SharedStudyData
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.optuna_study import Trials
from tune.scheduling.plan import NextRun, Plan
from tune.study import partitions
from tune.study.record import StudyFolder
from tune.study.run_spec import RunSpec

SMALL: dict[str, Any] = {
    "base": "digits",
    "overrides": {
        "model.embedding_dim": 8, "model.classifier_dim": 8, "train.epochs": 10, "train.learning_rate": 0.01,
        "checkpoint.every_s": 0.0,
    },
    "space": {
        "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
        "train.learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
    },
    "validation": {"kind": "kfold", "folds": 2},
    "search": {"trials": 6, "replicates": 1, "confirm": {"top": 1, "seeds": 1}},
    "final": {"seeds": 2, "draws": 100, "baselines": ["linear"]},
}  # fmt: skip

# Two trials and one refit of each row.
BRIEF: dict[str, Any] = {
    "search__trials": 2, "search__confirm": None, "search__replicates": 0, "search__pruner": "none", "final__seeds": 1,
}  # fmt: skip


def small(**changes: Any) -> dict[str, Any]:
    from m3col.config.loading import join

    return join(copy.deepcopy(SMALL), {key.replace("__", "."): value for key, value in changes.items()})


def prepare_study(
    runs: Path, config: dict[str, Any], *, data: Any = None, name: str = "study"
) -> tuple[StudyFolder, checks.CheckedStudy]:
    """The study's folder, made where it is not there yet, and its config with its data."""
    ready = checks.validate(config, data=data, overrides={}, options=checks.Options(runs=runs))[0]
    folder = StudyFolder(runs / name)
    if not (folder.path / "study.json").exists():
        folder = study_run.create(ready, runs, name, "test")
    if not (folder.path / "splits.csv").exists():
        samples = pool(ready.dataset, str(ready.config.run.validation.kind))
        write_csv(folder.path / "splits.csv", samples.ids, partitions.partitions(ready.config, ready.dataset))
    return folder, ready


def coordinator(folder: StudyFolder, ready: checks.CheckedStudy, *, concurrency: int = 1, **named: Any) -> Coordinator:
    config = ready.config
    trials = Trials(
        folder.storage(), name=folder.database_name(), settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)), space=config.space,
    )  # fmt: skip
    return Coordinator(Plan(folder, config, trials), concurrency=concurrency, **named)


def trials_alone(found: Coordinator) -> Coordinator:
    """The same, ending with the last trial: refits are for tests that look at their results."""
    found.plan.refits = list  # type: ignore[method-assign]
    return found


def work(
    folder: StudyFolder, spec: RunSpec, dataset: Dataset, *, test_inputs: Any = None, uri: str | None = None,
    executor: type[RunExecutor] = RunExecutor,
) -> RunExecutor:  # fmt: skip
    """What an actor does when it is given a run. `uri`: of the study in its storage."""
    folds = read_csv(folder.path / "splits.csv")
    return executor(
        spec,
        SharedStudyData(str(folder.path), dataset, folds, uri=uri, patience_s=5.0),
        test_inputs=lambda: test_inputs,
    )


def drive(
    found: Coordinator, dataset: Dataset, *, executor: type[RunExecutor] = RunExecutor, uri: str | None = None
) -> None:
    """Runs the plan to its end, one run at a time."""
    inputs = None if dataset.test is None else dataset.test.inputs
    while True:
        spec = found.next()
        if spec is NextRun.DONE:
            return
        assert not isinstance(spec, NextRun), "with one run at a time there is always something to do"
        running = work(found.folder, spec, dataset.without_test(), test_inputs=inputs, uri=uri, executor=executor)
        while True:
            report = running.step()
            if found.on_report(report) or report.done:
                break


def trial_rows(folder: StudyFolder, ready: checks.CheckedStudy) -> list[tuple[Any, ...]]:
    """What the search found, without numbers that a crash may skip and without times."""
    found = coordinator(folder, ready).trials
    return [(t.state.name, dict(t.params), t.value, dict(t.intermediate_values)) for t in found.all()]


def values(folder: StudyFolder) -> dict[str, Any]:
    """Result of every run other than trials, without times."""
    rows = {}
    for name, run in folder.runs():
        outcome = run.outcome()
        if not name.startswith("trials/") and outcome is not None:
            rows[name] = (outcome.state, outcome.value, outcome.metrics)
    return rows
