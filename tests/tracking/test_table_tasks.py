"""Trainings for several labels per sample and for numbers in MLflow: metrics, signature, and the logged model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import tasks
from m3col.tracking import mlflow_store
from tests.support import table_labels
from tests.support.table_labels import NAMES, QUICK


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_the_run_has_the_metrics_of_the_task_and_the_model_predicts_as_its_checkpoint(task: str, runs: Path) -> None:
    import mlflow

    overrides = {**QUICK, "task": task, "method": "concat", "train.epochs": 2}
    parts = table_labels.frames(task)
    result = m3col.train({"validation": {"kind": "holdout"}}, data=parts, overrides=overrides, runs=runs)
    tracker = mlflow_store.connect(None, runs)
    assert tracker is not None and result.mlflow_run_id is not None
    run: Any = tracker.client.get_run(result.mlflow_run_id)
    built = tasks.build(task, NAMES[task])
    for name in built.metrics:
        assert run.data.metrics[f"test/{name}"] == result.metrics[f"test/{name}"]
        assert f"val/{name}" in run.data.metrics and f"| {name} |" in run.data.tags[mlflow_store.NOTE]
    figures = {item.path for item in tracker.client.list_artifacts(result.mlflow_run_id, "figures")}
    own = "label_scores" if task == "multi_label" else "predicted_against_true"
    assert figures == {"figures/learning_curves.png", f"figures/{own}.png"}
    mlflow.set_tracking_uri(tracker.uri)
    logged = tracker.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert logged.model_type == built.model_type
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.metadata.signature.outputs.input_names() == list(NAMES[task])
    tables = parts["test"][0]
    columns = pd.concat({name: table for name, table in tables.items()}, axis=1)
    columns.columns = [f"{name}.{column}" for name, column in columns.columns]
    predicted = model.predict(columns)
    assert np.array_equal(predicted.to_numpy(), result.predictor.votes(tables)["fused"])
