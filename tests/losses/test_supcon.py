"""SupCon against a twin of nested loops in plain Python that shares nothing with the code it checks."""

import math

import pytest
import torch
from torch import Tensor

from m3col.losses import supcon_loss


def make(labels: list[int], *, width: int = 4, size: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(labels), width, generator=draw, dtype=torch.float64) * size
    return rows, torch.tensor(labels)


def awkward() -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs chosen to hurt."""
    two_views = [2, 0, 1, 0, 2]
    twins = make([0, 0, 1, 1, 0], seed=3)
    twins[0][1] = twins[0][0]
    twins[0][2] = twins[0][0]
    return {
        "two views": make(two_views * 2, seed=1),
        "each label once, in two views": make([0, 1, 2, 0, 1, 2], seed=2),
        "equal rows, also with other labels": twins,
        "some rows without a positive": make([0, 5, 0, 7, -1], seed=4),
        "one label": make([3] * 5, seed=5),
        "no label twice": make([0, 1, 2], seed=6),
        "width 1": make([0, 1, 1, 0], width=1, seed=7),
    }


def twin(rows: Tensor, labels: Tensor, temperature: float, normalize: bool) -> float:
    """One row, one positive and one candidate at a time."""
    z, y = rows.tolist(), labels.tolist()
    if normalize:
        z = [[c / math.sqrt(sum(d * d for d in row)) for c in row] for row in z]

    def similarity(r: int, q: int) -> float:
        return sum(c * d for c, d in zip(z[r], z[q], strict=True)) / temperature

    total = 0.0
    for r in range(len(z)):
        positives = [p for p in range(len(z)) if p != r and y[p] == y[r]]
        if not positives:
            continue  # it counts 0, and stays in the mean
        denominator = sum(math.exp(similarity(r, q)) for q in range(len(z)) if q != r)
        for p in positives:
            total -= math.log(math.exp(similarity(r, p)) / denominator) / len(positives)
    return total / len(z)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.7])
@pytest.mark.parametrize("name", awkward())
def test_agrees_with_the_twin(name, temperature, normalize):
    rows, labels = awkward()[name]
    loss = supcon_loss(rows, labels, temperature=temperature, normalize=normalize)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(twin(rows, labels, temperature, normalize), rel=1e-9, abs=1e-9)


def test_worked_example():
    """Two equal rows of one label and an orthogonal one alone: log(1 + 1/e) twice and 0, over 3."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([4, 4, 1])
    loss = supcon_loss(rows, labels, temperature=1.0)
    assert loss.item() == pytest.approx(2 / 3 * math.log1p(1 / math.e), abs=1e-12)
    longer = supcon_loss(2 * rows, labels, temperature=1.0)  # rows count as they are: similarity 4 against 0
    assert longer.item() == pytest.approx(2 / 3 * math.log1p(math.exp(-4)), abs=1e-12)
    assert supcon_loss(2 * rows, labels, temperature=1.0, normalize=True).item() == pytest.approx(loss.item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    rows, labels = make([0, 1, 1, 2, 0, 3], seed=8)
    rows = rows.to(dtype).requires_grad_()
    loss = supcon_loss(rows, labels, temperature=0.5)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(rows, labels, 0.5, False), rel=1e-5)  # the twin reads the rounded inputs
    assert rows.grad.isfinite().all() and rows.grad.any()


def test_large_rows_of_float16_do_not_overflow():
    rows = torch.tensor([[300.0, 0.0], [300.0, 1.0], [0.0, 300.0]], dtype=torch.float16)  # products of 90,000
    loss = supcon_loss(rows, torch.tensor([0, 0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_autocast_does_not_lower_the_precision():
    rows, labels = make([0, 1, 1, 2, 0, 3], seed=8)
    expected = supcon_loss(rows.float(), labels, temperature=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(supcon_loss(rows.float(), labels, temperature=0.5), expected)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2]])
def test_without_a_positive_loss_and_gradient_are_zero(labels):
    rows, labels = make(labels)
    rows.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        loss = supcon_loss(rows, labels, temperature=0.5)
        loss.backward()
    assert loss.item() == 0.0 and not rows.grad.any()


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients(normalize):
    rows, labels = make([0, 1, 0, 2, 1], seed=9)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: supcon_loss(z, labels, temperature=0.7, normalize=normalize), (rows,)
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize(("size", "normalize"), [(1e-15, False), (1e12, False), (1e-15, True), (1e15, True)])
def test_extremes_stay_finite(temperature, size, normalize):
    rows, labels = make([0, 1, 0, 2, 1, 5], seed=10)
    rows = (rows.float() * size).requires_grad_()
    with torch.no_grad():
        rows[2] = 0.0
    loss = supcon_loss(rows, labels, temperature=temperature, normalize=normalize)
    loss.backward()
    assert loss.isfinite() and rows.grad.isfinite().all()


def test_a_row_is_no_candidate_of_its_own_at_any_temperature():
    """The positive points away, the other row is orthogonal: 1 / T. With itself it would be near 2 / T."""
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    loss = supcon_loss(rows, torch.tensor([0, 0, 1]), temperature=1e-6)
    assert loss.item() == pytest.approx(2 / 3 * 1e6, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_labels_may_have_any_integer_dtype(dtype):
    rows, labels = make([0, 1, 1, 0])
    expected = supcon_loss(rows, labels, temperature=0.5)
    assert torch.equal(supcon_loss(rows, labels.to(dtype), temperature=0.5), expected)


ROWS, LABELS = make([0, 1, 0])
BAD: list[tuple[dict[str, object], str]] = [
    ({"rows": ROWS[0]}, r"rows must have shape \[N, D\], but got \[4\]"),
    ({"rows": ROWS[:0], "labels": LABELS[:0]}, r"rows must hold at least one sample, but got N = 0"),
    ({"rows": ROWS.int()}, r"rows must have a floating dtype, but got torch.int32"),
    ({"labels": LABELS[:2]}, r"labels must have shape \[3\], but got \[2\]"),
    ({"labels": LABELS.double()}, r"labels must have an integer dtype, but got torch.float64"),
    ({"temperature": -0.5}, r"temperature must be a finite number > 0, but got -0.5"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        supcon_loss(**{"rows": ROWS, "labels": LABELS, "temperature": 0.5, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError) as caught:
        supcon_loss(ROWS.int(), LABELS[:2].float(), temperature=0)
    assert len(str(caught.value).splitlines()) == 4
