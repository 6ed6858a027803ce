"""A training's run in MLflow ends, with all that the store took, whatever part of it is refused."""

import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import m3col
from m3col.data.arrays import from_arrays
from m3col.runtime import exit_hooks
from m3col.tracking import log_training, mlflow_store
from m3col.tracking.mlflow_store import LACKS, Tracker
from m3col.tracking.payload import reason_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training that is not in MLflow, its data set, and an empty store."""
    runs = tmp_path_factory.mktemp("trained")
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    views = {"rna": draw.normal(size=(24, 3)) + labels[:, None], "dna": draw.normal(size=(24, 2))}
    config = {
        "data": {"name": "arrays"}, "model": {"embedding_dim": 8, "classifier_dim": 8}, "train": {"epochs": 2},
        "validation": {"kind": "holdout"},
    }  # fmt: skip
    result = m3col.train(config, data=(views, labels), runs=runs, tracking_uri="none")
    tracker = mlflow_store.connect(None, runs)
    assert tracker is not None
    return SimpleNamespace(result=result, dataset=from_arrays(views, labels), tracker=tracker)


def _runs(trained: Any) -> list[mlflow_store.Stored]:
    return trained.tracker.find(trained.tracker.experiment(trained.dataset.name), {mlflow_store.KIND: "training"})


def _log(trained: Any) -> tuple[str | None, list[str], mlflow_store.Stored]:
    """The id, the warnings, and the run as MLflow has it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = log_training.log_or_warn(trained.tracker, trained.result, dataset=trained.dataset, started=time.time())
    lines = [str(item.message) for item in caught if "MLflow at" in str(item.message)]
    return found, lines, _runs(trained)[-1]


REFUSED = {
    "metrics": (log_training, "_write_metrics"),
    "data set": (Tracker, "dataset"),
    "figures": (log_training, "_send_figures"),
    "model": (Tracker, "model"),
}


@pytest.mark.parametrize("part", REFUSED)
def test_a_refused_part_costs_that_part_alone_and_is_told_with_its_cause(
    trained: Any, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise RuntimeError(f"no {part} today")

    monkeypatch.setattr(*REFUSED[part], refuse)
    found, lines, run = _log(trained)
    assert found == run.id and run.status == "FINISHED"
    assert len(lines) == 1 and f"lacks the {part} of this training: no {part} today" in lines[0]
    assert run.tags[LACKS] == f"{part}: no {part} today"
    names = {item.path for item in trained.tracker.client.list_artifacts(run.id)}
    assert ("val/accuracy" in run.metrics) == (part != "metrics") and "checkpoint" in names
    assert ("figures" in names) == (part != "figures")
    models = trained.tracker.client.get_run(run.id).outputs
    assert bool(models and models.model_outputs) == (part != "model")


def test_uploads_that_fail_leave_metrics_and_settings(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tracker, "artifacts", full)
    _, lines, run = _log(trained)
    assert run.status == "FINISHED" and "val/accuracy" in run.metrics and "train.epochs" in run.params
    assert [line.partition("lacks the ")[2].split()[0] for line in lines] == ["config", "checkpoint", "figures"]
    assert all("No space left on device" in line for line in lines)


def test_a_store_that_dies_half_way_is_not_asked_for_every_part(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def away(self: Any, *given: Any, **named: Any) -> None:
        asked.append("asked")
        raise ConnectionError("connection refused")

    monkeypatch.setattr(type(trained.tracker.client), "log_batch", away)
    monkeypatch.setattr(type(trained.tracker.client), "get_run", away)
    found, lines, _ = _log(trained)
    assert found is None and len(asked) == 3, "the metrics, whether it answers, and the tag"
    assert "connection refused" in lines[0]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")])
def test_an_interrupt_closes_the_run(
    trained: Any, error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(Tracker, "model", interrupt)
    with pytest.raises(type(error)):
        log_training.log_or_warn(trained.tracker, trained.result, dataset=trained.dataset, started=time.time())
    assert _runs(trained)[-1].status == status


def test_a_signal_closes_the_run_from_another_thread(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def signalled(*given: Any, **named: Any) -> None:
        exit_hooks.run(10.0)  # what the thread does that waits for signals
        seen.append(_runs(trained)[-1].status)

    monkeypatch.setattr(Tracker, "model", signalled)
    _log(trained)
    assert seen == ["KILLED"]


@pytest.mark.parametrize("part", ["artifacts", "artifacts of the second"])
def test_files_that_cannot_be_sent_leave_no_running_run(
    trained: Any, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Tracker.artifacts, []

    def some(self: Tracker, *given: Any) -> None:
        calls.append(given)
        if part == "artifacts" or len(calls) == 2:
            raise OSError("gone")
        real(self, *given)

    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text("x")
    monkeypatch.setattr(Tracker, "artifacts", some)
    with pytest.raises(OSError, match="gone"):
        trained.tracker.log_files(paths, experiment="files", name=part, tags={mlflow_store.KIND: part}, under="x")
    found = trained.tracker.find(trained.tracker.experiment("files"), {mlflow_store.KIND: part})
    assert [run.status for run in found] == ["FAILED"]


def test_a_model_that_cannot_be_saved_does_not_stay_pending(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mlflow.pyfunc.save_model", lambda *given, **named: (_ for _ in ()).throw(ValueError("no room"))
    )
    _log(trained)
    (newest, *_) = trained.tracker.client.search_logged_models(
        [trained.tracker.experiment(trained.dataset.name)],
        order_by=[{"field_name": "creation_time", "ascending": False}],
    )
    assert str(newest.status) == "FAILED"


def _nested() -> Exception:
    try:
        try:
            raise OSError("[Errno 111] Connection refused")
        except OSError as inner:
            raise RuntimeError("x" * 400) from inner
    except RuntimeError as outer:
        return outer


def _hidden() -> Exception:
    try:
        try:
            raise KeyError("a detail")
        except KeyError:
            raise RuntimeError("y" * 400) from None
    except RuntimeError as outer:
        return outer


REASONS = {
    "short": (RuntimeError("the disk\nis full"), "the disk is full"),
    "no text": (TimeoutError(), "TimeoutError"),
    "a mistake": (KeyError("rank"), "KeyError: 'rank'"),
    "sql": (RuntimeError("disk I/O error [SQL: INSERT INTO metrics"), "disk I/O error"),
    "long": (_nested(), f"{'x' * 100}... ([Errno 111] Connection refused)"),
    "hidden": (_hidden(), f"{'y' * 200}..."),
    "secret": (OSError("http://ann:secret@host is away"), "http://***@host is away"),
}


@pytest.mark.parametrize("case", REASONS)
def test_the_reason_is_one_line_with_the_true_cause(case: str) -> None:
    error, expected = REASONS[case]
    assert reason_of(error) == expected
