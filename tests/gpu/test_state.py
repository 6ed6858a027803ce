"""A checkpoint goes from a GPU to a GPU, to the CPU and back, with the layout that the optimizer needs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from m3col.training import checkpoint
from m3col.training.loop import LockstepTrainer
from tests.gpu.work import pair_config, training_of
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data

EPOCHS, SAVED = 5, 3


def tables(device: torch.device, precision: str) -> LockstepTrainer:
    run = tiny_config(train__precision=precision, train__epochs=EPOCHS, model__dropout=0.0, validation__kind="none")
    return training_of(run, device, data=tiny_data(samples=60))


def check_moments(training: LockstepTrainer) -> None:
    """Each moment has the device, type and strides of its weight, without which a fused optimizer refuses it on a GPU;
    steps are counted on the device, in float32."""
    (trainer,) = training.trainers
    for parameter, moments in trainer.optimizer.state.items():
        layout = (parameter.device, parameter.dtype, parameter.stride())
        assert {name: (value.device, value.dtype, value.stride()) for name, value in moments.items()} == {
            "step": (parameter.device, torch.float32, ()), "exp_avg": layout, "exp_avg_sq": layout,
        }  # fmt: skip
        assert parameter.device.type == trainer.device.type


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("direction", ["from GPU to GPU", "from GPU to CPU", "from CPU to GPU"])
def test_a_training_resumes_from_the_checkpoint_of_another_device(direction, precision, device, tmp_path: Path):
    cpu = torch.device("cpu")
    source, target = {
        "from GPU to GPU": (device, device), "from GPU to CPU": (device, cpu), "from CPU to GPU": (cpu, device),
    }[direction]  # fmt: skip
    whole = tables(source, precision)
    whole.advance(SAVED)
    check_moments(whole)
    checkpoint.write_training(tmp_path / "epoch-000003", whole)
    whole.advance(EPOCHS)
    resumed = tables(target, precision)
    checkpoint.restore_training(tmp_path / "epoch-000003", resumed)
    check_moments(resumed)
    assert resumed.epoch == SAVED
    resumed.advance(EPOCHS)
    check_moments(resumed)
    expected: Any = [record.metrics["train/loss"] for record in whole.history]
    values = [record.metrics["train/loss"] for record in resumed.history]
    if source == target:
        assert values == expected
    assert values == pytest.approx(expected, rel=1e-9 if precision == "float64" else 1e-4)


def test_a_training_of_images_resumes_with_the_layout_of_its_convolutions(device, tmp_path: Path):
    """Weights of convolutions are stored row by row, and kept channel by channel on a GPU."""
    run = pair_config(pairs.folder(tmp_path / "data"), device, validation__kind="none", train__epochs=2)
    whole, resumed = training_of(run, device), training_of(run, device)
    whole.advance(1)
    check_moments(whole)
    checkpoint.write_training(tmp_path / "epoch-000001", whole)
    checkpoint.restore_training(tmp_path / "epoch-000001", resumed)
    check_moments(resumed)
    for training in (whole, resumed):
        training.advance(2)
        check_moments(training)
    first, second = (training.history[-1].metrics["train/loss"] for training in (whole, resumed))
    assert second == pytest.approx(first, rel=1e-3)
