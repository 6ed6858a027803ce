"""Whole trainings and predictions on a GPU: what the CPU finds, within the accuracy of the arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import m3col
from tests.gpu.work import trainer_of
from tests.support.helpers import tiny_config, tiny_data

EPOCHS = 5
CPU = torch.device("cpu")


def losses(device: torch.device, **changes: Any) -> list[float]:
    """The training loss of each of a few epochs; no dropout by default, because its masks differ between devices."""
    run = tiny_config(**{"model__dropout": 0.0, "validation__kind": "none", **changes})
    trainer = trainer_of(run, device, data=tiny_data(samples=60))
    return [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in range(1, EPOCHS + 1)]


def test_in_float64_a_gpu_trains_as_the_cpu_does(device):
    expected = losses(CPU, train__precision="float64")
    assert losses(device, train__precision="float64") == pytest.approx(expected, rel=1e-8)


def test_a_step_in_bfloat16_is_finite_and_near_float32(device):
    near, exact = (losses(device, train__precision=name) for name in ("bfloat16", "float32"))
    assert np.isfinite(near).all()
    assert near == pytest.approx(exact, rel=0.05)
    assert near != exact, "it did not compute in bfloat16"


def test_tf32_rounds_the_products_and_float32_does_not(card):
    """The first loss, before the weights can drift apart; wide layers, since TF32 is not for tiny matrices."""
    wide = {"model__embedding_dim": 256, "model__classifier_dim": 256}
    near, exact, single = (losses(card, train__precision=name, **wide)[0] for name in ("tf32", "float64", "float32"))
    assert near == pytest.approx(exact, rel=0.01) and single == pytest.approx(exact, rel=1e-5)
    assert near != single, "it did not compute in TF32"


def test_compiled_encoders_equal_the_eager_ones(device):
    compiled, eager = (losses(device, model__compile=flag) for flag in (True, False))
    assert compiled == pytest.approx(eager, rel=1e-4)


def test_digits_trained_on_a_gpu_reach_the_accuracy_of_the_cpu(device, tmp_path: Path):
    test = m3col.data.load("digits").test
    accuracies = {}
    for name, place in (("CPU", "cpu"), ("GPU", device.type)):
        result = m3col.train("digits", overrides={"train.device": place}, runs=tmp_path / name, tracking_uri="none")
        probabilities = result.predict_proba(test.inputs)
        assert np.isfinite(probabilities).all()
        accuracies[name] = float((probabilities.argmax(1) == test.labels).mean())
    # Two standard errors of the difference of two accuracies on the same samples, were they independent.
    spread = 2 * np.sqrt(2 * accuracies["CPU"] * (1 - accuracies["CPU"]) / len(test.labels))
    assert accuracies["CPU"] > 0.9 and abs(accuracies["CPU"] - accuracies["GPU"]) <= spread, accuracies


def test_a_model_predicts_on_a_gpu_what_it_predicts_on_the_cpu(device, tmp_path: Path):
    run = m3col.train("digits", overrides={"train.epochs": 20}, runs=tmp_path, tracking_uri="none")
    inputs = m3col.data.load("digits").test.inputs
    here, there = (m3col.load(run.checkpoint, device=name).predict_proba(inputs) for name in ("cpu", device.type))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)


def test_a_deterministic_training_repeats_bit_for_bit(device):
    changes: dict[str, Any] = {"train__deterministic": True, "model__dropout": 0.3}
    assert losses(device, **changes) == losses(device, **changes)
