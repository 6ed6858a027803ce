"""`m3col analyse`."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.commands.model import data_for
from jobs.terminal.console import runs_of
from m3col.errors import InputError

if TYPE_CHECKING:
    from m3col.data.dataset import Dataset
    from m3col.predictor import Predictor
    from m3col.tracking.mlflow_store import Tracker


def analyse(arguments: argparse.Namespace) -> int:
    from m3col.analysis import runner
    from m3col.evaluation import test_ledger
    from m3col.tracking import mlflow_store

    words, only, runs = _split(arguments.words) or [], _split(arguments.only), runs_of(arguments)
    checkpoint = Path(arguments.checkpoint).absolute()
    out = arguments.out or checkpoint.parent / "analysis"
    predictor, dataset = _validated(arguments, words, only, out)
    tracker = mlflow_store.connect(arguments.tracking_uri, runs)
    paths = runner.analyse(predictor, dataset, out, words, only, arguments.seed)
    test_ledger.add(runs, dataset=dataset.name, digest=dataset.digests()["test"], by=f"analyse/{checkpoint}", rows=1)
    if tracker is not None:
        _track(tracker, paths, checkpoint, dataset)
    print(f"{len(paths)} files in {out}; begin with {paths[-1]}")
    return 0


def _split(text: str | None) -> list[str] | None:
    """Splits at commas."""
    return None if text is None else [word.strip() for word in text.split(",")]


def _validated(
    arguments: argparse.Namespace, words: Sequence[str], only: Sequence[str] | None, out: Path
) -> "tuple[Predictor, Dataset]":
    """Loads the model and its data set. Raises InputError with the faults of both and of the options."""
    import m3col
    from m3col.analysis import runner
    from m3col.checks.limits import disk_faults

    predictor: Predictor | None = None
    dataset: Dataset | None = None
    faults: list[str] = []
    try:
        predictor = m3col.load(arguments.checkpoint, device=arguments.device)
        dataset = data_for(predictor, arguments)
        faults += predictor.dataset_faults(dataset)
    except InputError as error:
        faults += error.faults
    faults += runner.name_faults(only) + runner.word_faults(words, only, predictor) + runner.folder_faults(out)
    faults += disk_faults(runs_of(arguments), 0, what="the ledger")
    if arguments.seed < 0:
        faults.append(f"--seed must be >= 0, but got {arguments.seed}; the nearest valid value is 0")
    if faults or predictor is None or dataset is None:
        raise InputError(list(dict.fromkeys(faults)))
    return predictor, dataset


def _track(tracker: "Tracker", paths: Sequence[Path], checkpoint: Path, dataset: "Dataset") -> None:
    """Sends these files to MLflow (the folder may have others). If MLflow fails, this is a warning: the files exist."""
    from m3col.storage.redaction import scrubbed
    from m3col.tracking import mlflow_store

    tags = {
        mlflow_store.KIND: "analysis",
        "m3col.training.checkpoint": str(checkpoint),
        "m3col.digests": ", ".join(f"{name} {value[:12]}" for name, value in dataset.digests().items()),
        mlflow_store.NOTE: paths[-1].read_text(encoding="utf-8"),
    }
    try:
        tracker.log_files(paths, experiment=dataset.name, name=f"analysis of {checkpoint}", tags=tags, under="analysis")
    except Exception as error:  # whatever MLflow raises
        shown = f"{paths[-1].parent}: not written to MLflow at {tracker.shown}: {scrubbed(str(error))}"
        warnings.warn(shown, stacklevel=2)
