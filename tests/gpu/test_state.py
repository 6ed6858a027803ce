"""A checkpoint goes from a GPU to a GPU, to the CPU and back, with the devices and types that the optimizer needs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from m3col.training import checkpoint
from m3col.training.loop import LockstepTrainer
from tests.gpu.work import training_of
from tests.support.helpers import tiny_config, tiny_data

EPOCHS, SAVED = 5, 3


def new_training(device: torch.device, precision: str) -> LockstepTrainer:
    run = tiny_config(
        train__precision=precision, train__epochs=EPOCHS, model__dropout=0.0, validation__kind="none"
    )  # fmt: skip
    return training_of(run, device, data=tiny_data(samples=60))


def check_moments(training: LockstepTrainer) -> None:
    """Each moment is where its weight is, in its type; the fused optimizer counts steps there too, in float32."""
    (trainer,) = training.trainers
    for parameter, moments in trainer.optimizer.state.items():
        kinds = {name: (value.device, value.dtype) for name, value in moments.items()}
        assert kinds == {
            "step": (parameter.device, torch.float32),
            "exp_avg": (parameter.device, parameter.dtype),
            "exp_avg_sq": (parameter.device, parameter.dtype),
        }
        assert parameter.device.type == trainer.device.type


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("direction", ["from GPU to GPU", "from GPU to CPU", "from CPU to GPU"])
def test_a_training_resumes_from_the_checkpoint_of_another_device(device, direction, precision, tmp_path: Path):
    cpu = torch.device("cpu")
    source, target = {
        "from GPU to GPU": (device, device), "from GPU to CPU": (device, cpu), "from CPU to GPU": (cpu, device),
    }[direction]  # fmt: skip
    whole = new_training(source, precision)
    whole.advance(SAVED)
    check_moments(whole)
    checkpoint.write_training(tmp_path / "epoch-000003", whole)
    whole.advance(EPOCHS)
    resumed = new_training(target, precision)
    checkpoint.restore_training(tmp_path / "epoch-000003", resumed)
    check_moments(resumed)
    assert resumed.epoch == SAVED
    resumed.advance(EPOCHS)
    check_moments(resumed)
    expected: Any = [record.metrics["train/loss"] for record in whole.history]
    if source == target:
        assert [record.metrics["train/loss"] for record in resumed.history] == expected
    rel = 1e-9 if precision == "float64" else 1e-4
    assert [record.metrics["train/loss"] for record in resumed.history] == pytest.approx(expected, rel=rel)
