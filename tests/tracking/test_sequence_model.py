"""A model of sequences in MLflow: its signature, and predictions from a table whose cells are lists of steps."""

import json

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types.schema import Array, DataType

import m3col
from m3col.tracking import mlflow_store
from tests.support.sequence_data import sequence_dataset, sequence_inputs

CONFIG = {
    "data": {"name": "arrays"},
    "model": {"embedding_dim": 8, "classifier_dim": 8, "sequence": {"name": "gru", "width": 8, "layers": 1}},
    "train": {"epochs": 2, "batch_size": 16},
    "validation": {"kind": "holdout"},
}


def test_the_logged_model_predicts_from_cells_that_hold_sequences(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = m3col.train(CONFIG, data=sequence_dataset(), runs=tmp_path)
    tracker = mlflow_store.connect(None, tmp_path)
    run = tracker.client.get_run(result.mlflow_run_id)
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    columns = model.metadata.signature.inputs
    assert columns.input_names() == ["series", *(f"table.table_{number}" for number in range(4))]
    assert columns.input_types()[0] == Array(Array(DataType.double))
    inputs, _ = sequence_inputs(5, seed=3)
    inputs["series"][0][0, 1] = np.nan  # is imputed
    table = pd.DataFrame(inputs["table"], columns=columns.input_names()[1:])
    wanted = m3col.load(result.checkpoint).predict_proba(inputs)
    cells = [sequence.astype(float).tolist() for sequence in inputs["series"]]
    for series in (cells, [np.array(sequence) for sequence in cells]):
        np.testing.assert_array_equal(model.predict(table.assign(series=series)).to_numpy(), wanted)
    # as MLflow's server receives it, with null for a missing value
    sent = json.loads(json.dumps(cells).replace("NaN", "null"))
    np.testing.assert_array_equal(model.predict(table.assign(series=sent)).to_numpy(), wanted)
    with pytest.raises(MlflowException):
        model.predict(table.assign(series=["a"] * 5))
