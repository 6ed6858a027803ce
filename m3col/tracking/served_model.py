"""Prediction function of models that are logged to MLflow."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from m3col import predictor
from m3col.data import modality_kinds
from m3col.tracking import mlflow_store, payload


def load(checkpoint: Path) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Loads a checkpoint; returns a function from an input DataFrame to one column per class, label or target.

    Columns hold probabilities, or for the task `regression` the predicted numbers.

    The input has one column `<modality>.<feature>` per feature of a numeric table, in any order. It has one column with
    the modality's name for images (paths or contents of files), texts, or sequences (lists of steps).
    """
    model = predictor.load(checkpoint)
    kinds = model.kinds
    columns = payload.model_columns(model.features, kinds)

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        inputs = {
            name: table[group].set_axis(list(model.features[name]), axis=1)
            if modality_kinds.of(kinds[name]).is_table
            else table[name].tolist()
            for name, group in columns.items()
        }
        return pd.DataFrame(model.votes(inputs)[model.primary], columns=list(model.classes), index=table.index)

    return predict


def serve_model() -> None:
    """Registers the model with MLflow. The code file of every logged model calls it, so that it must keep its name."""
    mlflow_store.serve(load)
