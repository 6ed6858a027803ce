"""FactorCL's two bounds against twins of nested loops in plain Python that share nothing with the code they check."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses import club_bound, nce_bound


def make(n: int, *, size: float = 2.0, seed: int = 0) -> Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size


def nce_twin(scores: Tensor) -> float:
    c, n = scores.tolist(), len(scores)
    total = 0.0
    for i in range(n):  # sample i of B, whose true partner is sample i of A
        total += c[i][i] - math.log(sum(math.exp(c[j][i]) for j in range(n)) / n)
    return total / n


def club_twin(scores: Tensor) -> float:
    c, n = scores.tolist(), len(scores)
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += (c[i][i] - c[j][i]) / n
    return total / n


BOUNDS = [pytest.param(nce_bound, nce_twin, id="nce"), pytest.param(club_bound, club_twin, id="club")]
AWKWARD = {
    "six": make(6), "two": make(2, seed=1), "one": make(1, seed=2), "large": make(5, size=60.0, seed=3),
    "constant": torch.full((4, 4), 3.0, dtype=torch.float64),
    "only the diagonal": 9 * torch.eye(4, dtype=torch.float64),
}  # fmt: skip


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize(("bound", "twin"), BOUNDS)
def test_agrees_with_the_twin(bound, twin, name):
    scores = AWKWARD[name]
    found = bound(scores)
    assert found.dtype == torch.float64 and found.shape == ()
    assert found.item() == pytest.approx(twin(scores), rel=1e-9, abs=1e-9)


def test_worked_example():
    eye = torch.eye(2, dtype=torch.float64)
    assert nce_bound(eye).item() == pytest.approx(1 - math.log((math.e + 1) / 2), abs=1e-12)
    assert club_bound(eye).item() == 0.5


def test_the_lower_bound_sums_over_the_samples_of_a_alone():
    """Row i is sample i of A: a constant added to the scores of one sample of B cancels, one of A does not."""
    scores = make(4, seed=4)
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert nce_bound(scores + shift).item() == pytest.approx(nce_bound(scores).item(), abs=1e-12)
    assert abs(nce_bound(scores + shift[:, None]).item() - nce_bound(scores).item()) > 0.1


def test_the_lower_bound_is_at_most_log_n():
    assert nce_bound(1000 * torch.eye(8, dtype=torch.float64)).item() == pytest.approx(math.log(8), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("bound", "twin"), BOUNDS)
def test_half_precision_is_computed_in_float32(bound, twin, dtype):
    scores = make(7, size=100.0).to(dtype).requires_grad_()
    value = bound(scores)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(twin(scores), rel=1e-5)  # the twin reads the rounded scores
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(("bound", "twin"), BOUNDS)
def test_gradients(bound, twin):
    assert torch.autograd.gradcheck(bound, (make(4, seed=5).requires_grad_(),))


@pytest.mark.parametrize("size", [1e-30, 1e6, 1e30])
@pytest.mark.parametrize(("bound", "twin"), BOUNDS)
def test_extremes_stay_finite(bound, twin, size):
    scores = (make(5).float() * size).requires_grad_()
    value = bound(scores)
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


BAD: list[tuple[Tensor, list[str]]] = [
    (torch.ones(3, 4), ["scores must have shape [N, N], but got [3, 4]"]),
    (torch.ones(3), ["scores must have shape [N, N], but got [3]"]),
    (torch.ones(0, 0), ["scores must hold at least one sample, but got N = 0"]),
    (torch.ones(3, 3).long(), ["scores must have a floating dtype, but got torch.int64"]),
    (
        torch.ones(2, 3).int(),
        ["scores must have a floating dtype, but got torch.int32", "scores must have shape [N, N], but got [2, 3]"],
    ),
]


@pytest.mark.parametrize(("scores", "messages"), BAD)
@pytest.mark.parametrize(("bound", "twin"), BOUNDS)
def test_bad_scores(bound, twin, scores, messages):
    with pytest.raises(ValueError) as caught:
        bound(scores)
    assert str(caught.value).splitlines() == messages
