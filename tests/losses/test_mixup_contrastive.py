"""M3Co against a twin of nested loops in plain Python that shares nothing with the code it checks."""

import copy
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from m3col.errors import InputError
from m3col.losses.m3co import m3co_loss


class Batch(NamedTuple):
    clean: list[Tensor]
    mixed: list[Tensor]
    permutations: list[Tensor]
    lam: Tensor

    def to(self, dtype: torch.dtype) -> "Batch":
        clean, mixed = ([p.to(dtype) for p in side] for side in (self.clean, self.mixed))
        return Batch(clean, mixed, self.permutations, self.lam.to(dtype))


def make(n: int, modalities: int, *, width: int = 5, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    sizes = [0.01 + 40 * torch.rand(n, 1, generator=draw, dtype=torch.float64) for _ in range(2 * modalities)]
    rows = [torch.randn(n, width, generator=draw, dtype=torch.float64) * size for size in sizes]
    permutations = [torch.randperm(n, generator=draw) for _ in range(modalities)]
    lam = torch.rand(n, generator=draw, dtype=torch.float64)
    return Batch(rows[:modalities], rows[modalities:], permutations, lam)


def awkward() -> dict[str, Batch]:
    """Inputs chosen to hurt."""
    plain = make(6, 3, seed=1)
    itself = torch.arange(6)
    two_fixed, none_fixed = torch.tensor([0, 2, 1, 3, 5, 4]), itself.flip(0)
    between = torch.tensor([0, 1, 0.5, 1e-12, 1, 0], dtype=torch.float64)
    twins = make(4, 2, seed=2)
    for p in twins.clean:
        p[1] = p[0]
    return {
        "two modalities": make(5, 2, seed=3),
        "three modalities": plain,
        "four modalities, width 1": make(4, 4, width=1, seed=4),
        "all fixed points": plain._replace(permutations=[itself] * 3),
        "some fixed points": plain._replace(permutations=[two_fixed, itself, none_fixed]),
        "lambda 0": plain._replace(lam=torch.zeros(6, dtype=torch.float64)),
        "lambda 1": plain._replace(lam=torch.ones(6, dtype=torch.float64)),
        "lambda 0, 1 and between": plain._replace(lam=between),
        "not an involution": plain._replace(permutations=[itself.roll(1), itself.roll(2), itself.roll(-1)]),
        "two equal samples": twins,
        "mixed against the clean direction": plain._replace(mixed=[-p for p in plain.clean]),
    }


def twin(batch: Batch, tau: float) -> float:
    """Eq. 5-8 and 12 of the paper, one sample and one candidate at a time."""

    def cosine(x: list[float], y: list[float]) -> float:
        length = math.sqrt(sum(c * c for c in x)) * math.sqrt(sum(c * c for c in y))
        return sum(c * d for c, d in zip(x, y, strict=True)) / length

    def l_sim(anchor: list[float], candidates: list[list[float]], positive: int) -> float:
        total = 0.0
        for candidate in candidates:
            total += math.exp(cosine(anchor, candidate) / tau)
        return -math.log(math.exp(cosine(anchor, candidates[positive]) / tau) / total)

    clean = [p.tolist() for p in batch.clean]
    mixed = [q.tolist() for q in batch.mixed]
    weights = batch.lam.tolist()
    result = 0.0
    for first in range(len(clean)):
        for second in range(first + 1, len(clean)):
            for a, b in ((first, second), (second, first)):
                partner = batch.permutations[a].tolist()
                for i, weight in enumerate(weights):
                    j = partner[i]
                    term = weight * l_sim(mixed[a][i], clean[b], i)
                    term += (1 - weight) * l_sim(mixed[a][i], clean[b], j)
                    term += weight * l_sim(clean[b][i], mixed[a], i)
                    term += (1 - weight) * l_sim(clean[b][j], mixed[a], i)
                    result += 0.5 * term / len(weights)
    return result


@pytest.mark.parametrize("tau", [0.1, 1.0, 3.7])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, tau):
    batch = awkward()[name]
    loss = m3co_loss(*batch, temperature=tau)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(twin(batch, tau), rel=1e-9, abs=1e-9)


