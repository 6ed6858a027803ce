"""Training on sequences beside a table: it learns, is the same on two ranks, and comes back from its checkpoint."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist

import m3col
from m3col import tasks
from m3col.checks import limits
from m3col.checks.resolve import resolve
from m3col.config import loading
from m3col.config.schema import RunConfig
from m3col.data.splits import Fold
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config
from tests.support.ranks import start_ranks
from tests.support.sequence_data import sequence_dataset, sequence_inputs

SMALL = {"width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.0}
ENCODERS = ("transformer", "gru", "convolution")


def config(name: str = "transformer", **changes: object) -> RunConfig:
    raw = {"model": {"embedding_dim": 8, "classifier_dim": 8, "sequence": {**SMALL, "name": name}},
           "train": {"epochs": 6, "learning_rate": 0.01}, "data": {"name": "arrays"}}  # fmt: skip
    return loading.load(raw, overrides={key.replace("__", "."): value for key, value in changes.items()})


def run_of(name: str, ranks: RankContext) -> dict[str, np.ndarray]:
    """Three epochs with whole and partial batches, of which the last one leaves a rank without samples."""
    data = sequence_dataset(samples=23)
    settings = config(name, train__batch_size=7, train__shards=2, train__precision="float64", train__epochs=4)
    job = TrainingJob(
        data.train, [Fold(np.arange(8, 23), np.arange(8))], data.features, tasks.build(classes=data.classes)
    )
    training = LockstepTrainer(settings, job, ranks)
    values = {f"{r.epoch}.{key}": np.array(v) for r in training.advance(3) for key, v in r.metrics.items()}
    return values | {"logits": training.out_of_fold()[2]}


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    runs = {f"{name}|{key}": value for name in ENCODERS for key, value in run_of(name, RankContext(rank, 2)).items()}
    np.savez(f"{folder}/{rank}.npz", **runs)  # type: ignore[arg-type]
    dist.destroy_process_group()


def test_two_ranks_compute_what_one_process_computes(tmp_path: Path):
    start_ranks(2, _rank, str(tmp_path))
    for rank in range(2):
        there = dict(np.load(tmp_path / f"{rank}.npz"))
        for name in ENCODERS:
            for key, wanted in run_of(name, SINGLE_RANK).items():
                assert np.allclose(there[f"{name}|{key}"], wanted, rtol=0, atol=1e-9), (name, key)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = config(train__epochs=40, train__batch_size=32, validation__kind="holdout", train__seed=1)
    return m3col.train(settings, data=sequence_dataset(samples=200, test=100), runs=tmp_path_factory.mktemp("runs"),
                       tracking_uri="none")  # fmt: skip


def test_m3col_learns_from_sequences_what_the_table_does_not_say(result):
    """The table alone separates the classes weakly: its best linear rule reaches about 70 percent."""
    assert result.config.method == "m3col" and result.metrics["test/accuracy"] > 0.85


def test_its_checkpoint_predicts_the_same_from_every_form_and_any_company(result):
    model = m3col.load(result.checkpoint)
    assert model.kinds == {"series": "sequence", "table": "numeric"} and len(model.features["series"]) == 3
    inputs, _ = sequence_inputs(30, seed=7)
    together = model.predict_proba(inputs)
    assert np.array_equal(together, result.predictor.predict_proba(inputs))
    alone = [
        model.predict_proba({"series": inputs["series"][row : row + 1], "table": inputs["table"][row : row + 1]})[0]
        for row in range(30)
    ]
    assert np.allclose(together, alone, rtol=0, atol=1e-6)
    index = [f"s{row}" for row in range(30)]
    other = {"series": pd.Series([torch.tensor(s) for s in inputs["series"]], index=index),
             "table": pd.DataFrame(inputs["table"], index=index)[::-1]}  # fmt: skip
    table = model.predict_table({**other, "table": other["table"].to_numpy()[::-1]})
    assert np.allclose(table.iloc[:, 1:3], together, rtol=0, atol=1e-6) and table.index.tolist() == index
    assert model.embeddings(inputs)["series"].shape == (30, 8)


def test_bad_sequences_of_a_prediction_are_reported_with_those_of_other_modalities(result):
    model = m3col.load(result.checkpoint)
    with pytest.raises(InputError) as caught:
        model.predict({"series": [np.zeros((0, 3)), np.zeros((2, 4))], "table": np.full((2, 4), np.inf)})
    text = str(caught.value)
    assert "sequence 1: has no steps" in text and "sequence 2: has 4 features, but the model has 3" in text
    assert "modality 'table': row 1" in text


def test_faults_of_the_section_are_reported_before_anything_runs():
    with pytest.raises(InputError) as caught:
        resolve(config(model__sequence__heads=3, validation__kind="holdout"), data=sequence_dataset())
    assert "model.sequence.heads must divide model.sequence.width (8), but is 3; the nearest valid value is 2" in str(
        caught.value
    )
    with pytest.raises(InputError, match=r"model.sequence.name"):
        config("lstm")
    with pytest.raises(InputError, match=r"data.sequence.max_length"):
        config(data__sequence__max_length=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_estimate_of_the_weights_is_their_number(name):
    data = sequence_dataset()
    trainer = FoldTrainer(
        config(name), data.train, features=data.features, task=tasks.build(classes=data.classes)
    )  # fmt: skip
    weights = sum(parameter.numel() for parameter in trainer.method.parameters())
    assert limits.checkpoint_bytes(config(name), data, folds=1) == 3 * 4 * weights


def test_truncation_of_the_config_reaches_the_model():
    data = sequence_dataset()
    trainer = FoldTrainer(
        config(data__sequence__max_length=2), data.train, features=data.features,
        task=tasks.build(classes=data.classes),
    )  # fmt: skip
    assert trainer._inputs["series"].rows(slice(None)).values.shape == (40, 2, 3)
    assert tiny_config().data.sequence.max_length is None
