"""Several labels per sample: the loss against loops over samples and labels, label weights, strata, answers."""

import math

import numpy as np
import pytest
import torch

from m3col import tasks
from m3col.tasks.base import Mixed

N, C = 9, 3
TASK = tasks.build("multi_label", ["a", "b", "c"])
RNG = np.random.default_rng(2)
OUTPUTS = torch.as_tensor(RNG.normal(size=(N, C)) * 3)
LABELS = RNG.integers(0, 2, (N, C))
MIXED = Mixed(torch.as_tensor(RNG.permutation(N)), torch.as_tensor(RNG.uniform(size=N)))
WEIGHT = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


def slow_loss(rows: slice, scale: float, weight: list[float], mixed: Mixed | None) -> float:
    total = 0.0
    for i in range(N)[rows]:
        for c in range(C):
            p = 1 / (1 + math.exp(-float(OUTPUTS[i, c])))
            y = float(LABELS[i, c])
            if mixed is not None:
                lam = float(mixed.lam[i])
                y = lam * y + (1 - lam) * float(LABELS[int(mixed.partner[i]), c])
            total -= weight[c] * y * math.log(p) + (1 - y) * math.log(1 - p)
    return total * scale / (N * C)


@pytest.mark.parametrize("mixed", [None, MIXED])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize(("rows", "scale"), [(slice(0, N), 1.0), (slice(2, 7), 3.0), (slice(4, 4), 1.0)])
def test_the_loss_is_that_of_the_loops(mixed, weight, rows, scale):
    value = TASK.loss(OUTPUTS[rows], TASK.targets(LABELS), rows=rows, scale=scale, weight=weight, mixed=mixed)
    weights = [1.0] * C if weight is None else weight.tolist()
    assert value.item() == pytest.approx(slow_loss(rows, scale, weights, mixed), abs=1e-9)


def test_half_precision_is_computed_in_float32():
    value = TASK.loss(OUTPUTS.bfloat16(), TASK.targets(LABELS), rows=slice(0, N))
    assert value.dtype == torch.float32


def test_balanced_weights_are_absent_over_present():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    assert TASK.class_weights("balanced", labels).tolist() == [3.0, 3.0, 0.0]
    assert TASK.class_weights([1.0, 2.0, 3.0], labels).tolist() == [1.0, 2.0, 3.0]
    assert TASK.class_weights("none", labels) is None


def test_a_stratum_is_the_rarest_label_of_a_sample():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert TASK.strata(labels).tolist() == [1, 0, 2, 3, 0]
    assert TASK.stratum(3) == "no label" and TASK.stratum(1) == "label b"


def test_answers_and_columns_follow_the_thresholds():
    task = tasks.build("multi_label", ["a", "b", "c"], threshold=0.3)
    probabilities = np.array([[0.4, 0.2, 0.9], [0.1, 0.3, 0.2]])
    assert task.answers(probabilities).tolist() == [[1, 0, 1], [0, 0, 0]]
    columns = task.answer_columns({"fused": probabilities, "x": 1 - probabilities}, "fused")
    assert [*columns] == ["labels", "p(a)", "p(b)", "p(c)", "vote(x)"]
    assert columns["labels"].tolist() == ["a|c", ""] and columns["vote(x)"].tolist() == ["a|b", "a|b|c"]


def test_the_link_does_not_overflow():
    assert TASK.link([[-1e4, 0.0, 1e4]]).tolist() == [[0.0, 0.5, 1.0]]
    assert np.isfinite(TASK.inverse_link(np.array([[0.0, 0.5, 1.0]]))).all()
