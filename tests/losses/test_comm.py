"""CoMM's loss, in both forms, against a twin of nested loops in plain Python that shares nothing with its code."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses import comm_loss, comm_terms, nt_xent

Views = tuple[list[Tensor], list[Tensor]]


def make(n: int, modalities: int, *, width: int = 5, seed: int = 0) -> Views:
    """M + 1 embeddings in each of two views."""
    draw = torch.Generator().manual_seed(seed)
    count = 2 * (modalities + 1)
    sizes = [0.01 + 40 * torch.rand(n, 1, generator=draw, dtype=torch.float64) for _ in range(count)]
    rows = [torch.randn(n, width, generator=draw, dtype=torch.float64) * size for size in sizes]
    return rows[: modalities + 1], rows[modalities + 1 :]


def awkward() -> dict[str, Views]:
    """Inputs chosen to hurt."""
    twins = make(4, 2, seed=2)
    twins[0][0][3] = twins[0][0][1]
    plain = make(5, 2, seed=3)
    return {
        "two modalities": make(6, 2, seed=4),
        "three modalities": make(5, 3, seed=5),
        "four modalities, width 1": make(3, 4, width=1, seed=6),
        "two equal samples": twins,
        "equal views": (plain[0], plain[0]),
        "modalities alone from the clean input": (plain[0], [plain[1][0], *plain[0][1:]]),
        "a modality that is the whole": ([plain[0][0], plain[0][0], plain[0][2]], plain[1]),
    }


def cosine(x: list[float], y: list[float]) -> float:
    length = math.sqrt(sum(c * c for c in x)) * math.sqrt(sum(c * c for c in y))
    return sum(c * d for c, d in zip(x, y, strict=True)) / length


def nt_xent_twin(a: list[list[float]], b: list[list[float]], tau: float) -> float:
    total = 0.0
    for own, other in ((a, b), (b, a)):
        for i, row in enumerate(own):
            denominator = sum(math.exp(cosine(row, candidate) / tau) for candidate in other)
            denominator += sum(math.exp(cosine(row, own[j]) / tau) for j in range(len(own)) if j != i)
            total -= math.log(math.exp(cosine(row, other[i]) / tau) / denominator)
    return total / (2 * len(a))


def info_nce_twin(a: list[list[float]], b: list[list[float]], tau: float) -> float:
    total = 0.0
    for own, other in ((a, b), (b, a)):
        for i, row in enumerate(own):
            denominator = sum(math.exp(cosine(row, candidate) / tau) for candidate in other)
            total -= math.log(math.exp(cosine(row, other[i]) / tau) / denominator)
    return total / (2 * len(a))


def terms_twin(views: Views, tau: float, form: str) -> list[float]:
    pair = nt_xent_twin if form == "code" else info_nce_twin
    first, second = ([z.tolist() for z in view] for view in views)
    terms = []
    for k in range(len(first)):
        terms.append(0.5 * (pair(first[k], second[0], tau) + pair(second[k], first[0], tau)))
    return terms


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("tau", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, tau, form):
    views = awkward()[name]
    expected = terms_twin(views, tau, form)
    terms = comm_terms(*views, temperature=tau, form=form)
    assert terms.dtype == torch.float64
    assert terms.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    divisor = len(expected) if form == "code" else 1
    loss = comm_loss(*views, temperature=tau, form=form)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(sum(expected) / divisor, rel=1e-9, abs=1e-9)
    weights = [0.0, 2.0, 0.25, 1.0, 7.0][: len(expected)]
    weighted = sum(w * term for w, term in zip(weights, expected, strict=True)) / divisor
    loss = comm_loss(*views, temperature=tau, form=form, weights=weights)
    assert loss.item() == pytest.approx(weighted, rel=1e-9, abs=1e-9)


def test_worked_example():
    """Equal orthogonal samples in all embeddings: each term is that of NT-Xent, or of InfoNCE."""
    rows = [torch.eye(2, dtype=torch.float64)] * 3
    assert comm_loss(rows, rows, temperature=1.0).item() == pytest.approx(math.log1p(2 / math.e), abs=1e-12)
    paper = comm_loss(rows, rows, temperature=1.0, form="paper")
    assert paper.item() == pytest.approx(3 * math.log1p(1 / math.e), abs=1e-12)


def test_terms_are_nt_xent_against_the_whole_of_the_other_view():
    first, second = make(6, 2, seed=9)
    terms = comm_terms(first, second, temperature=0.2)
    assert terms[0].item() == pytest.approx(nt_xent(first[0], second[0], temperature=0.2).item(), abs=1e-12)
    both = nt_xent(first[2], second[0], temperature=0.2) + nt_xent(second[2], first[0], temperature=0.2)
    assert terms[2].item() == pytest.approx(both.item() / 2, abs=1e-12)


def test_one_weight_alone_gives_its_term_alone():
    views = make(5, 2)
    terms = comm_terms(*views, temperature=0.1)
    for k in range(3):
        weights = [float(other == k) for other in range(3)]
        loss = comm_loss(*views, temperature=0.1, weights=weights)
        assert loss.item() == pytest.approx(terms[k].item() / 3, abs=1e-12)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, form):
    views = tuple([z.to(dtype).requires_grad_() for z in view] for view in make(7, 2))
    loss = comm_loss(*views, temperature=0.1, form=form)
    loss.backward()
    expected = terms_twin(views, 0.1, form)  # the twin reads the rounded inputs
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(expected) / (3 if form == "code" else 1), rel=1e-5)
    assert all(z.grad.isfinite().all() and z.grad.any() for view in views for z in view)


def test_autocast_does_not_lower_the_precision():
    views = tuple([z.float() for z in view] for view in make(7, 2))
    expected = comm_loss(*views, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(comm_loss(*views, temperature=0.1), expected)


def test_one_sample_gives_zero_with_zero_gradient():
    views = tuple([z.requires_grad_() for z in view] for view in make(1, 2))
    loss = comm_loss(*views, temperature=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not z.grad.any() for view in views for z in view)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_gradients(form):
    first, second = make(4, 2, width=3, seed=8)
    leaves = [(z / z.norm(dim=1, keepdim=True) * 1.5).requires_grad_() for z in first + second]

    def loss(*z: Tensor) -> Tensor:
        return comm_loss(z[:3], z[3:], temperature=0.3, weights=[1.0, 0.5, 2.0], form=form)

    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_extremes_stay_finite(temperature, size, form):
    views = tuple([(z.float() * size).requires_grad_() for z in view] for view in make(6, 2))
    with torch.no_grad():
        views[0][1][2] = 0.0
    loss = comm_loss(*views, temperature=temperature, form=form)
    loss.backward()
    assert loss.isfinite() and all(z.grad.isfinite().all() for view in views for z in view)
    assert not views[0][1].grad[2].any()


def test_order_of_views_and_of_modalities_does_not_matter():
    first, second = make(5, 3)
    expected = comm_loss(first, second, temperature=0.2).item()
    assert comm_loss(second, first, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)
    turned = ([view[0], *view[:0:-1]] for view in (first, second))
    assert comm_loss(*turned, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)


FIRST, SECOND = make(3, 2)
BAD: list[tuple[dict[str, object], str]] = [
    ({"first": FIRST[:2]}, r"first must hold at least 3 tensors, but got 2"),
    ({"first": [*FIRST[:2], FIRST[2][:2]]}, r"first\[2\] must have the shape of first\[0\], \[3, 5\], .* \[2, 5\]"),
    ({"first": [z[:0] for z in FIRST]}, r"first must hold at least one sample, but got N = 0"),
    ({"first": [z.int() for z in FIRST]}, r"first\[1\] must have a floating dtype, but got torch.int32"),
    ({"second": SECOND[:2]}, r"second must hold one tensor per tensor of first \(3\), but got 2"),
    ({"second": [z[:, :4] for z in SECOND]}, r"second\[0\] must have the shape of first\[0\], \[3, 5\]"),
    ({"second": [z.int() for z in SECOND]}, r"second\[2\] must have a floating dtype, but got torch.int32"),
    ({"temperature": 0}, r"temperature must be a finite number > 0, but got 0"),
    ({"weights": [1.0, 1.0]}, r"weights must hold one number per tensor of first \(3\), but got 2"),
    ({"weights": [1.0, -1.0, 1.0]}, r"weights\[1\] must be a finite number >= 0, but got -1.0"),
    ({"weights": [1.0, 1.0, math.nan]}, r"weights\[2\] must be a finite number >= 0, but got nan"),
    ({"weights": [1.0, 1.0, True]}, r"weights\[2\] must be a finite number >= 0, but got True"),
    ({"weights": [0.0, 0.0, 0.0]}, r"weights must hold a number > 0, but got \[0.0, 0.0, 0.0\]"),
    ({"form": "papr"}, r"form 'papr' is unknown; did you mean 'paper'\?"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        comm_loss(**{"first": FIRST, "second": SECOND, "temperature": 0.1, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError) as caught:
        comm_loss(FIRST, SECOND[:2], temperature=-1, weights=[1.0], form="")
    assert len(str(caught.value).splitlines()) == 4
