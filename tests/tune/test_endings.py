"""However a search ends, none of its runs stays running in MLflow; and `m3col sync` mends what is missing."""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import m3col
from m3col.errors import InputError
from m3col.runtime import exit_hooks
from m3col.storage.retry import StorageUnavailable
from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import FAILURE, KIND, LACKS, NOTE, STATE, STUDY, Tracker
from tests.support import fake_study
from tune.errors import SearchFailed, StudyTakenOver
from tune.study.record import StudyFolder
from tune.study.run_messages import RunOutcome
from tune.tracking import final_results, live_sync, notes, study_to_mlflow, sync
from tune.tracking import sync as tracking_sync
from tune.tracking.live_sync import Background


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _runs(store: Tracker, folder: StudyFolder) -> tuple[mlflow_store.Stored, list[mlflow_store.Stored]]:
    """The study's run, and those of its trials."""
    key = f"{folder.name} {folder.described()['created']}"
    found = store.find(store.experiment("digits"), {STUDY: key})
    (parent,) = (run for run in found if run.tags[KIND] == "study")
    return parent, [run for run in found if run.tags[KIND] == "trial"]


def _statuses(store: Tracker, folder: StudyFolder) -> tuple[str, list[str]]:
    parent, children = _runs(store, folder)
    return parent.status, sorted(child.status for child in children)


def _half(runs: Path, name: str) -> StudyFolder:
    """A study with a finished trial and one that trains."""
    folder = fake_study.make(runs, name, trials=4)
    fake_study.add_trial(folder, 0, {}, score=0.8)
    fake_study.add_trial(folder, 1, {"objective.beta": 0.5}, score=0.82, epochs=5, state=None)
    return folder


