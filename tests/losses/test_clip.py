"""CLIP's loss against a twin of nested loops in plain Python that shares nothing with the code it checks."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses import clip_loss


def make(n: int, *, width: int = 5, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = [0.01 + 40 * torch.rand(n, 1, generator=draw, dtype=torch.float64) for _ in range(2)]
    return [torch.randn(n, width, generator=draw, dtype=torch.float64) * size for size in sizes]


def awkward() -> dict[str, list[Tensor]]:
    """Inputs chosen to hurt."""
    twins = make(4, seed=2)
    twins[1][3] = twins[1][1]
    equal = make(5, seed=3)[0]
    return {
        "six samples": make(6, seed=4),
        "two samples, width 1": make(2, width=1, seed=5),
        "two equal samples in one modality": twins,
        "equal modalities": [equal, equal.clone()],
        "opposite modalities": [equal, -equal],
    }


def twin(a: Tensor, b: Tensor, scale: float) -> float:
    """Two cross-entropies, one sample and one candidate at a time."""

    def cross_entropy(anchors: list[list[float]], candidates: list[list[float]]) -> float:
        total = 0.0
        for i, anchor in enumerate(anchors):
            exponentials = []
            for candidate in candidates:
                length = math.sqrt(sum(c * c for c in anchor)) * math.sqrt(sum(c * c for c in candidate))
                cosine = sum(c * d for c, d in zip(anchor, candidate, strict=True)) / length
                exponentials.append(math.exp(scale * cosine))
            total -= math.log(exponentials[i] / sum(exponentials))
        return total / len(anchors)

    return 0.5 * (cross_entropy(a.tolist(), b.tolist()) + cross_entropy(b.tolist(), a.tolist()))


@pytest.mark.parametrize("scale", [0.3, 1.0, 14.3])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, scale):
    rows = awkward()[name]
    for given in (scale, torch.tensor(scale, dtype=torch.float64)):
        loss = clip_loss(*rows, scale=given)
        assert loss.dtype == torch.float64 and loss.shape == ()
        assert loss.item() == pytest.approx(twin(*rows, scale), rel=1e-9, abs=1e-9)


def test_worked_example():
    """Two orthogonal samples: the partner at similarity 1, the other sample at 0."""
    eye = torch.eye(2, dtype=torch.float64)
    assert clip_loss(eye, 3 * eye, scale=1.0).item() == pytest.approx(math.log1p(1 / math.e), abs=1e-12)
    assert clip_loss(eye, 3 * eye, scale=2.0).item() == pytest.approx(math.log1p(1 / math.e**2), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    rows = [part.to(dtype).requires_grad_() for part in make(7)]
    scale = torch.tensor(10.0, dtype=dtype, requires_grad=True)
    loss = clip_loss(*rows, scale=scale)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(*rows, 10.0), rel=1e-5)  # the twin reads the rounded inputs
    assert all(leaf.grad.isfinite().all() and leaf.grad.any() for leaf in (*rows, scale))


def test_autocast_does_not_lower_the_precision():
    rows = [part.float() for part in make(7)]
    expected = clip_loss(*rows, scale=10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(clip_loss(*rows, scale=10.0), expected)


def test_one_sample_gives_zero_with_zero_gradient():
    rows = [part.requires_grad_() for part in make(1)]
    scale = torch.tensor(10.0, requires_grad=True)
    loss = clip_loss(*rows, scale=scale)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not leaf.grad.any() for leaf in (*rows, scale))


def test_gradients_also_of_the_scale():
    rows = [(part / part.norm(dim=1, keepdim=True) * 1.5).requires_grad_() for part in make(4, width=3, seed=8)]
    logarithm = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b, t: clip_loss(a, b, scale=t.exp()), (*rows, logarithm))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_extremes_stay_finite(scale, size):
    rows = [(part.float() * size).requires_grad_() for part in make(6)]
    with torch.no_grad():
        rows[1][2] = 0.0
    factor = torch.tensor(scale, requires_grad=True)
    loss = clip_loss(*rows, scale=factor)
    loss.backward()
    assert loss.isfinite() and all(leaf.grad.isfinite().all() for leaf in (*rows, factor))
    assert not rows[1].grad[2].any()
    if scale == 1e-6:  # all candidates look alike
        assert loss.item() == pytest.approx(math.log(6), abs=1e-4)


def test_length_and_order_of_modalities_do_not_matter():
    a, b = make(5)
    expected = clip_loss(a, b, scale=5.0).item()
    assert clip_loss(7 * a, b, scale=5.0).item() == pytest.approx(expected, abs=1e-12)
    assert clip_loss(b, a, scale=5.0).item() == pytest.approx(expected, abs=1e-12)


GOOD = make(3)
BAD: list[tuple[dict[str, object], str]] = [
    ({"b": GOOD[1][:, :4]}, r"b must have the shape of a, \[3, 5\], but got \[3, 4\]"),
    ({"a": GOOD[0][0]}, r"a must have shape \[N, D\], but got \[5\]"),
    ({"a": GOOD[0][:0], "b": GOOD[1][:0]}, r"a must hold at least one sample, but got N = 0"),
    ({"b": GOOD[1].long()}, r"b must have a floating dtype, but got torch.int64"),
    ({"scale": 0.0}, r"scale must be a finite number > 0, but got 0.0"),
    ({"scale": "10"}, r"scale must be a finite number > 0, but got '10'"),
    ({"scale": torch.tensor(-1.0)}, r"scale must be a finite number > 0, but got -1.0"),
    ({"scale": torch.tensor(math.inf)}, r"scale must be a finite number > 0, but got inf"),
    ({"scale": torch.tensor([1.0])}, r"scale must be a number or a tensor of shape \[\], but got \[1\]"),
    ({"scale": torch.tensor(1)}, r"scale must have a floating dtype, but got torch.int64"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        clip_loss(**{"a": GOOD[0], "b": GOOD[1], "scale": 10.0, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError) as caught:
        clip_loss(GOOD[0].int(), GOOD[1][:2], scale=torch.ones(2, dtype=torch.int64))
    assert len(str(caught.value).splitlines()) == 4


def test_the_scale_is_not_read_where_nobody_asks_for_it():
    """On a GPU that would wait; shape and dtype are still validated."""
    assert clip_loss(*GOOD, scale=torch.tensor(-1.0), check_values=False).isfinite()
    with pytest.raises(ValueError, match="scale must be a number or a tensor of shape"):
        clip_loss(*GOOD, scale=torch.ones(1), check_values=False)
