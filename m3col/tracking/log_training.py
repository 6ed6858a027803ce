"""Logs a finished training to MLflow: metrics, parameters, note, figures, checkpoint and model."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from m3col.config.keys import flatten
from m3col.metrics import spec
from m3col.plots import model_plots
from m3col.runtime import notices
from m3col.tracking import payload
from m3col.tracking.mlflow_store import KIND, LACKS, NOTE, RUN, Tracker
from m3col.tracking.payload import Point
from m3col.training import checkpoint

if TYPE_CHECKING:
    from m3col.data.dataset import Dataset
    from m3col.train_result import TrainResult


def log_or_warn(tracker: Tracker, result: "TrainResult", *, dataset: "Dataset", started: float) -> str | None:
    """Logs a finished training. Returns the id of the MLflow run, or None where none could be created.

    Errors of MLflow become warnings: the training is complete in its folder, and a failing store must not spoil it.
    """
    try:
        return log(tracker, result, dataset=dataset, started=started)
    except Exception as error:  # whatever MLflow raises
        notices.warn(f"{result.folder}: not written to MLflow at {tracker.shown}: {payload.reason_of(error)}")
        return None


def log(tracker: Tracker, result: "TrainResult", *, dataset: "Dataset", started: float) -> str:
    """Logs the training as one MLflow run with the status FINISHED. Returns the id of the run.

    Parts that MLflow rejects are named in a warning and in a tag of the run. Raises whatever MLflow raises where it
    cannot create the run.
    """
    tags = {
        KIND: "training", RUN: result.folder.name, "m3col.folder": str(result.folder),
        "m3col.versions": ", ".join(f"{name} {value}" for name, value in checkpoint.versions().items()),
        "m3col.digests": ", ".join(f"{name} {value[:12]}" for name, value in dataset.digests().items()),
        NOTE: _note(result),
    }  # fmt: skip
    features = {name: len(columns) for name, columns in dataset.features.items()}
    with tracker.running(dataset.name, result.folder.name, tags=tags, started=started) as run:
        steps = {
            "metrics": lambda: _write_metrics(tracker, run, result),
            "data set": lambda: tracker.dataset(
                run, dataset.name, dataset.digests(), {"features": features, "dropped": dataset.dropped}
            ),
            "config": lambda: tracker.artifacts(run, result.folder / "config.yaml"),
            "checkpoint": lambda: tracker.artifacts(run, result.checkpoint, "checkpoint"),
            "figures": lambda: _send_figures(tracker, run, result, dataset),
            "model": lambda: tracker.model(run, result.checkpoint, example=payload.medians(dataset)),
        }
        failed = tracker.attempt(run, steps)
        for part, reason in failed.items():
            notices.warn(f"{result.folder}: MLflow at {tracker.shown} lacks the {part} of this training: {reason}")
        if failed:
            tracker.write(run, tags={LACKS: "; ".join(f"{part}: {reason}" for part, reason in failed.items())})
    return run


def _write_metrics(tracker: Tracker, run: str, result: "TrainResult") -> None:
    history = payload.history_points(payload.records(result.history))
    last, now = len(result.history), time.time()
    tested = [Point(name, value, last, now) for name, value in result.metrics.items() if name.startswith("test/")]
    tracker.write(run, history, params=dict(flatten(result.config.to_dict())))
    tracker.write(run, tested)


def _send_figures(tracker: Tracker, run: str, result: "TrainResult", dataset: "Dataset") -> None:
    """Uploads learning curves and, where the data set has test labels, the figures of the task, as PNG files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        curves = model_plots.learning_curves([result.history], metric=result.config.metric)
        model_plots.save(curves, folder / "learning_curves.png")
        if dataset.test is not None and dataset.test.labels is not None:
            predictor = result.predictor
            predictions = predictor.votes(dataset.test.inputs)[predictor.primary]
            for name, figure in predictor.task.figures(dataset.test.labels, predictions).items():
                model_plots.save(figure, folder / f"{name}.png")
        tracker.artifacts(run, folder, "figures")


def _note(result: "TrainResult") -> str:
    """Markdown for the run's page."""
    tested = {name.removeprefix("test/"): value for name, value in result.metrics.items() if name.startswith("test/")}
    names = [name for name in spec.TABLE if name in tested]
    lines = [f"**{result.config.method}** on **{result.config.data.name}**, {len(result.history)} epochs", ""]
    if names:
        lines += [
            "| test metric | value |",
            "|---|---|",
            *(f"| {name} | {spec.text(name, tested[name])} |" for name in names),
            "",
        ]
    notice = checkpoint.describe(result.checkpoint, "model").get("notice", "")
    return "\n".join([*lines, *([notice, ""] if notice else []), f"Checkpoint and log: `{result.folder}`"])
