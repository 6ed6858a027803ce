"""One class per sample: its loss against loops over samples and classes, class weights, stored columns."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from m3col import tasks
from m3col.tasks.base import Mixed

N, C = 11, 4
TASK = tasks.build("single_label", C)
RNG = np.random.default_rng(1)
OUTPUTS = torch.as_tensor(RNG.normal(size=(N, C)))
TARGETS = torch.as_tensor(RNG.integers(0, C, N))
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
MIXED = Mixed(torch.as_tensor(RNG.permutation(N)), torch.as_tensor(RNG.uniform(size=N)))


def slow_loss(rows: slice, scale: float, weight: list[float], mixed: Mixed | None) -> float:
    total, whole = 0.0, 0.0
    for i in range(N):
        shares = [(int(TARGETS[i]), 1.0)]
        if mixed is not None:
            lam = float(mixed.lam[i])
            shares = [(int(TARGETS[i]), lam), (int(TARGETS[int(mixed.partner[i])]), 1 - lam)]
        values = [float(x) for x in OUTPUTS[i]]
        largest = max(values)
        log_sum = largest + math.log(sum(math.exp(x - largest) for x in values))
        for label, share in shares:
            whole += share * weight[label]
            if rows.start <= i < rows.stop:
                total -= share * weight[label] * (values[label] - log_sum)
    return total * scale / whole


@pytest.mark.parametrize("rows", [slice(0, N), slice(3, 8)])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("mixed", [None, MIXED])
def test_the_loss_is_the_weighted_mean_of_negative_log_probabilities(rows, weight, mixed):
    expected = slow_loss(rows, 1.7, [1.0] * C if weight is None else weight.tolist(), mixed)
    loss = TASK.loss(OUTPUTS[rows], TARGETS, rows=rows, scale=1.7, weight=weight, mixed=mixed)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mixed", [None, MIXED])
def test_a_batch_of_a_class_that_does_not_count_has_the_loss_0(mixed):
    nothing = torch.full((N,), 2)
    assert TASK.loss(OUTPUTS, nothing, rows=slice(0, N), weight=WEIGHT, mixed=mixed).item() == 0.0


def test_class_weights_are_none_balanced_or_given():
    labels = np.array([0, 0, 0, 1])
    task = tasks.build("single_label", 2)
    assert task.class_weights("none", labels) is None
    assert task.class_weights("balanced", labels) == pytest.approx([4 / 6, 2.0])
    assert task.class_weights([1.0, 3.0], labels) == pytest.approx([1, 3])


def test_the_weight_of_a_batch_is_relative_to_that_of_its_step():
    mean = float(np.mean([WEIGHT[int(label)] for label in TARGETS]))
    part = float(np.mean([WEIGHT[int(label)] for label in TARGETS[:4]]))
    assert TASK.relative_weight(TARGETS[:4], TARGETS, WEIGHT) == pytest.approx(part / mean)
    assert TASK.relative_weight(TARGETS[:4], torch.full((N,), 2), WEIGHT) == pytest.approx(part)


def test_the_most_probable_class_is_named():
    task = tasks.build("single_label", ["cat", "dog"])
    p = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert task.decide(p).tolist() == [0, 1]
    assert task.answers(p).tolist() == ["cat", "dog"]
    columns = task.answer_columns({"a": p[::-1], "fused": p}, "fused")
    assert {name: list(values) for name, values in columns.items()} == {
        "label": ["cat", "dog"], "p(cat)": [0.5, 0.1], "p(dog)": [0.5, 0.9], "vote(a)": ["dog", "cat"],
    }  # fmt: skip


def test_a_label_that_is_withheld_is_stored_as_minus_one():
    stored = pd.DataFrame(TASK.to_columns(None, OUTPUTS.numpy()))
    assert list(stored.columns) == ["label", "logit_0", "logit_1", "logit_2", "logit_3"]
    assert set(stored["label"]) == {-1}


def test_the_constant_baseline_is_the_share_of_each_class():
    assert TASK.constant([0, 0, 1, 3], 2).tolist() == [[0.5, 0.25, 0.0, 0.25]] * 2
