"""The store: which one, what an unreachable one says and when, and what a finished training leaves in it."""

import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col.data.arrays import from_arrays
from m3col.errors import InputError
from m3col.tracking import log_training, mlflow_store
from m3col.tracking.mlflow_store import Tracker
from m3col.tracking.payload import Point, history_points
from tests.support.servers import free_port

CONFIG = {
    "data": {"name": "arrays"},
    "model": {"embedding_dim": 8, "classifier_dim": 8},
    "train": {"epochs": 3},
    "validation": {"kind": "kfold", "folds": 2},
}


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _samples() -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    views = {"rna": draw.normal(size=(24, 3)) + labels[:, None], "dna": draw.normal(size=(24, 2))}
    return (views, labels), ({name: x[:10] + 0.1 for name, x in views.items()}, labels[:10])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished training, its tracker, its data set, and its run as MLflow has it."""
    runs = tmp_path_factory.mktemp("trained")
    train, test = _samples()
    result = m3col.train(CONFIG, data={"train": train, "test": test}, runs=runs)
    tracker = mlflow_store.connect(None, runs)
    assert tracker is not None and result.mlflow_run_id is not None
    run = tracker.client.get_run(result.mlflow_run_id)
    dataset = from_arrays(*train, test=test)
    return SimpleNamespace(result=result, tracker=tracker, dataset=dataset, run=run, views=test[0])


def test_the_default_is_sqlite_in_the_runs_folder_whatever_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = mlflow_store.connect(None, Path("runs"))
    assert tracker is not None and tracker.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    tracker.experiment("a name / with a slash")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_the_argument_beats_the_environment_and_none_switches_off(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert mlflow_store.connect(None, tmp_path) is None
    found = mlflow_store.connect(trained.tracker.uri, tmp_path)
    assert found is not None and found.uri == trained.tracker.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.tracker.uri)
    found = mlflow_store.connect(None, tmp_path)
    assert found is not None and found.uri == trained.tracker.uri


def test_a_dead_server_is_bad_input_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"tracking.uri http.*cannot be reached"):
        mlflow_store.connect(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert time.monotonic() - begun < 15


def test_a_server_that_never_answers_is_bad_input_within_15_s(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        begun = time.monotonic()
        with pytest.raises(InputError, match="cannot be reached"):
            mlflow_store.connect(f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path)
        assert time.monotonic() - begun < 15


def test_a_runs_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        mlflow_store.connect(None, tmp_path / "file" / "runs")


def test_metrics_have_one_point_per_epoch_at_the_recorded_time(trained: Any) -> None:
    history = trained.result.history
    points = trained.tracker.client.get_metric_history(trained.run.info.run_id, "val/accuracy")
    assert [(p.step, p.value, p.timestamp) for p in points] == [
        (epoch, value, int(at * 1000))
        for epoch, value, at in zip(history["epoch"], history["val/accuracy"], history["time"], strict=True)
    ]
    assert trained.run.data.metrics["test/accuracy"] == trained.result.metrics["test/accuracy"]


def test_params_status_note_and_data_set_are_there(trained: Any) -> None:
    run = trained.run
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "3"
    assert "| accuracy |" in run.data.tags[mlflow_store.NOTE]
    inputs = {item.tags[0].value: item.dataset.digest for item in run.inputs.dataset_inputs}
    assert inputs == {split: digest[:32] for split, digest in trained.dataset.digests().items()}


def test_checkpoint_and_figures_are_artifacts(trained: Any) -> None:
    client, run = trained.tracker.client, trained.run.info.run_id
    names = {item.path for folder in ("", "figures", "checkpoint") for item in client.list_artifacts(run, folder)}
    assert {"config.yaml", "figures/learning_curves.png", "figures/confusion_matrix.png", "figures/reliability.png",
            "checkpoint/checkpoint.json"} <= names  # fmt: skip


@pytest.fixture(scope="module")
def model(trained: Any) -> Any:
    import mlflow

    mlflow.set_tracking_uri(trained.tracker.uri)
    return mlflow.pyfunc.load_model(f"models:/{trained.run.outputs.model_outputs[0].model_id}")


def test_the_logged_model_predicts_exactly_what_the_checkpoint_does(trained: Any, model: Any) -> None:
    columns = {f"{m}.{name}": x[:, i] for m, x in trained.views.items()
               for i, name in enumerate(trained.dataset.features[m])}  # fmt: skip
    shuffled = pd.DataFrame(columns).sample(frac=1, axis=1, random_state=0)
    found = model.predict(shuffled)
    assert list(found.columns) == list(trained.dataset.classes)
    np.testing.assert_array_equal(found.to_numpy(), m3col.load(trained.result.checkpoint).predict_proba(trained.views))


def test_the_input_example_is_the_medians_and_the_signature_names_every_column(trained: Any, model: Any) -> None:
    example = model.metadata.load_input_example()
    expected = np.concatenate([np.median(x, axis=0) for x in trained.dataset.train.inputs.values()])
    np.testing.assert_allclose(example.to_numpy()[0], expected)
    assert model.metadata.signature.inputs.input_names() == [
        f"{m}.{name}" for m, names in trained.dataset.features.items() for name in names
    ]


def test_a_store_that_fails_at_the_end_does_not_cost_the_training(tmp_path: Path) -> None:
    train, _ = _samples()
    result = m3col.train(CONFIG, data=train, runs=tmp_path, tracking_uri="none")

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("gone")

    tracker = Tracker(Broken(), uri="http://gone", artifacts=None)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="not written to MLflow at http://gone: gone"):
        assert log_training.log_or_warn(tracker, result, dataset=from_arrays(*train), started=0.0) is None


def test_an_epoch_is_never_torn_over_two_calls() -> None:
    calls: list[Any] = []
    client = SimpleNamespace(log_batch=lambda run, metrics, params, tags: calls.append((metrics, params, tags)))
    tracker = Tracker(client, uri="", artifacts=None)  # type: ignore[arg-type]
    points = [Point(f"m{k}", 1.0, step, 0.0) for step in range(1, 8) for k in range(300)]
    tracker.write("run", points, params={f"p{k}": k for k in range(150)}, tags={"t": {"a": 1}})
    steps = [sorted({metric.step for metric in metrics}) for metrics, _, _ in calls]
    assert steps == [[1, 2, 3], [4, 5, 6], [7]]
    assert [len(params) for _, params, _ in calls] == [100, 50, 0]
    assert calls[0][2][0].value == "a: 1"


def test_a_view_link_lands_on_the_table_of_runs() -> None:
    assert mlflow_store.link("http://h:1/", "7", "v") == (
        "http://h:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=v"
    )


def test_points_leave_out_what_is_not_a_number() -> None:
    record = {"epoch": 1, "time": 2.0, "value": 0.5, "metrics": {"val/auroc": float("nan"), "val/loss": 1.0}}
    assert history_points([json.loads(json.dumps(record))]) == [Point("val/loss", 1.0, 1, 2.0)]


def test_an_experiment_that_somebody_makes_at_the_same_moment_is_the_same(tmp_path, monkeypatch) -> None:
    mine, theirs = (mlflow_store.connect(None, tmp_path) for _ in range(2))
    assert mine is not None and theirs is not None
    made: list[str] = []
    create = mine.client.create_experiment

    def late(*words: Any, **named: Any) -> Any:
        made.append(theirs.experiment("both"))
        return create(*words, **named)

    monkeypatch.setattr(mine.client, "create_experiment", late)
    assert [mine.experiment("both")] == made
