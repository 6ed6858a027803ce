"""MLflow as a projection of a study: complete, once only, and whatever the store does, never in a search's way."""

import contextlib
import shlex
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import m3col
from jobs import cli
from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import KIND, PARENT, RUN, STUDY, Tracker
from tests.support import fake_study
from tests.support.servers import Server
from tune.study.record import StudyFolder
from tune.tracking import live_sync, notes, study_to_mlflow, sync
from tune.tracking import sync as tracking_sync


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _connect(store: Tracker, folder: StudyFolder) -> tuple[str, list[mlflow_store.Stored]]:
    """The parent and the children of a study."""
    experiment = store.experiment("digits")
    key = f"{folder.name} {folder.described()['created']}"
    (parent,) = store.find(experiment, {STUDY: key, KIND: "study"})
    children = store.find(experiment, {STUDY: key, KIND: "trial"})
    return parent.id, sorted(children, key=lambda run: int(run.tags[RUN].rpartition("/")[2]))


def _rows(store: Tracker) -> dict[str, int]:
    """Number of rows of each table that a run fills."""
    with contextlib.closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database:
        tables = ("runs", "metrics", "params", "tags", "inputs", "datasets", "experiment_tags", "logged_models")
        return {table: database.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}


def _steps(store: Tracker, run: str, metric: str) -> list[int]:
    return [point.step for point in store.client.get_metric_history(run, metric)]


def test_a_study_is_one_parent_and_one_child_per_trial(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "whole", trials=7)
    fake_study.searched(folder, trials=7)
    tracking_sync.sync(folder, store)
    parent, children = _connect(store, folder)
    assert [child.tags[RUN] for child in children] == [f"trials/{n}" for n in range(7)]
    assert {child.tags[PARENT] for child in children} == {parent}
    assert {child.tags[study_to_mlflow.SEARCH] for child in children} == {"search0001"}
    states = ["FINISHED", "FINISHED", "FINISHED", "KILLED", "FINISHED", "FAILED", "KILLED"]
    assert [child.status for child in children] == states
    assert children[0].name == "trial 0 (default)" and children[1].name == "trial 1"
    assert "nan in epoch 4" in children[5].tags[mlflow_store.NOTE]
    assert set(children[1].params) == set(fake_study.SPACE)
    run = store.client.get_run(parent)
    assert run.info.status == "KILLED" and "6 of 7" not in run.data.tags[mlflow_store.NOTE]
    assert "7 of 7 trials have ended: 4 complete, 2 pruned, 1 failed" in run.data.tags[mlflow_store.NOTE]
    assert {item.dataset.digest for item in run.inputs.dataset_inputs} == {
        digest[:32] for digest in fake_study.dataset().digests().values()
    }
    assert not set(fake_study.SPACE) & set(run.data.params) and run.data.params["search.sampler"] == "tpe"


def test_epochs_carry_their_number_and_their_recorded_time(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "times", trials=1)
    fake_study.searched(folder, trials=1)
    sync.sync(folder, store)
    _, (child,) = _connect(store, folder)
    points = store.client.get_metric_history(child.id, fake_study.METRIC)
    history = folder.run("trials/0").history()
    assert [(p.step, p.value, p.timestamp) for p in points] == [
        (r["epoch"], r["metrics"][fake_study.METRIC], int(r["time"] * 1000)) for r in history
    ]
    assert child.metrics[notes.SCORE] == 0.85
    assert _steps(store, child.id, "val/brier") == [20]  # what is not drawn is there once


def test_sending_again_adds_nothing(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "again", trials=6)
    fake_study.searched(folder, trials=6)
    fake_study.add_trial(folder, 6, {}, score=0.8, epochs=4, state=None)
    sync.sync(folder, store)
    before = _rows(store)
    sync.sync(folder, store)
    mlflow_study = study_to_mlflow.StudyToMlflow(folder, store)
    sync.send(mlflow_study, None)
    sync.send(mlflow_study, None)
    assert _rows(store) == before


