"""Numbers: the loss against loops over samples and targets, standardised targets, strata, answers."""

import numpy as np
import pytest
import torch

from m3col import tasks
from m3col.tasks.base import Mixed

N, K = 9, 2
RNG = np.random.default_rng(2)
LABELS = RNG.normal(size=(N, K)) * [2.0, 0.001] + [5.0, 1e9]
TASK = tasks.build("regression", ["height", "time"]).fitted(LABELS)
OUTPUTS = torch.as_tensor(RNG.normal(size=(N, K)))
MIXED = Mixed(torch.as_tensor(RNG.permutation(N)), torch.as_tensor(RNG.uniform(size=N)))


def slow_targets() -> list[list[float]]:
    rows = [[0.0] * K for _ in range(N)]
    for k in range(K):
        offset = float(LABELS[0, k])  # exact: the column is shifted before it is summed up
        values = [float(LABELS[i, k]) - offset for i in range(N)]
        mean = sum(values) / N
        deviation = (sum((value - mean) ** 2 for value in values) / N) ** 0.5
        for i in range(N):
            rows[i][k] = (values[i] - mean) / deviation
    return rows


def slow_loss(rows: slice, scale: float, mixed: Mixed | None) -> float:
    aims, total = TASK.targets(LABELS).tolist(), 0.0
    for i in range(N)[rows]:
        for k in range(K):
            error = (float(OUTPUTS[i, k]) - aims[i][k]) ** 2
            if mixed is not None:
                lam, other = float(mixed.lam[i]), aims[int(mixed.partner[i])][k]
                error = lam * error + (1 - lam) * (float(OUTPUTS[i, k]) - other) ** 2
            total += error
    return total * scale / (N * K)


def test_targets_are_standardised_on_the_fold():
    aims = TASK.targets(LABELS).numpy()
    assert aims[:, 0] == pytest.approx(np.array(slow_targets())[:, 0], abs=1e-9)
    # 1e9 +- 0.001 has six digits below its mean in float64.
    assert aims[:, 1] == pytest.approx(np.array(slow_targets())[:, 1], abs=1e-3)
    assert TASK.unscaled(aims) == pytest.approx(LABELS, rel=1e-15)


@pytest.mark.parametrize("mixed", [None, MIXED])
@pytest.mark.parametrize(("rows", "scale"), [(slice(0, N), 1.0), (slice(2, 7), 3.0), (slice(4, 4), 1.0)])
def test_the_loss_is_that_of_the_loops(mixed, rows, scale):
    value = TASK.loss(OUTPUTS[rows], TASK.targets(LABELS), rows=rows, scale=scale, mixed=mixed)
    assert value.item() == pytest.approx(slow_loss(rows, scale, mixed), abs=1e-9)


def test_the_gradient_of_mixed_samples_is_that_of_the_mixed_target():
    outputs = OUTPUTS.clone().requires_grad_()
    aims = TASK.targets(LABELS)
    TASK.loss(outputs, aims, rows=slice(0, N), mixed=MIXED).backward()
    mixture = MIXED.lam[:, None] * aims + (1 - MIXED.lam[:, None]) * aims[MIXED.partner]
    assert outputs.grad.numpy() == pytest.approx((2 * (OUTPUTS - mixture) / (N * K)).numpy(), abs=1e-12)


def test_half_precision_is_computed_in_float32():
    assert TASK.loss(OUTPUTS.bfloat16(), TASK.targets(LABELS), rows=slice(0, N)).dtype == torch.float32


def test_a_target_that_is_the_same_in_a_fold_is_not_divided_by_zero():
    task = tasks.build("regression", 1).fitted(np.full((4, 1), 0.1))
    assert task.scale.tolist() == [1.0] and task.targets(np.array([[0.1]])).tolist() == [[0.0]]
    tiny = TASK.fitted(np.array([[0.0], [1e-200]]))  # its squares are 0
    assert tiny.scale.tolist() == [1.0]


def test_strata_are_quantile_bins():
    values = RNG.permutation(40).astype(float)[:, None]
    assert np.array_equal(TASK.strata(values), (values[:, 0] // 5).astype(int))  # 8 bins of 5
    both = np.column_stack([values, 3 * values + 7])
    assert np.array_equal(TASK.strata(both), TASK.strata(values))
    assert set(TASK.strata(np.arange(100.0)[:, None])) == set(range(10))
    assert TASK.strata(np.arange(3.0)[:, None]).tolist() == [0, 0, 0]


def test_class_weights_are_refused():
    assert TASK.class_weight_fault("balanced").endswith("task 'regression' has none; nearest: none")


def test_columns_are_the_targets_by_name():
    numbers = np.array([[1.0, 2.0], [3.0, 4.0]])
    columns = TASK.answer_columns({"x": -numbers, "fused": numbers}, "fused")
    assert [*columns] == ["height", "time", "vote(x) height", "vote(x) time"]
    assert columns["time"].tolist() == [2.0, 4.0] and columns["vote(x) height"].tolist() == [-1.0, -3.0]
