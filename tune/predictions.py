"""One table of predictions per study, the free baselines, and the ensemble that is delivered.

`predictions.parquet` has one row per run and sample: job (folder of the run, or baselines/<row>), kind ("oof": the
sample was held out; "test"), id, fold, seed, label, logit_0 .. logit_<C-1>, and group where the test samples have one.
-1 stands for what is not there: the fold of a test row, the seed of a baseline, a label that was withheld.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from m3col import baselines, checkpoint, ledger, linear, metrics
from m3col.config import RunConfig
from m3col.data import naming
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold, pool, read_csv
from m3col.faults import BadInput
from tune.config import StudyConfig
from tune.runs import is_wanted
from tune.study import COMPLETE, RunFolder, StudyFolder

FILE = "predictions.parquet"
OOF, TEST = "oof", "test"
NONE = -1
BASELINES = "baselines/"
_FROZEN = "logistic frozen"
_TINY = 1e-300  # the logarithm of a probability of 0 stays finite


def collect(folder: StudyFolder, config: StudyConfig, dataset: Dataset) -> None:
    """Brings together what the runs left, once all of them are over; may be called again.

    Writes predictions.parquet and results/model (the winner's refits as one ensemble), and notes in the ledger of the
    runs folder that the test split was scored. `dataset` holds the test labels, where there are any.
    """
    samples = pool(dataset, config.run.validation.kind or "none")
    runs = [(name, run) for name, run in folder.runs() if is_wanted(name, seeds=config.settings.final.seeds)]
    parts = [part for name, run in runs if (part := _of_run(name, run, samples, dataset.test)) is not None]
    if config.settings.final.baselines:
        partition = deciding_partition(folder)
        folds = read_csv(folder.path / "splits.csv", ids=samples.ids)[partition]
        parts += list(_of_baselines(config.run, dataset, samples, folds))
    columns = ["job", "kind", "id", "fold", "seed", "label", *(f"logit_{c}" for c in range(dataset.num_classes))]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    _write(folder.path / FILE, table)
    _deliver(folder, runs)
    if dataset.test is not None and dataset.test.labels is not None:
        jobs = table.loc[table["kind"] == TEST, "job"].unique()
        ledger.add(
            folder.path.parent,
            dataset=dataset.name,
            digest=dataset.digests()["test"],
            by=ledger_name(folder),
            rows=len(jobs),
        )


def read(folder: StudyFolder) -> pd.DataFrame:
    """The table that `collect` wrote. Raises BadInput where the study has none yet."""
    path = folder.path / FILE
    if not path.exists():
        raise BadInput([f"{folder.path}: has no {FILE}: the study has not come to its end; go on with --resume"])
    return pd.read_parquet(path)


def logits_of(rows: pd.DataFrame) -> np.ndarray:
    """Logits [N, C] of some rows of the table."""
    count = sum(name.startswith("logit_") for name in rows.columns)
    return rows[[f"logit_{c}" for c in range(count)]].to_numpy(dtype=np.float64)


def cross_validated(rows: pd.DataFrame) -> dict[str, float]:
    """Every metric of the out-of-fold rows of one job."""
    folds = [part for _, part in rows.groupby("fold", sort=True)]
    labels = [part["label"].to_numpy() for part in folds]
    return metrics.cross_validated(labels, [metrics.softmax(logits_of(part)) for part in folds])


def deciding_partition(folder: StudyFolder) -> str:
    """The column of splits.csv on which the winner was picked."""
    results = [run.result() for name, run in folder.runs() if name.startswith("confirm/")]
    return "confirm" if any(result is not None and result["state"] == COMPLETE for result in results) else "search"


def ledger_name(folder: StudyFolder) -> str:
    """How the ledger calls this study: with its date, because a name is free again once a study is removed."""
    described = folder.described()
    return f"search/{described['name']} ({described['created']})"


def arrays_of(run: RunFolder) -> dict[str, np.ndarray] | None:
    """What a finished run predicted, as its worker wrote it; None for a run that has no predictions."""
    result = run.result()
    if result is None or result["state"] != COMPLETE:
        return None
    path = run.path / result["attempt"] / "predictions.safetensors"
    return load_file(path) if path.exists() else None


def _of_run(name: str, run: RunFolder, samples: Split, test: Split | None) -> pd.DataFrame | None:
    arrays = arrays_of(run)
    if arrays is None:
        return None
    seed = run.config()["train"]["seed"]
    refit = name.startswith("refits/")
    source = test if refit else samples
    assert source is not None  # a refit predicts only where there are test samples
    return _frame(name, source.take(arrays["index"]), arrays["logits"], fold=arrays["fold"], seed=seed, test=refit)


def _frame(
    job: str, samples: Split, logits: np.ndarray, *, fold: Any = NONE, seed: int = NONE, test: bool
) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "job": job,
        "kind": TEST if test else OOF,
        "id": samples.ids.astype(str),
        "fold": fold,
        "seed": seed,
        "label": NONE if samples.labels is None else samples.labels,
        **{f"logit_{c}": logits[:, c].astype(np.float64) for c in range(logits.shape[1])},
    }
    if test and samples.groups is not None:
        columns["group"] = samples.groups.astype(str)
    return pd.DataFrame(columns)


def _of_baselines(run: RunConfig, dataset: Dataset, samples: Split, folds: list[Fold]) -> Iterator[pd.DataFrame]:
    """Rows of `majority`, `logistic` and `logistic <modality>`, the modality that is best on these folds; `logistic
    frozen` with embeddings of texts, where their encoder comes with trained weights."""
    modalities = list(dataset.modalities)
    views = linear.Views(run, dataset.features)
    yield from _baseline("majority", None, views, dataset, samples, folds)
    yield from _baseline("logistic", modalities, views, dataset, samples, folds)
    if linear.frozen_differs(run, dataset.kinds.values()):
        yield from _baseline(_FROZEN, modalities, views, dataset, samples, folds)
    if len(modalities) < 2:
        return
    metric = declared(run, dataset.num_classes)
    sign = 1 if metrics.higher_is_better(metric) else -1
    scores = {}
    for modality in modalities:
        parts = [_held_out("", [modality], views, dataset, samples, fold, k) for k, fold in enumerate(folds)]
        scores[modality] = sign * cross_validated(pd.concat(parts))[metric]
    best = max(scores, key=lambda name: scores[name])
    yield from _baseline(naming.apart(f"logistic {best}", [_FROZEN]), [best], views, dataset, samples, folds)


def declared(run: RunConfig, num_classes: int) -> str:
    """The metric of the test table: the search's own without its split, or the nearest one that a test set has.

    A loss of the training has no counterpart but the log-loss, one modality's accuracy none but the accuracy.
    """
    name = (run.metric or f"val/{metrics.default(num_classes)}").partition("/")[2]
    if name in metrics.names(num_classes):
        return name
    return "accuracy" if name.startswith("accuracy") else "log_loss"


def _baseline(
    row: str, modalities: list[str] | None, views: linear.Views, dataset: Dataset, samples: Split, folds: list[Fold]
) -> Iterator[pd.DataFrame]:
    for number, fold in enumerate(folds):
        yield _held_out(row, modalities, views, dataset, samples, fold, number)
    if dataset.test is not None:
        logits = _fit(row, modalities, views, dataset, dataset.train, dataset.test)
        yield _frame(f"{BASELINES}{row}", dataset.test, logits, test=True)


def _held_out(
    row: str,
    modalities: list[str] | None,
    views: linear.Views,
    dataset: Dataset,
    samples: Split,
    fold: Fold,
    number: int,
) -> pd.DataFrame:
    held = samples.take(fold.validation)
    logits = _fit(row, modalities, views, dataset, samples.take(fold.train), held)
    return _frame(f"{BASELINES}{row}", held, logits, fold=number, test=False)


def _fit(
    row: str, modalities: list[str] | None, views: linear.Views, dataset: Dataset, train: Split, apply: Split
) -> np.ndarray:
    """Log probabilities [N, C] for `apply`; everything is fitted on `train`. No modalities: the majority."""
    assert train.labels is not None
    if modalities is None:
        found = baselines.majority(train.labels, len(apply), num_classes=dataset.num_classes)
    else:
        pairs = [views.of(name, train, apply, frozen=row == _FROZEN) for name in modalities]
        x_train, x_apply = (linear.beside(parts) for parts in zip(*pairs, strict=True))
        found = baselines.logistic(x_train, train.labels, x_apply, num_classes=dataset.num_classes)
    return np.log(np.maximum(found, _TINY))


def _write(path: Path, table: pd.DataFrame) -> None:
    part = path.with_name(f".{path.name}.part")
    table.to_parquet(part, index=False)
    os.replace(part, path)


def _deliver(folder: StudyFolder, runs: Sequence[tuple[str, RunFolder]]) -> None:
    models = []
    for name, run in runs:
        result = run.result() if name.startswith("refits/winner/") else None
        if result is not None and result["state"] == COMPLETE:
            models.append(run.path / result["attempt"] / "model")
    target = folder.results / "model"
    if models:
        checkpoint.join_models(target, models)
    else:
        shutil.rmtree(target, ignore_errors=True)