def test_a_running_trial_grows_and_a_restart_doubles_no_epoch(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "grows", trials=2)
    fake_study.add_trial(folder, 0, {}, score=0.8, epochs=6, state=None)
    sync.send(study_to_mlflow.StudyToMlflow(folder, store), None)
    _, (child,) = _connect(store, folder)
    assert (child.status, _steps(store, child.id, "val/loss")) == ("RUNNING", [1, 2, 3, 4, 5, 6])
    # Epochs 5 and 6 were lost with their actor, and are trained again at another time.
    run = folder.run("trials/0")
    run.append([fake_study.epoch(n, 0.5, at=fake_study.START + 500 + n) for n in range(1, 5)], restart=True)
    sync.sync(folder, store)
    run.append([fake_study.epoch(n, 0.5, at=fake_study.START + 900 + n) for n in range(5, 21)], restart=False)
    fake_study.finish(folder, 0, score=0.8, epochs=20)
    sync.sync(folder, store)
    _, (child,) = _connect(store, folder)
    assert child.status == "FINISHED"
    assert _steps(store, child.id, "val/loss") == list(range(1, 21))


@pytest.mark.parametrize("dies", ["create_run", "log_batch", "set_terminated"])
def test_a_driver_killed_between_two_calls_leaves_nothing_twice(
    store: Tracker, tmp_path: Path, dies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_study.make(tmp_path, f"killed-{dies}", trials=3)
    fake_study.searched(folder, trials=3)
    real = getattr(type(store.client), dies)
    calls = {"count": 0}

    def die_after(client: Any, *given: Any, **named: Any) -> Any:
        found = real(client, *given, **named)
        calls["count"] += 1
        if calls["count"] % 2 == 0:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patched:
        patched.setattr(type(store.client), dies, die_after)
        for _ in range(12):
            with contextlib.suppress(KeyboardInterrupt):
                sync.sync(folder, store)
                break
    sync.sync(folder, store)
    _, children = _connect(store, folder)
    assert [child.status for child in children] == ["FINISHED"] * 3
    assert all(set(child.params) == set(fake_study.SPACE) for child in children)
    assert all(_steps(store, child.id, "val/loss") == list(range(1, 21)) for child in children)
    assert all(len(_steps(store, child.id, notes.SCORE)) == 1 for child in children)


@pytest.fixture(scope="module")
def delivered(store: Tracker, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A finished study with results, a delivered model and the predictions of its refits."""
    runs = tmp_path_factory.mktemp("delivered")
    folder = fake_study.make(runs, "delivered", trials=18)
    fake_study.searched(folder, trials=18)
    fake_study.report(folder)
    fake_study.predict(folder)
    config = {"data": {"name": "digits"}, "train": {"epochs": 1}, "validation": {"kind": "none"},
              "model": {"embedding_dim": 8, "classifier_dim": 8}}  # fmt: skip
    trained = m3col.train(config, runs=runs, tracking_uri="none")
    trained.checkpoint.rename(folder.results / "model")
    sync.sync(folder, store)
    return folder


def test_the_table_of_runs_says_who_won_and_by_how_much(store: Tracker, delivered: StudyFolder) -> None:
    parent, children = _connect(store, delivered)
    winner, default = children[fake_study.WINNER], children[0]
    assert winner.name == "trial 17 (winner)" and default.name == "trial 0 (default)"
    assert winner.metrics[notes.RANK] == 1 and winner.metrics[notes.GAIN] == pytest.approx(0.892 - 0.85)
    assert winner.metrics["test/macro_f1"] == 0.921 and default.metrics["test/macro_f1"] == 0.902
    ranks = {c.name: c.metrics[notes.RANK] for c in children if notes.RANK in c.metrics}
    scores = {c.name: c.metrics[notes.SCORE] for c in children if notes.RANK in c.metrics}
    others = sorted((name for name in ranks if name != winner.name), key=lambda name: ranks[name])
    assert others == sorted(others, key=lambda name: -scores[name])
    run = store.client.get_run(parent)
    assert (run.info.run_name, run.info.status) == ("delivered: trial 17 won", "FINISHED")
    assert run.data.metrics["test_ensemble/macro_f1"] == 0.934


def test_the_study_page_has_the_summary_and_the_experiment_names_the_study(
    store: Tracker, delivered: StudyFolder
) -> None:
    parent, _ = _connect(store, delivered)
    note = store.client.get_run(parent).data.tags[mlflow_store.NOTE]
    assert note.startswith("**Trial 17 won**") and "| winner | 90.1 | 92.1 |" in note
    tags = store.client.get_experiment(store.experiment("digits")).tags
    assert f"runs/{parent}" in tags[mlflow_store.NOTE] and "+0.0420 against the default" in tags[mlflow_store.NOTE]
    assert '"metrics.`rank`"' in tags[f"{mlflow_store.SHARED_VIEW}{notes.view_key('delivered')}"]
    assert store.landing() == (store.experiment("digits"), tags[mlflow_store.LATEST_VIEW])


def test_results_and_figures_are_artifacts_but_no_ids(store: Tracker, delivered: StudyFolder) -> None:
    parent, _ = _connect(store, delivered)
    names = {item.path for folder in ("", "figures") for item in store.client.list_artifacts(parent, folder)}
    assert {
        "best_config.yaml",
        "trials.csv",
        "test_table.csv",
        "summary.md",
        "study.json",
        "checkpoint",
        "figures/learning_curves.png",
        "figures/confusion_matrix.png",
        "figures/reliability.png",
    } <= names
    assert not names & {"predictions.parquet", "splits.csv"}


def test_the_delivered_model_predicts_what_its_checkpoint_does(store: Tracker, delivered: StudyFolder) -> None:
    import mlflow
    import numpy as np
    import pandas as pd

    parent, _ = _connect(store, delivered)
    mlflow.set_tracking_uri(store.uri)
    model = mlflow.pyfunc.load_model(store.client.get_run(parent).data.tags["m3col.model_uri"])
    dataset = fake_study.dataset()
    assert dataset.test is not None
    table = pd.concat(
        [pd.DataFrame(x, columns=[f"{m}.{f}" for f in dataset.features[m]]) for m, x in dataset.test.inputs.items()],
        axis=1,
    )
    expected = m3col.load(delivered.results / "model").predict_proba(dataset.test.inputs)
    np.testing.assert_array_equal(model.predict(table).to_numpy(), expected)


def test_results_are_sent_once_and_again_only_when_they_change(
    store: Tracker, delivered: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _rows(store)
    with monkeypatch.context() as patched:
        patched.setattr(Tracker, "artifacts", lambda *given: pytest.fail("uploaded again"))
        sync.sync(delivered, store)
    assert _rows(store) == before
    fake_study.report(delivered, winner=7)
    sync.sync(delivered, store)
    _, children = _connect(store, delivered)
    assert [c.name for c in children if "winner" in c.name] == ["trial 7 (winner)"]
    assert children[7].metrics[notes.RANK] == 1 and children[17].metrics[notes.RANK] > 1
    assert _rows(store)["logged_models"] == before["logged_models"]
    # The other tests see the first winner, in whatever order they run.
    fake_study.report(delivered)
    sync.sync(delivered, store)
    _, children = _connect(store, delivered)
    assert [c.name for c in children if "winner" in c.name] == [f"trial {fake_study.WINNER} (winner)"]


class Flaky:
    """A tracker whose store is away while `down` is set."""

    def __init__(self, real: Tracker) -> None:
        self.real, self.down, self.refused = real, threading.Event(), 0
        self.uri, self.shown = real.uri, real.shown

    def __getattr__(self, name: str) -> Any:
        if self.down.is_set():
            self.refused += 1
            raise ConnectionError("connection refused")
        return getattr(self.real, name)


def test_a_store_that_dies_does_not_disturb_the_search_and_the_gap_is_filled(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "flaky", trials=4)
    flaky, lines = Flaky(store), list[str]()
    with live_sync.Background(folder, flaky, every_s=0.05, warn=lines.append):  # type: ignore[arg-type]
        fake_study.add_trial(folder, 0, {}, score=0.8)
        _until(lambda: len(_children(store, folder)) == 1)
        flaky.down.set()
        fake_study.add_trial(folder, 1, {"objective.beta": 0.5}, score=0.82)
        _until(lambda: flaky.refused > 0 and bool(lines))
        flaky.down.clear()
        fake_study.add_trial(folder, 2, {"objective.beta": 0.6}, score=0.83)
    _, children = _connect(store, folder)
    assert [child.status for child in children] == ["FINISHED"] * 3
    assert all(_steps(store, child.id, "val/loss") == list(range(1, 21)) for child in children)
    assert len(lines) == 1 and "the search continues" in lines[0]


def test_a_lost_answer_makes_no_run_twice(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "lost", trials=1)
    fake_study.add_trial(folder, 0, {}, score=0.8)

    class Deaf(Flaky):
        def create(self, experiment: str, name: str, *, tags: dict[str, str], started: float) -> str:
            run = self.real.create(experiment, name, tags=tags, started=started)
            self.refused += 1
            if self.refused <= 2:  # once for the study, once for its trial
                raise ConnectionError("connection reset")
            return run

    with live_sync.Background(folder, Deaf(store), every_s=0.05):  # type: ignore[arg-type]
        _until(lambda: [child.status for child in _children(store, folder)] == ["FINISHED"])
    _connect(store, folder)  # one parent


def test_leaving_with_the_store_away_names_the_command_that_helps(
    store: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sync, "_LAST_S", 1.0)
    monkeypatch.setattr(live_sync, "_BETWEEN_LAST_S", 0.2)
    folder = fake_study.make(tmp_path / "my runs", "left", trials=1)
    flaky, lines = Flaky(store), list[str]()
    flaky.down.set()
    with live_sync.Background(folder, flaky, every_s=60, warn=lines.append):  # type: ignore[arg-type]
        fake_study.add_trial(folder, 0, {}, score=0.8)
    assert len(lines) == 1 and "connection refused" in lines[0]
    # From any folder: a job's is gone when its log is read.
    command = lines[0].partition("nothing is lost: ")[2].removesuffix(" writes it")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.delenv("M3COL_RUNS", raising=False)
    assert command.startswith("m3col sync left ") and cli.main(shlex.split(command)[1:]) == 0
    assert [child.status for child in _children(store, folder)] == ["FINISHED"]


def test_a_store_that_hangs_holds_the_end_up_no_longer_than_the_limit(store: Tracker, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "hangs", trials=1)
    release, lines = threading.Event(), list[str]()

    class Hanging(Flaky):
        def __getattr__(self, name: str) -> Any:
            release.wait(30)
            raise ConnectionError("too late")

    begun = time.monotonic()
    with live_sync.Background(folder, Hanging(store), limit_s=0.3, warn=lines.append):  # type: ignore[arg-type]
        pass
    assert time.monotonic() - begun < 5
    assert "m3col sync hangs" in lines[0] and "no answer" in lines[0]
    release.set()


def test_without_a_store_nothing_happens_and_an_error_passes_through(tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path, "off", trials=1)
    with live_sync.Background(folder, None):
        pass
    with pytest.raises(ZeroDivisionError), live_sync.Background(folder, None):
        _ = 1 / 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    yield found
    found.kill()


def test_a_real_server_dies_during_the_search_and_comes_back(server: Server, tmp_path: Path) -> None:
    folder = fake_study.make(tmp_path / "runs", "served", trials=3)
    tracker = mlflow_store.connect(server.uri, tmp_path / "runs")
    assert tracker is not None
    lines = list[str]()
    with live_sync.Background(folder, tracker, every_s=0.2, warn=lines.append):
        fake_study.add_trial(folder, 0, {}, score=0.8)
        fake_study.add_trial(folder, 1, {"objective.beta": 0.5}, score=0.82, epochs=5, state=None)
        _until(lambda: len(_children(tracker, folder)) == 2)
        server.kill()
        run = folder.run("trials/1")
        run.append([fake_study.epoch(n, 0.8, at=fake_study.START + 500 + n) for n in range(6, 21)], restart=False)
        fake_study.finish(folder, 1, score=0.82, epochs=20)
        _until(lambda: bool(lines))
        server.start()
    parent, children = _connect(tracker, folder)
    assert [child.status for child in children] == ["FINISHED", "FINISHED"]
    assert all(_steps(tracker, child.id, "val/loss") == list(range(1, 21)) for child in children)
    assert len(lines) == 1, lines
    assert parent


def _children(tracker: Tracker, folder: StudyFolder) -> list[mlflow_store.Stored]:
    experiment = tracker.experiment("digits")
    return tracker.find(experiment, {STUDY: f"{folder.name} {folder.described()['created']}", KIND: "trial"})


def _until(holds: Any, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def test_a_trial_that_the_time_budget_cut_off_is_closed_and_a_resumed_search_goes_on_with_it(
    store: Tracker, tmp_path: Path
) -> None:
    folder = fake_study.make(tmp_path, "cut", trials=4)
    fake_study.searched(folder, trials=3)
    fake_study.add_trial(folder, 3, {}, score=0.8, epochs=5, state=None)
    fake_study.report(folder, winner=1)
    sync.sync(folder, store)
    _, children = _connect(store, folder)
    assert (children[3].status, children[3].tags[mlflow_store.STATE]) == ("KILLED", "stopped")
    before = _rows(store)
    sync.sync(folder, store)
    assert _rows(store) == before, "sending again adds nothing"
    (folder.results / "summary.md").unlink()  # what a resumed search does first
    fake_study.finish(folder, 3, score=0.8, epochs=5)
    sync.sync(folder, store)
    _, children = _connect(store, folder)
    assert (children[3].status, children[3].tags[mlflow_store.STATE]) == ("FINISHED", "complete")
    assert _steps(store, children[3].id, "train/loss") == [1, 2, 3, 4, 5]
