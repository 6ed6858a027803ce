"""The result of one training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.predictor import Predictor, load
from m3col.training.history import Record


@dataclass(frozen=True)
class TrainResult:
    """`metrics`: the last epoch's, and test/... where the data set has labelled test samples; `history`: one row per
    epoch; `checkpoint`: folder of the model; `mlflow_run_id`: None where tracking is off; `dropped`: samples that were
    left out when the data was read, by reason."""

    metrics: dict[str, float]
    history: pd.DataFrame
    checkpoint: Path
    config: RunConfig
    mlflow_run_id: str | None = None
    folder: Path = field(default_factory=Path)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.checkpoint)

    def predict_proba(self, data: Mapping[str, Any]) -> np.ndarray:
        """Class probabilities [N, C] for new samples, see `Predictor.predict_proba`."""
        return self.predictor.predict_proba(data)


def history_frame(history: list[Record]) -> pd.DataFrame:
    """One row per epoch: epoch, time (Unix seconds), value, and all metrics."""
    return pd.DataFrame([{"epoch": r.epoch, "time": r.time, "value": r.value, **r.metrics} for r in history])
