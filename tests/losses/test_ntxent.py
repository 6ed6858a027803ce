"""NT-Xent against a twin of nested loops in plain Python that shares nothing with the code it checks."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses import nt_xent


def make(n: int, *, width: int = 5, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = [0.01 + 40 * torch.rand(n, 1, generator=draw, dtype=torch.float64) for _ in range(2)]
    return [torch.randn(n, width, generator=draw, dtype=torch.float64) * size for size in sizes]


def awkward() -> dict[str, list[Tensor]]:
    """Inputs chosen to hurt."""
    twins = make(4, seed=2)
    twins[0][3] = twins[0][1]
    equal = make(5, seed=3)[0]
    return {
        "six samples": make(6, seed=4),
        "two samples, width 1": make(2, width=1, seed=5),
        "two equal samples in one view": twins,
        "equal views": [equal, equal.clone()],
        "opposite views": [equal, -equal],
    }


def twin(a: Tensor, b: Tensor, tau: float) -> float:
    """The mean over all 2N rows, one row and one candidate at a time."""
    rows = a.tolist() + b.tolist()
    n = len(a)
    total = 0.0
    for i, row in enumerate(rows):
        exponentials = {}
        for j, other in enumerate(rows):
            if j != i:
                length = math.sqrt(sum(c * c for c in row)) * math.sqrt(sum(c * c for c in other))
                exponentials[j] = math.exp(sum(c * d for c, d in zip(row, other, strict=True)) / length / tau)
        assert len(exponentials) == 2 * n - 1
        total -= math.log(exponentials[(i + n) % (2 * n)] / sum(exponentials.values()))
    return total / (2 * n)


@pytest.mark.parametrize("tau", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, tau):
    views = awkward()[name]
    loss = nt_xent(*views, temperature=tau)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(twin(*views, tau), rel=1e-9, abs=1e-9)


def test_worked_example():
    """Two orthogonal samples: the partner at similarity 1, two of the other sample at 0."""
    eye = torch.eye(2, dtype=torch.float64)
    assert nt_xent(eye, 3 * eye, temperature=1.0).item() == pytest.approx(math.log1p(2 / math.e), abs=1e-12)
    assert nt_xent(eye, 3 * eye, temperature=0.5).item() == pytest.approx(math.log1p(2 / math.e**2), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    views = [view.to(dtype).requires_grad_() for view in make(7)]
    loss = nt_xent(*views, temperature=0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(*views, 0.1), rel=1e-5)  # the twin reads the rounded inputs
    assert all(view.grad.isfinite().all() and view.grad.any() for view in views)


def test_autocast_does_not_lower_the_precision():
    views = [view.float() for view in make(7)]
    expected = nt_xent(*views, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nt_xent(*views, temperature=0.1), expected)


def test_one_sample_gives_zero_with_zero_gradient():
    views = [view.requires_grad_() for view in make(1)]
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        loss = nt_xent(*views, temperature=0.1)
        loss.backward()
    assert loss.item() == 0.0
    assert all(not view.grad.any() for view in views)


def test_gradients():
    views = [(view / view.norm(dim=1, keepdim=True) * 1.5).requires_grad_() for view in make(4, width=3, seed=8)]
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=0.3), views)


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_extremes_stay_finite(temperature, size):
    views = [(view.float() * size).requires_grad_() for view in make(6)]
    with torch.no_grad():
        views[0][2] = 0.0
    loss = nt_xent(*views, temperature=temperature)
    loss.backward()
    assert loss.isfinite() and all(view.grad.isfinite().all() for view in views)
    assert not views[0].grad[2].any()
    if temperature == 1e6:  # all candidates look alike
        assert loss.item() == pytest.approx(math.log(11), abs=1e-4)


def test_a_row_is_no_candidate_of_its_own_at_any_temperature():
    """Partners point away, all other rows are orthogonal: 1 / tau + log 2. With itself it would be near 2 / tau."""
    eye = torch.eye(2)
    assert nt_xent(eye, -eye, temperature=1e-6).item() == pytest.approx(1e6, rel=1e-5)


def test_length_and_order_of_views_do_not_matter():
    a, b = make(5)
    expected = nt_xent(a, b, temperature=0.2).item()
    assert nt_xent(7 * a, b, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)
    assert nt_xent(b, a, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)


GOOD = make(3)
BAD: list[tuple[dict[str, object], str]] = [
    ({"b": GOOD[1][:2]}, r"b must have the shape of a, \[3, 5\], but got \[2, 5\]"),
    ({"a": GOOD[0][0]}, r"a must have shape \[N, D\], but got \[5\]"),
    ({"a": GOOD[0][:0], "b": GOOD[1][:0]}, r"a must hold at least one sample, but got N = 0"),
    ({"b": GOOD[1].long()}, r"b must have a floating dtype, but got torch.int64"),
    ({"temperature": 0.0}, r"temperature must be a finite number > 0, but got 0.0"),
    ({"temperature": math.nan}, r"temperature must be a finite number > 0, but got nan"),
    ({"temperature": True}, r"temperature must be a finite number > 0, but got True"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        nt_xent(**{"a": GOOD[0], "b": GOOD[1], "temperature": 0.1, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError) as caught:
        nt_xent(GOOD[0].int(), GOOD[1][:2], temperature=-1)
    assert len(str(caught.value).splitlines()) == 3
