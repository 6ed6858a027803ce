"""Method and task declare together what an epoch reports, for every method in the table."""

import numpy as np
import pytest

from m3col import tasks
from m3col.data.dataset import Dataset
from m3col.data.splits import draw
from m3col.evaluation.epoch_metrics import known_metrics
from m3col.methods import registry
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import allowed, tiny_config, tiny_data

SUPERVISION = "objective.unimodal_supervision"

# Each method, and with and without heads on single modalities where it has that setting.
CASES = [
    (method, supervision)
    for method in registry.names()
    if registry.find(method).kinds is None
    for supervision in ((True, False) if SUPERVISION in registry.find(method).keys else (True,))
]


def reported(config, data: Dataset) -> set[str]:
    """The names under which any epoch of a short training reports numbers."""
    job = TrainingJob(
        pool=data.train,
        folds=draw(data, kind="kfold", folds=2, seed=0),
        features=data.features,
        task=tasks.build(config.task, data.classes),
    )
    records = LockstepTrainer(config, job).advance(config.train.epochs)
    return {name for record in records for name in record.metrics}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("method", "supervision"), CASES)
def test_what_is_declared_is_what_is_reported(method, supervision, classes):
    data, own = tiny_data(classes=classes), registry.find(method)
    overrides: dict[str, object] = {"method": method, "train__epochs": 3, **allowed(method)}
    if own.one_modality:
        data = data.select([data.modalities[0]])
        overrides["data__modalities"] = [data.modalities[0]]
    if SUPERVISION in own.keys:
        overrides["objective__unimodal_supervision"] = supervision
    config = tiny_config(**overrides)
    declared = known_metrics(config, data.modalities, tasks.build(config.task, classes))
    names = reported(config, data)
    assert sorted(name for name in declared if name.startswith("val/")) == sorted(
        name for name in names if name.startswith("val/")
    )
    losses = registry.load(method).loss_names(config, data.modalities)
    assert {f"train/{name}" for name in losses} | {"train/learning_rate"} == {
        name for name in names if name.startswith("train/")
    }
    assert np.isin("train/loss", declared)
