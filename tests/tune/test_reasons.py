"""Why a search has no winner, and which value to change, in the message itself: of a search, a resume and a report."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from m3col.data import loading
from m3col.data.dataset import Dataset
from m3col.runtime import notices
from tests.support.driving import coordinator, prepare_study, small
from tune import checks, errors, study_run
from tune.results import failure_reasons, report
from tune.results.study_results import StudyResults
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.plan import Plan
from tune.study.record import StudyFolder
from tune.study.remote_copy import RemoteCopy
from tune.study.run_name import RunName


def _study(runs: Path, **changes: Any) -> tuple[StudyFolder, Coordinator]:
    settings = {"search__trials": 3, "search__replicates": 0, "search__confirm": None, **changes}
    folder, ready = prepare_study(runs, small(**settings))
    return folder, coordinator(folder, ready, concurrency=3)


def _begin(found: Coordinator, *, epochs: int, seconds: float = 1.0) -> str:
    """Starts the next trial and lets it reach an epoch; the seconds are those of its epochs together."""
    spec: Any = found.next()
    run = found.folder.run(spec.name)
    began = (run.path / "config.yaml").stat().st_mtime
    run.append(
        [{"epoch": n, "time": began + seconds * n / epochs, "value": 0.5, "metrics": {}} for n in range(1, epochs + 1)],
        restart=False,
    )
    return str(spec.name)


def _fail(found: Coordinator, *reasons: str) -> None:
    for reason in reasons:
        found.failed(_begin(found, epochs=1), reason)


def _prune(found: Coordinator, count: int) -> None:
    for _ in range(count):
        name = _begin(found, epochs=4)
        found._record_pruned(RunName.parse(name))
        found._end(name, "pruned")


def _spend(found: Coordinator, seconds: float) -> None:
    found.trials.add_seconds(seconds)


def _budget(found: Coordinator) -> None:
    _begin(found, epochs=2, seconds=4.0)
    _begin(found, epochs=1, seconds=4.0)
    _spend(found, 5.0)


def _budget_at_once(found: Coordinator) -> None:
    found.next()
    _spend(found, 5.0)


def _budget_and_failure(found: Coordinator) -> None:
    _fail(found, "val/loss is nan in epoch 2")
    _budget(found)


NAN = "the training loss became nan in epoch {} (fold 0)"
CASES: dict[str, tuple[dict[str, Any], Callable[[Coordinator], None], list[str]]] = {
    "budget": (
        {"search__time_budget_s": 5.0}, _budget,
        ["search.time_budget_s is 5", "trial 0, had reached epoch 2 of 10 after 4.0 s", "takes about 20 s",
         "`m3col search --resume study search.time_budget_s=30`", "(90 for all 3"],
    ),
    "budget before the first epoch": (
        {"search__time_budget_s": 0.5}, _budget_at_once,
        ["search.time_budget_s is 0.5", "1 trial had begun", "no epoch was through after 5.0 s", "time_budget_s=50`"],
    ),
    "budget before the first trial": (
        {"search__time_budget_s": 2.0}, lambda found: _spend(found, 2.5), ["time_budget_s is 2", "after 2.5 s"],
    ),
    "budget and a failure": (
        {"search__time_budget_s": 5.0}, _budget_and_failure,
        ["search.time_budget_s is 5", "1 of 3 trials failed, with: val/loss is nan in epoch 2"],
    ),
    "all failed alike": (
        {}, lambda found: _fail(found, *(NAN.format(n) for n in (1, 2, 7))),
        ["all 3 trials failed, with: the training loss became nan in epoch 1", "study/trials/0/log.txt",
         "a lower train.learning_rate", "`m3col search --resume study search.trials=6`"],
    ),
    "most failed alike": (
        {}, lambda found: _fail(found, "CUDA out of memory", NAN.format(4), NAN.format(9)),
        ["all 3 trials failed, 2 of them with: the training loss became nan in epoch 4", "trials/1/log.txt"],
    ),
    "memory": (
        {}, lambda found: _fail(found, "its process died 6 times", "x", "its process died 6 times"),
        ["2 of them with: its process died", "a smaller train.batch_size"],
    ),
    "failed and pruned": (
        {}, lambda found: (_fail(found, "a bad file"), _prune(found, 2))[0],
        ["1 of 3 trials failed, with: a bad file", "2 of 3 trials were pruned", "search.pruner is 'asha'",
         "search.pruner=none"],
    ),
    "unfinished": ({}, lambda found: (_begin(found, epochs=3), None)[1], ["1 of 1 trial unfinished", "--resume study"]),
    "not begun": ({}, lambda found: None, ["0 of 0 trials unfinished"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message_says_why_and_which_value_to_change(tmp_path: Path, case: str) -> None:
    changes, happen, expected = CASES[case]
    folder, found = _study(tmp_path, **changes)
    happen(found)
    said = failure_reasons.no_winner(found.plan)
    assert said.startswith(f"{folder.path}: no trial finished: ") and "\n" not in said
    for words in expected:
        assert words in said, said


@pytest.mark.parametrize("case", ["budget", "all failed alike", "failed and pruned", "unfinished"])
def test_a_report_says_the_same_as_the_search_did(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, happen, expected = CASES[case]
    _, found = _study(tmp_path, **changes)
    happen(found)
    assert cli.main(["report", "study", "--runs-dir", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    for words in expected:
        assert words in told, told


def test_a_report_of_a_study_that_never_began_makes_no_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = prepare_study(tmp_path, small())
    assert cli.main(["report", "study", "--runs-dir", str(tmp_path)]) == 2
    assert "the study is not finished" in capsys.readouterr().err
    assert {path.name for path in folder.path.iterdir()} <= {"lock", "results", "splits.csv", "study.json"}
    assert "no trial has begun" in (folder.results / "report.html").read_text(encoding="utf-8")


def _run(folder: StudyFolder, dataset: Dataset, config: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `tune.search` does of a study, with an engine that starts nothing."""
    monkeypatch.setattr("tune.engine.ray_tune.run", lambda *given, **named: None)
    item = checks.CheckedStudy(config, dataset, folder)
    return study_run._run(item, folder, RemoteCopy(), None, checks.Options(warn=lines.append))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["budget", "all failed alike", "failed and pruned"])