def test_worked_example():
    """Two orthogonal samples, unmixed: each of the four log-probabilities per sample is log(e / (e + 1))."""
    eye = torch.eye(2, dtype=torch.float64)
    swap = torch.tensor([1, 0])
    ones = torch.ones(2, dtype=torch.float64)
    loss = m3co_loss([eye, 3 * eye], [2 * eye, eye], [swap, swap], ones, temperature=1.0)
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-1)), abs=1e-12)
    # lambda 0 asks for the other sample instead, one unit of similarity further away, in both terms
    other = m3co_loss([eye, eye], [eye, eye], [swap, swap], 0 * ones, temperature=1.0)
    assert other.item() == pytest.approx(2 * math.log1p(math.exp(-1)) + 2, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    batch = make(7, 3).to(dtype)
    loss = m3co_loss(*batch, temperature=0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(batch, 0.1), rel=1e-5)  # the twin reads the rounded inputs


def test_autocast_does_not_lower_the_precision():
    batch = make(7, 3).to(torch.float32)
    expected = m3co_loss(*batch, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(m3co_loss(*batch, temperature=0.1), expected)


def test_one_sample_gives_zero_with_zero_gradient():
    batch = make(1, 3)
    for p in batch.clean + batch.mixed:
        p.requires_grad_()
    loss = m3co_loss(*batch, temperature=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in batch.clean + batch.mixed)


def test_gradients():
    batch = make(4, 3, width=3, seed=5)
    tensors = [
        (p / p.norm(dim=1, keepdim=True) * 1.5).requires_grad_() for p in [*batch.clean, *batch.mixed]
    ]  # of like size: a finite difference across a row of length 0.01 is too coarse
    lam = (0.2 + 0.6 * batch.lam).requires_grad_()

    def loss(lam: Tensor, *rows: Tensor) -> Tensor:
        return m3co_loss(rows[:3], rows[3:], batch.permutations, lam, temperature=0.3)

    assert torch.autograd.gradcheck(loss, (lam, *tensors))


def test_an_embedding_of_length_zero_stays_finite():
    batch = make(4, 2).to(torch.float32)
    batch.clean[0][2] = 0.0
    batch.clean[0].requires_grad_()
    loss = m3co_loss(*batch, temperature=0.1)
    loss.backward()
    assert loss.isfinite() and batch.clean[0].grad is not None
    assert batch.clean[0].grad.isfinite().all() and not batch.clean[0].grad[2].any()


def test_length_and_order_of_modalities_do_not_matter():
    batch = make(5, 3)
    expected = m3co_loss(*batch, temperature=0.2).item()
    longer = batch._replace(clean=[7 * p for p in batch.clean])
    turned = Batch(batch.clean[::-1], batch.mixed[::-1], batch.permutations[::-1], batch.lam)
    assert m3co_loss(*longer, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)
    assert m3co_loss(*turned, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)


def test_leaves_its_arguments_untouched():
    batch = make(5, 2)
    before = copy.deepcopy(batch)
    m3co_loss(*batch, temperature=0.1)
    for now, then in zip(batch[:3], before[:3], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(now, then, strict=True))
    assert torch.equal(batch.lam, before.lam)


GOOD = make(3, 2)
BAD: list[tuple[dict[str, object], str]] = [
    ({"clean": GOOD.clean[:1]}, r"clean must hold at least two modalities, but got 1"),
    (
        {"clean": [GOOD.clean[0], GOOD.clean[1][:, :4]]},
        r"clean\[1\] must have the shape of .* \[3, 5\], .*\[3, 4\]",
    ),
    ({"clean": [p[:0] for p in GOOD.clean]}, r"clean must hold at least one sample, but got N = 0"),
    ({"clean": [p[0] for p in GOOD.clean]}, r"clean\[0\] must have shape \[N, D\], but got \[5\]"),
    ({"clean": [p.long() for p in GOOD.clean]}, r"clean\[0\] must have a floating dtype, .* torch.int64"),
    ({"mixed": GOOD.mixed[:1]}, r"mixed must hold one tensor per modality of clean \(2\), but got 1"),
    ({"mixed": [q[:2] for q in GOOD.mixed]}, r"mixed\[0\] must have the shape of clean\[0\]"),
    ({"mixed": [q.int() for q in GOOD.mixed]}, r"mixed\[1\] must have a floating dtype"),
    ({"permutations": GOOD.permutations * 2}, r"permutations must hold one tensor per .* \(2\), but got 4"),
    ({"permutations": [torch.tensor([0, 1, 3])] * 2}, r"permutations\[0\] must lie in 0..2, but got 3"),
    ({"permutations": [torch.tensor([0, -1, 1])] * 2}, r"permutations\[0\] must lie in 0..2, but got -1"),
    ({"permutations": [torch.tensor([0, 1])] * 2}, r"permutations\[1\] must have shape \[3\], but got \[2\]"),
    ({"permutations": [torch.ones(3, dtype=torch.bool)] * 2}, r"permutations\[0\] must have dtype int64"),
    ({"lam": torch.tensor(0.5)}, r"lam must have shape \[3\], but got \[\]"),
    ({"lam": torch.tensor([0.5, 1.5, 0.1])}, r"lam must lie in \[0, 1\], but got 1.5"),
    ({"lam": torch.tensor([0.5, math.nan, 0.1])}, r"lam must lie in \[0, 1\], but got nan"),
    ({"lam": torch.tensor([0, 1, 1])}, r"lam must have a floating dtype"),
    ({"temperature": 0.0}, r"temperature must be a finite number > 0, but got 0.0"),
    ({"temperature": -0.1}, r"temperature must be a finite number > 0, but got -0.1"),
    ({"temperature": math.inf}, r"temperature must be a finite number > 0, but got inf"),
    ({"temperature": math.nan}, r"temperature must be a finite number > 0, but got nan"),
    ({"temperature": "0.1"}, r"temperature must be a finite number > 0, but got '0.1'"),
    ({"temperature": True}, r"temperature must be a finite number > 0, but got True"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    arguments = {**GOOD._asdict(), "temperature": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        m3co_loss(**arguments)


def test_all_faults_are_told_together():
    with pytest.raises(ValueError) as caught:
        m3co_loss(GOOD.clean, GOOD.mixed[:1], GOOD.permutations, GOOD.lam[:2], temperature=0.0)
    assert len(str(caught.value).splitlines()) == 3


def test_values_are_not_read_where_nobody_asks_for_it():
    """On a GPU that would wait; shapes and dtypes are still validated."""
    batch = make(5, 2)
    arguments = (batch.clean, batch.mixed, batch.permutations)
    checked, unchecked = (
        m3co_loss(*arguments, batch.lam, temperature=0.1, check_values=flag) for flag in (True, False)
    )
    assert torch.equal(checked, unchecked)
    assert torch.isfinite(m3co_loss(*arguments, 2 * batch.lam, temperature=0.1, check_values=False))
    with pytest.raises(InputError, match="lam must have shape"):
        m3co_loss(*arguments, batch.lam[:2], temperature=0.1, check_values=False)
