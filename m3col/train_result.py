"""The result of one training run."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.metrics import spec
from m3col.predictor import Predictor, load
from m3col.training.history import Record


@dataclass(frozen=True)
class TrainResult:
    """The results of one training.

    Attributes:
        metrics: the metrics of the last epoch, and `test/...` where the data set has labelled test samples.
        history: one row per epoch: epoch, time (Unix seconds), the smoothed score `value`, and all metrics.
        checkpoint: folder of the model, for `m3col.load`.
        config: the config with all values filled in.
        mlflow_run_id: the run in MLflow; None where tracking is off.
        folder: folder of the run.
        dropped: samples that were left out when the data was read, by reason.
    """

    metrics: dict[str, float]
    history: pd.DataFrame
    checkpoint: Path
    config: RunConfig
    mlflow_run_id: str | None = None
    folder: Path = field(default_factory=Path)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def predictor(self) -> Predictor:
        """The trained model, loaded on first use."""
        return load(self.checkpoint)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {spec.text(name, value)}" for name, value in self._shown().items())
        return f"TrainResult({self.config.method} on {self.config.data.name}, {len(self.history)} epochs: {shown})"

    def _repr_html_(self) -> str:
        values = {name: spec.text(name, value) for name, value in self._shown().items()}
        table = pd.DataFrame({"value": values}).to_html(border=0)
        about = html.escape(f"{self.config.method} on {self.config.data.name}, {len(self.history)} epochs")
        return f"<p><b>{about}</b><br><code>{html.escape(str(self.checkpoint))}</code></p>{table}"

    def _shown(self) -> dict[str, float]:
        """The test metrics; without a test the validation metrics; without both the training loss."""
        for split in ("test/", "val/", "train/loss"):
            if shown := {name: value for name, value in self.metrics.items() if name.startswith(split)}:
                return shown
        return {}

    def predict_proba(self, data: Mapping[str, Any]) -> np.ndarray:
        """Probabilities of classes or labels for new samples.

        Args:
            data: by modality N samples, see `Predictor.predict_proba`.

        Returns:
            Probabilities [N, C].

        Raises:
            InputError: the data does not fit the model, see `Predictor.predict_proba`.
        """
        return self.predictor.predict_proba(data)


def history_frame(history: list[Record]) -> pd.DataFrame:
    """The epochs of a training as a table.

    Args:
        history: the record of each epoch.

    Returns:
        One row per epoch: epoch, time (Unix seconds), value, and all metrics.

    Example:
        >>> from m3col.train_result import history_frame
        >>> from m3col.training.history import Record
        >>> history_frame([Record(epoch=1, time=0.0, value=0.5, metrics={"val/accuracy": 0.5})]).columns.tolist()
        ['epoch', 'time', 'value', 'val/accuracy']
    """
    return pd.DataFrame([{"epoch": r.epoch, "time": r.time, "value": r.value, **r.metrics} for r in history])