def test_a_search_and_a_resumed_one_fail_with_it(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, happen, expected = CASES[case]
    settings = {"search__trials": 3, "search__replicates": 0, "search__confirm": None, **changes}
    folder, ready = prepare_study(tmp_path, small(**settings))
    happen(coordinator(folder, ready, concurrency=3))
    for _ in range(2):
        with pytest.raises(errors.SearchFailed) as caught:
            _run(folder, ready.dataset, ready.config, [], monkeypatch)
        assert all(words in str(caught.value) for words in expected), str(caught.value)


def test_a_budget_that_leaves_trials_is_told_with_one_that_would_do(finished_study: StudyFolder) -> None:
    results = StudyResults.read(finished_study)

    def plan_of(spent: float, budget: float, target: int) -> Plan:
        plan = Plan(results.folder, results.config, results.plan.trials)
        search = plan.config.settings.search.model_copy(update={"time_budget_s": budget})
        settings = plan.config.settings.model_copy(update={"search": search})
        plan.config, plan.target = dataclasses.replace(plan.config, settings=settings), target
        plan.trials.seconds = lambda: spent  # type: ignore[method-assign]
        return plan

    said = failure_reasons.budget_left_trials(plan_of(60.0, 50.0, 20))
    assert said is not None and "search.time_budget_s 50 was spent with 14 of 20 trials left" in said
    assert "search.time_budget_s=200 would do" in said
    assert failure_reasons.budget_left_trials(plan_of(60.0, 50.0, 6)) is None, "it kept nothing from running"
    assert failure_reasons.budget_left_trials(plan_of(10.0, 50.0, 20)) is None, "it is not spent"
    del results.plan.trials.seconds


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_a_winner_without_a_model_and_refits_that_failed_are_told(
    study_copy: Callable[[], StudyFolder], failed: int
) -> None:
    folder = study_copy()
    report.write(folder)
    model = folder.results / "model"
    assert model.is_dir() and failure_reasons.no_model(folder) is None and failure_reasons.failed_refits(folder) is None
    for number in range(failed):
        run = folder.run(f"refits/winner/{number}")
        result: Any = run.outcome()
        run.write_outcome(dataclasses.replace(result, state="failed", failure=f"disk full in epoch {number}"))
        run.log("failed")
    model.rename(folder.path / "elsewhere")
    said = failure_reasons.no_model(folder)
    expected = [
        "results/model is gone",
        "1 of 2 of its refits failed, with: disk full in epoch 0",
        "all 2 of its refits",
    ]
    assert said is not None and expected[failed] in said and f"--resume {folder.name}" in said
    if failed:
        assert "refits/winner/0/log.txt" in said
        told = failure_reasons.failed_refits(folder)
        assert told is not None and f"{failed} of" in told


def test_a_search_warns_of_it(
    study_copy: Callable[[], StudyFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    folder, lines = study_copy(), list[str]()
    for number in range(2):
        run = folder.run(f"refits/winner/{number}")
        result: Any = run.outcome()
        run.write_outcome(dataclasses.replace(result, state="failed", failure="disk full"))
    # A failed refit would be tried again, by the engine that starts nothing here.
    monkeypatch.setattr(Plan, "_forget_failures", lambda self: None)
    _run(folder, loading.load("digits"), folder.config(), lines, monkeypatch)
    assert len(lines) == 1 and "the winner has no model: all 2 of its refits failed, with: disk full" in lines[0]
    assert os.path.exists(folder.path / "results/summary.md")


def test_options_warn_by_default() -> None:
    assert checks.Options().warn is notices.warn