def _until(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


ENDS: dict[str, tuple[BaseException, str, str]] = {
    "failed": (SearchFailed("no trial finished: all 3 trials failed"), "FAILED", "all 3 trials failed"),
    "refused": (InputError(["resources: a training asks for 8 CPUs"]), "FAILED", "asks for 8 CPUs"),
    "storage": (StorageUnavailable("http://ann:secret@host refused a write"), "FAILED", "http://***@host refused"),
    "a mistake": (KeyError("rank"), "FAILED", "KeyError: 'rank'"),
    "interrupt": (KeyboardInterrupt(), "KILLED", ""),
    "exit": (SystemExit(1), "KILLED", ""),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_search_that_ends_early_leaves_nothing_running_and_says_why(
    store: Tracker, tmp_path: Path, case: str
) -> None:
    error, status, reason = ENDS[case]
    folder, lines = _half(tmp_path, case.replace(" ", "-")), list[str]()
    with pytest.raises(type(error)), Background(folder, store, every_s=0.05, warn=lines.append) as running:
        _until(lambda: running._mlflow_study is not None and len(running._mlflow_study.children) == 2)
        raise error
    parent, _ = _runs(store, folder)
    assert _statuses(store, folder) == (status, ["FINISHED", "KILLED"]) and lines == []
    assert parent.tags[STATE] == "stopped" and reason in parent.tags[FAILURE] + parent.tags[NOTE]
    assert "--resume" in parent.tags[NOTE] and "running" not in parent.tags[NOTE]


@pytest.mark.parametrize("case", ENDS)
def test_a_resumed_search_opens_them_again_and_ends_them_well(store: Tracker, tmp_path: Path, case: str) -> None:
    error, _, _ = ENDS[case]
    folder = _half(tmp_path, f"again-{case.replace(' ', '-')}")
    with contextlib.suppress(type(error)), Background(folder, store, every_s=0.05) as running:
        _until(lambda: running._mlflow_study is not None and len(running._mlflow_study.children) == 2)
        raise error
    with Background(folder, store, every_s=0.05, warn=pytest.fail):
        _until(lambda: _statuses(store, folder) == ("RUNNING", ["FINISHED", "RUNNING"]))
        _until(lambda: "is running" in _runs(store, folder)[0].tags[NOTE])
        parent, _ = _runs(store, folder)
        assert parent.tags[FAILURE] == "" and parent.tags[STATE] == "running"
        run = folder.run("trials/1")
        run.append([fake_study.epoch(n, 0.8, at=fake_study.START + n) for n in range(6, 21)], restart=False)
        fake_study.finish(folder, 1, score=0.82, epochs=20)
        fake_study.report(folder, winner=1)
    parent, children = _runs(store, folder)
    assert _statuses(store, folder) == ("FINISHED", ["FINISHED", "FINISHED"])
    assert parent.tags[STATE] == "complete" and {child.tags[STATE] for child in children} == {"complete"}
    assert store.last_step(next(c.id for c in children if c.tags["m3col.run"] == "trials/1"), "train/loss") == 20


def test_a_search_that_fails_before_the_first_look_is_seen_in_mlflow(store: Tracker, tmp_path: Path) -> None:
    folder = _half(tmp_path, "early")
    with pytest.raises(ZeroDivisionError), Background(folder, store, every_s=60):
        _ = 1 / 0
    assert _statuses(store, folder) == ("FAILED", ["FINISHED", "KILLED"])


def test_runs_that_another_driver_has_taken_over_stay_its_own(store: Tracker, tmp_path: Path) -> None:
    folder = _half(tmp_path, "taken")
    with pytest.raises(StudyTakenOver), Background(folder, store, every_s=0.05, warn=pytest.fail):
        _until(lambda: bool(_known(store, folder)) and len(_runs(store, folder)[1]) == 2)
        raise StudyTakenOver("another driver went on with the study")
    assert _statuses(store, folder) == ("RUNNING", ["FINISHED", "RUNNING"])


def _known(store: Tracker, folder: StudyFolder) -> list[mlflow_store.Stored]:
    key = f"{folder.name} {folder.described()['created']}"
    return store.find(store.experiment("digits"), {STUDY: key, KIND: "study"})


def test_a_signal_closes_them_from_its_own_thread(
    store: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sync, "_INTERRUPTED_S", 2.0)
    folder = _half(tmp_path, "signal")
    with Background(folder, store, every_s=0.05) as running:
        _until(lambda: running._mlflow_study is not None and len(running._mlflow_study.children) == 2)
        begun = time.monotonic()
        exit_hooks.run(10.0)
        assert time.monotonic() - begun < 5
        assert _statuses(store, folder) == ("KILLED", ["FINISHED", "KILLED"])
    assert exit_hooks._waiting == []


def test_a_signal_during_an_upload_closes_them_too(
    store: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sync, "_INTERRUPTED_S", 1.0)
    folder = _half(tmp_path, "upload")
    fake_study.report(folder, winner=0)
    uploading, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        uploading.set()
        go_on.wait(30)

    monkeypatch.setattr(Tracker, "artifacts", slow)

    def signal() -> None:
        uploading.wait(30)
        exit_hooks.run(10.0)
        seen.append(_statuses(store, folder))
        go_on.set()

    seen: list[Any] = []
    thread = threading.Thread(target=signal)
    thread.start()
    with Background(folder, store, every_s=60):
        pass
    thread.join()
    assert seen == [("KILLED", ["FINISHED", "KILLED"])]


def test_a_store_that_hangs_holds_no_signal_up(store: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sync, "_INTERRUPTED_S", 0.3)
    folder, release = _half(tmp_path, "hung"), threading.Event()
    monkeypatch.setattr(study_to_mlflow.StudyToMlflow, "send", lambda self: release.wait(30))
    with Background(folder, store, every_s=0.05, limit_s=0.1, warn=lambda line: None) as running:
        _until(lambda: running._mlflow_study is not None)
        monkeypatch.setattr(study_to_mlflow.StudyToMlflow, "stop", lambda self, status, failure="": release.wait(30))
        begun = time.monotonic()
        exit_hooks.run(1.0)
        assert time.monotonic() - begun < 3
        release.set()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A finished study with results and a model. Not to be changed."""
    runs = tmp_path_factory.mktemp("whole")
    folder = fake_study.make(runs, "whole", trials=4)
    fake_study.searched(folder, trials=4)
    fake_study.report(folder, winner=2)
    fake_study.predict(folder, seeds=1)
    config = {"data": {"name": "digits"}, "train": {"epochs": 1}, "validation": {"kind": "none"},
              "model": {"embedding_dim": 8, "classifier_dim": 8}}  # fmt: skip
    m3col.train(config, runs=runs, tracking_uri="none").checkpoint.rename(folder.results / "model")
    return folder


@pytest.fixture
def copy(whole: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy that is a study of its own in MLflow."""
    name = f"copy-{tmp_path.name}"
    shutil.copytree(whole.path, tmp_path / name)
    described = (tmp_path / name / "study.json").read_text().replace('"name": "whole"', f'"name": "{name}"')
    (tmp_path / name / "study.json").write_text(described)
    return StudyFolder(tmp_path / name)


PARTS: dict[str, tuple[Any, str]] = {
    "files": (Tracker, "artifacts"),
    "model": (Tracker, "model"),
    "results": (final_results, "_mark_children"),
    "columns of the table": (study_to_mlflow.StudyToMlflow, "set_view"),
    "figures": (final_results, "_draw"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_refused_ends_every_run_and_sync_completes_it(
    store: Tracker, copy: StudyFolder, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sync, "_BETWEEN_LAST_S", 0.01)
    lines, tries = list[str](), list[int]()

    def refuse(*given: Any, **named: Any) -> None:
        if part == "columns of the table" and not named["finished"]:
            return
        tries.append(1)
        raise RuntimeError(f"no {part} today")

    with monkeypatch.context() as patched:
        patched.setattr(*PARTS[part], refuse)
        with Background(copy, store, every_s=60, warn=lines.append):
            pass
    assert _statuses(store, copy) == ("FINISHED", ["FINISHED", "FINISHED", "FINISHED", "KILLED"])
    assert len(lines) == 1 and f"no {part} today" in lines[0] and "m3col sync" in lines[0]
    assert len(tries) <= 4, "a store that answers is not asked for ever"
    parent, _ = _runs(store, copy)
    assert f"no {part} today" in parent.tags[LACKS] and "m3col.results" not in parent.tags
    tracking_sync.sync(copy, store, warn=pytest.fail)
    parent, children = _runs(store, copy)
    assert parent.tags[LACKS] == "" and parent.metrics[notes.CONFIRMED] and "m3col.model_uri" in parent.tags
    assert any(child.name == "trial 2 (winner)" for child in children)
    names = {item.path for item in store.client.list_artifacts(parent.id)}
    assert {"summary.md", "checkpoint", "figures"} <= names
    uploads: list[Any] = []
    monkeypatch.setattr(Tracker, "artifacts", lambda *given: uploads.append(given))
    sync.sync(copy, store, warn=pytest.fail)
    assert uploads == [], "what is complete is not sent again"


def test_a_winner_without_a_model_is_told_by_sync_and_stands_in_mlflow(store: Tracker, copy: StudyFolder) -> None:
    shutil.rmtree(copy.results / "model")
    run = copy.run("refits/winner/0")
    run.write_outcome(RunOutcome("failed", failure="disk full"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="the winner has no model: all 1 of its refits failed, with: disk full"):
            sync.sync(copy, store)
    parent, _ = _runs(store, copy)
    assert parent.status == "FINISHED" and "the winner has no model" in parent.tags[LACKS]


def test_features_of_one_name_do_not_keep_an_old_study_from_mlflow(store: Tracker, copy: StudyFolder) -> None:
    """Such a checkpoint cannot be made any more, but studies have them."""
    description = copy.results / "model" / "checkpoint.json"
    text = description.read_text()
    name = next(iter(fake_study.dataset().features["pixels"]))
    other = fake_study.dataset().features["pixels"][1]
    description.write_text(text.replace(f'"{other}"', f'"{name}"'))
    sync.sync(copy, store, warn=pytest.fail)
    parent, _ = _runs(store, copy)
    assert parent.status == "FINISHED" and "m3col.model_uri" in parent.tags


def test_one_trial_that_cannot_be_read_does_not_keep_the_others_away(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "torn", trials=4)
    fake_study.searched(folder, trials=4)
    (folder.path / "trials/1/config.yaml").write_text("objective: [")
    with pytest.raises(sync.Incomplete, match="trial 1"):
        sync.sync(folder, store)
    assert _statuses(store, folder) == ("KILLED", ["FINISHED", "FINISHED", "KILLED"])


@pytest.mark.parametrize("change", ["other settings", "the same settings, trained again"])
def test_a_trial_that_was_set_aside_is_no_longer_that_trial(store: Tracker, tmp_path: Path, change: str) -> None:
    folder = fake_study.make(tmp_path, f"aside-{change[:5]}", trials=3)
    fake_study.add_trial(folder, 0, {}, score=0.8)
    fake_study.add_trial(folder, 1, {"objective.beta": 0.5}, score=0.82)
    sync.sync(folder, store)
    folder.run("trials/1").set_aside()
    beta = 0.5 if change.startswith("the same") else 0.25
    fake_study.add_trial(folder, 1, {"objective.beta": beta}, score=0.7, epochs=5, state=None)
    sync.sync(folder, store)
    _, children = _runs(store, folder)
    assert len(children) == 2
    (second,) = (child for child in children if child.tags["m3col.run"] == "trials/1")
    assert second.params["objective.beta"] == str(beta) and second.status == "KILLED"
    assert notes.SCORE not in second.metrics
    before = len(store.find(store.experiment("digits"), {}))
    sync.sync(folder, store)
    assert len(store.find(store.experiment("digits"), {})) == before


def test_sync_after_a_kill_closes_what_stays_running_and_a_second_one_changes_nothing(
    store: Tracker, tmp_path: Path
) -> None:
    folder = _half(tmp_path, "kill-9")
    sync.send(study_to_mlflow.StudyToMlflow(folder, store), None)
    assert _statuses(store, folder) == ("RUNNING", ["FINISHED", "RUNNING"])
    for _ in range(2):
        sync.sync(folder, store)
        assert _statuses(store, folder) == ("KILLED", ["FINISHED", "KILLED"])
    parent, _ = _runs(store, folder)
    assert "**The search has stopped.** 1 of 4 trials have ended" in parent.tags[NOTE]
    before = {run.id: (run.status, dict(run.tags)) for run in (parent, *_runs(store, folder)[1])}
    sync.sync(folder, store)
    parent, children = _runs(store, folder)
    assert {run.id: (run.status, dict(run.tags)) for run in (parent, *children)} == before


def test_why_a_search_failed_stays_on_its_page_when_it_is_synced(store: Tracker, tmp_path: Path) -> None:
    folder = _half(tmp_path, "reason-stays")
    with pytest.raises(SearchFailed), Background(folder, store, every_s=60):
        raise SearchFailed("all failed")
    sync.sync(folder, store)
    parent, _ = _runs(store, folder)
    assert parent.status == "FAILED" and "**The search failed:** all failed" in parent.tags[NOTE]


SCRIPT = """
    import os, signal, sys, threading, time
    from jobs.terminal import interrupt
    from m3col.runtime import exit_hooks

    def close():
        if {hangs}:
            time.sleep(60)
        open("closed", "w").write("closed")

    interrupt._CLEANUP_S = 1.5
    interrupt.on_interrupt(lambda: "Interrupted.")
    with exit_hooks.before_exit(close):
        os.kill(os.getpid(), signal.{signal})
        time.sleep({second})
        os.kill(os.getpid(), signal.{signal})
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "hangs", "second", "code", "limit"),
    [("SIGINT", False, 30, 130, 10), ("SIGTERM", False, 30, 143, 10), ("SIGTERM", True, 30, 143, 10),
     ("SIGINT", True, 0.2, 130, 8)],
)  # fmt: skip
def test_a_signal_gives_what_is_open_a_bounded_chance_and_a_second_one_none(
    tmp_path: Path, number: str, hangs: bool, second: float, code: int, limit: float
) -> None:
    script = textwrap.dedent(SCRIPT.format(hangs=hangs, signal=number, second=second))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    begun = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == code and "Interrupted." in found.stdout, found.stderr
    assert time.monotonic() - begun < limit and (tmp_path / "closed").exists() == (not hangs)
