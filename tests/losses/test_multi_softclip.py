"""MultiSClip against a twin of nested loops in plain Python that shares nothing with the code it checks."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses.multi_softclip import multi_softclip_loss


def make(n: int, modalities: int, *, width: int = 5, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = [0.01 + 40 * torch.rand(n, 1, generator=draw, dtype=torch.float64) for _ in range(modalities)]
    return [torch.randn(n, width, generator=draw, dtype=torch.float64) * size for size in sizes]


def awkward() -> dict[str, list[Tensor]]:
    """Inputs chosen to hurt."""
    twins = make(4, 2, seed=2)
    twins[0][3] = twins[0][1]
    equal = make(5, 1, seed=3)[0]
    return {
        "two modalities": make(5, 2, seed=4),
        "three modalities": make(6, 3, seed=5),
        "four modalities, width 1": make(4, 4, width=1, seed=6),
        "two equal samples in one modality": twins,
        "equal modalities": [equal, equal.clone()],
        "opposite modalities": [equal, -equal],
    }


def twin(clean: list[Tensor], tau: float) -> float:
    """Eq. 5, 9-11 and 13 of the paper, one sample and one candidate at a time."""

    def exponential(x: list[float], y: list[float]) -> float:
        dot, x_squared, y_squared = 0.0, 0.0, 0.0
        for c, d in zip(x, y, strict=True):
            dot, x_squared, y_squared = dot + c * d, x_squared + c * c, y_squared + d * d
        return math.exp(dot / math.sqrt(x_squared) / math.sqrt(y_squared) / tau)

    def l_sim(anchor: list[float], candidates: list[list[float]], m: int) -> float:
        return -math.log(exponential(anchor, candidates[m]) / sum(exponential(anchor, c) for c in candidates))

    def one_way(p1: list[list[float]], p2: list[list[float]]) -> float:  # Eq. 9
        total = 0.0
        for i in range(len(p1)):
            for candidate in range(len(p1)):
                weight = exponential(p1[i], p1[candidate]) / sum(exponential(p1[i], p) for p in p1)
                total += weight * (l_sim(p2[i], p1, candidate) + l_sim(p1[candidate], p2, i))
        return total / len(p1)

    rows = [p.tolist() for p in clean]
    result = 0.0
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            result += 0.5 * (one_way(rows[a], rows[b]) + one_way(rows[b], rows[a]))
    return result


@pytest.mark.parametrize("tau", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, tau):
    clean = awkward()[name]
    loss = multi_softclip_loss(clean, temperature=tau)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(twin(clean, tau), rel=1e-9, abs=1e-9)


def test_worked_example():
    """Two orthogonal samples, tau 1: weight s = e/(e+1) on two costs log(1+1/e), 1-s on two 1 larger."""
    eye = torch.eye(2, dtype=torch.float64)
    s, cost = math.e / (math.e + 1), math.log1p(math.exp(-1))
    loss = multi_softclip_loss([eye, 5 * eye], temperature=1.0)
    assert loss.item() == pytest.approx(s * 2 * cost + (1 - s) * 2 * (cost + 1), abs=1e-12)


def test_differs_from_the_published_weighting():
    """The authors' code weights S_ab[i, l] by W_a[i, l], Eq. 9 by W_a[l, i]: a transposed target shows."""
    clean = make(6, 2, seed=7)
    u = [p / p.norm(dim=1, keepdim=True) for p in clean]
    targets = [torch.softmax(p @ p.T / 0.5, 1) for p in u]
    logs = [torch.log_softmax(u[0] @ u[1].T / 0.5, 1), torch.log_softmax(u[1] @ u[0].T / 0.5, 1)]
    published = -((targets[0] + targets[1]) * (logs[0] + logs[1])).sum() / 12
    assert abs(multi_softclip_loss(clean, temperature=0.5).item() - published.item()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    clean = [p.to(dtype) for p in make(7, 3)]
    loss = multi_softclip_loss(clean, temperature=0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(clean, 0.1), rel=1e-5)  # the twin reads the rounded inputs


def test_autocast_does_not_lower_the_precision():
    clean = [p.float() for p in make(7, 3)]
    expected = multi_softclip_loss(clean, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(multi_softclip_loss(clean, temperature=0.1), expected)


def test_one_sample_gives_zero_with_zero_gradient():
    clean = [p.requires_grad_() for p in make(1, 3)]
    loss = multi_softclip_loss(clean, temperature=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in clean)


def test_gradients():
    """Also of the targets: with a stop-gradient on them this fails."""
    clean = [(p / p.norm(dim=1, keepdim=True) * 1.5).requires_grad_() for p in make(4, 3, width=3, seed=8)]
    assert torch.autograd.gradcheck(lambda *p: multi_softclip_loss(p, temperature=0.3), clean)


def test_an_embedding_of_length_zero_stays_finite():
    clean = [p.float() for p in make(4, 2)]
    clean[1][0] = 0.0
    clean[1].requires_grad_()
    loss = multi_softclip_loss(clean, temperature=0.1)
    loss.backward()
    assert loss.isfinite() and clean[1].grad is not None
    assert clean[1].grad.isfinite().all() and not clean[1].grad[0].any()


def test_length_and_order_of_modalities_do_not_matter():
    clean = make(5, 3)
    expected = multi_softclip_loss(clean, temperature=0.2).item()
    for other in ([7 * p for p in clean], clean[::-1]):
        assert multi_softclip_loss(other, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)


def test_leaves_its_arguments_untouched():
    clean = make(5, 2)
    before = [p.clone() for p in clean]
    multi_softclip_loss(clean, temperature=0.1)
    assert all(torch.equal(now, then) for now, then in zip(clean, before, strict=True))


GOOD = make(3, 2)
BAD: list[tuple[dict[str, object], str]] = [
    ({"clean": GOOD[:1]}, r"clean must hold at least two modalities, but got 1"),
    ({"clean": []}, r"clean must hold at least two modalities, but got 0"),
    ({"clean": [GOOD[0], GOOD[1][:2]]}, r"clean\[1\] must have the shape of .* \[3, 5\], but got \[2, 5\]"),
    ({"clean": [p[:0] for p in GOOD]}, r"clean must hold at least one sample, but got N = 0"),
    ({"clean": [p.int() for p in GOOD]}, r"clean\[1\] must have a floating dtype, but got torch.int32"),
    ({"temperature": 0}, r"temperature must be a finite number > 0, but got 0"),
    ({"temperature": math.nan}, r"temperature must be a finite number > 0, but got nan"),
    ({"temperature": None}, r"temperature must be a finite number > 0, but got None"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        multi_softclip_loss(**{"clean": GOOD, "temperature": 0.1, **change})
