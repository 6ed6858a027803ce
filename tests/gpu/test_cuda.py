"""Training on a GPU: what the CPU finds, within the accuracy of the arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m3col
from m3col import tasks
from m3col.devices import device_of
from m3col.training.fold_trainer import FoldTrainer
from tests.support.helpers import tiny_config, tiny_data

EPOCHS = 5


def losses(device: str, **changes: Any) -> list[float]:
    """The training loss of each of a few epochs; no dropout, whose masks differ between devices."""
    data = tiny_data(samples=60)
    run = tiny_config(train__device=device, model__dropout=0.0, **changes)
    assert device_of(run).type == device
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2))
    return [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in range(1, EPOCHS + 1)]


def test_in_float64_a_gpu_trains_as_the_cpu_does():
    assert losses("cuda", train__precision="float64") == pytest.approx(
        losses("cpu", train__precision="float64"), rel=1e-8
    )


def test_a_step_in_bfloat16_is_finite_and_near_float32():
    near, exact = (losses("cuda", train__precision=name) for name in ("bfloat16", "float32"))
    assert np.isfinite(near).all()
    assert near == pytest.approx(exact, rel=0.05)
    assert near != exact, "it did not compute in bfloat16"


def test_compiled_encoders_equal_the_eager_ones():
    compiled, eager = (losses("cuda", model__compile=flag) for flag in (True, False))
    assert compiled == pytest.approx(eager, rel=1e-4)


def test_digits_trained_on_a_gpu_reach_the_accuracy_of_the_cpu(tmp_path: Path):
    test = m3col.data.load("digits").test
    accuracies = {}
    for device in ("cpu", "cuda"):
        result = m3col.train(
            "digits", overrides={"train.device": device}, runs=tmp_path / device, tracking_uri="none"
        )  # fmt: skip
        found = result.predict_proba(test.inputs)
        assert np.isfinite(found).all()
        accuracies[device] = float((found.argmax(1) == test.labels).mean())
    # Two standard errors of the difference of two accuracies on the same samples, were they independent.
    spread = 2 * np.sqrt(2 * accuracies["cpu"] * (1 - accuracies["cpu"]) / len(test.labels))
    assert accuracies["cpu"] > 0.9 and abs(accuracies["cpu"] - accuracies["cuda"]) <= spread, accuracies


def test_a_model_predicts_on_a_gpu_what_it_predicts_on_the_cpu(tmp_path: Path):
    run = m3col.train("digits", overrides={"train.epochs": 20}, runs=tmp_path, tracking_uri="none")
    inputs = m3col.data.load("digits").test.inputs
    here, there = (m3col.load(run.checkpoint, device=device).predict_proba(inputs) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)


def test_a_deterministic_training_repeats_bit_for_bit():
    changes: dict[str, Any] = {"train__deterministic": True, "model__dropout": 0.3}
    assert losses("cuda", **changes) == losses("cuda", **changes)
