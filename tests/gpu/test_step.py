"""A step of training on a GPU is the step on the CPU: loss, gradients and the optimizer's change, for every method."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from m3col.data.arrays import from_arrays
from m3col.data.dataset import Dataset
from m3col.methods import registry
from tests.gpu.work import assert_close, trainer_of
from tests.support.helpers import allowed, tiny_config

EPOCHS = 10  # the first is in the phase of M3Co, the last in that of MultiSClip


class Case(NamedTuple):
    method: str
    epoch: int
    level: str
    class_weight: str
    accumulate: int


CASES = [
    Case(*case)
    for case in itertools.product(
        ("m3col", "mixup", "concat", "single"), (1, EPOCHS), ("input", "embedding"), ("none", "balanced"), (1, 2)
    )
    # Only m3col has a second phase, and only the first one mixes.
    if (case[0] == "m3col" or case[1] == 1) and (case[2] == "input" or (case[0] in ("m3col", "mixup") and case[1] == 1))
]


def modalities(method: str) -> list[str]:
    spec = registry.find(method)
    return ["m0", "m1", "m2"][: 1 if spec.one_modality else spec.most_modalities]


def table(device: torch.device, method: str) -> Dataset:
    """Three tables with the sizes of ROSMAP; small ones without a GPU."""
    samples, columns = (245, 200) if device.type == "cuda" else (21, 6)
    draw = np.random.default_rng(0)
    names = modalities(method)
    labels = np.array([0, 1, 2, 1] * samples)[:samples]
    return from_arrays({name: draw.normal(size=(samples, columns)) for name in names}, labels)


def step(case: Case, sizes: torch.device, device: torch.device, precision: str) -> dict[str, np.ndarray]:
    """Losses of one optimizer step, its gradients, and the weights after it. `sizes`: the device that decides them."""
    data, width = table(sizes, case.method), 1000 if sizes.type == "cuda" else 8
    own: dict[str, Any] = {"mix__level": case.level} if registry.find(case.method).mixes else {}
    own |= {"data__modalities": modalities(case.method), **allowed(case.method)}
    run = tiny_config(
        method=case.method, objective__class_weight=case.class_weight, train__precision=precision,
        train__epochs=EPOCHS, train__accumulate=case.accumulate, model__embedding_dim=width,
        model__classifier_dim=width, model__dropout=0.0, validation__kind="none",
        train__batch_size=None if case.accumulate == 1 else -(-len(data.train) // case.accumulate), **own,
    )  # fmt: skip
    trainer = trainer_of(run, device, data=data)
    means = trainer.train_epoch(case.epoch, learning_rate=5e-3)
    values = {f"loss.{name}": np.array(value) for name, value in means.items()}
    for name, parameter in trainer.method.named_parameters():
        assert parameter.grad is not None, name
        values[f"grad.{name}"] = parameter.grad.cpu().numpy()
        values[f"weight.{name}"] = parameter.detach().cpu().numpy()
    return values


def without_weights(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adam divides a gradient by its size, so that the step of a tiny one has no accuracy in float32."""
    return {name: value for name, value in values.items() if not name.startswith("weight.")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_step_in_float64_and_one_in_float32_equal_the_step_of_the_cpu(case, device):
    reference = step(case, device, torch.device("cpu"), "float64")
    assert_close(step(case, device, device, "float64"), reference, rel=1e-9)
    # A product in TF32, whose inputs have 11 bits, would be off by 5e-4 and more.
    single = step(case, device, device, "float32")
    assert_close(without_weights(single), without_weights(reference), rel=1e-4)


OTHERS = [
    name
    for name in registry.names()
    if name not in {case.method for case in CASES} and registry.find(name).kinds is None
]


@pytest.mark.parametrize("method", OTHERS)
def test_losses_and_gradients_of_every_other_method_are_those_of_the_cpu(method, device):
    """Not the weights: a bias in front of a BatchNorm has a gradient of 0 but for rounding, of which Adam makes a step
    of full size."""
    case = Case(method, 1, "input", "none", 1)
    reference = without_weights(step(case, device, torch.device("cpu"), "float64"))
    assert_close(without_weights(step(case, device, device, "float64")), reference, rel=1e-9, floor=1e-11)
    assert_close(without_weights(step(case, device, device, "float32")), reference, rel=1e-3, floor=1e-5)
