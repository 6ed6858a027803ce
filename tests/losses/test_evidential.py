"""Fusion of opinions and the loss of one, against twins of plain loops that follow the paper's own form."""

import math

import pytest
import torch
from scipy.special import digamma
from torch import Tensor

from m3col.losses.evidential import expected_cross_entropy, fused_evidence, kl_of_misleading_evidence


def draw(opinions: int, samples: int, classes: int, *, seed: int = 0, size: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.rand(opinions, samples, classes, generator=generator, dtype=torch.float64)


def paired(first: list[float], second: list[float]) -> list[float]:
    """Dempster's reduced rule for two opinions, by belief and vacuity."""
    classes = len(first)
    sums = [sum(e) + classes for e in (first, second)]
    b1, b2 = ([value / total for value in e] for e, total in zip((first, second), sums, strict=True))
    u1, u2 = (classes / total for total in sums)
    conflict = sum(b1[i] * b2[j] for i in range(classes) for j in range(classes) if i != j)
    belief = [(b1[k] * b2[k] + b1[k] * u2 + b2[k] * u1) / (1 - conflict) for k in range(classes)]
    vacuity = u1 * u2 / (1 - conflict)
    assert sum(belief) + vacuity == pytest.approx(1, abs=1e-12)
    return [b * classes / vacuity for b in belief]


@pytest.mark.parametrize(("opinions", "classes"), [(2, 2), (2, 5), (3, 3), (6, 10)])
def test_the_closed_form_is_the_rule_of_pairs_in_any_order(opinions, classes):
    evidence = draw(opinions, 4, classes)
    for order in (range(opinions), reversed(range(opinions))):
        places = [*order]
        for sample in range(4):
            combined = evidence[places[0], sample].tolist()
            for place in places[1:]:
                combined = paired(combined, evidence[place, sample].tolist())
            assert fused_evidence(evidence)[sample].tolist() == pytest.approx(combined, rel=1e-9)


def test_one_opinion_alone_and_none_at_all():
    evidence = draw(1, 3, 4)
    torch.testing.assert_close(fused_evidence(evidence), evidence[0], rtol=1e-12, atol=0)
    assert torch.equal(fused_evidence(torch.zeros(3, 2, 4)), torch.zeros(2, 4))
    nothing = torch.cat([evidence, torch.zeros_like(evidence)])
    torch.testing.assert_close(fused_evidence(nothing), evidence[0], rtol=1e-12, atol=0)


def test_it_has_at_least_the_sum_of_all_evidence_and_does_not_overflow():
    evidence = draw(5, 6, 3)
    assert (fused_evidence(evidence) >= evidence.sum(dim=0) * (1 - 1e-12)).all()
    assert torch.isfinite(fused_evidence(torch.full((40, 1, 3), 2e4))).all()


def log_gamma_divergence(a: list[float]) -> float:
    total = sum(a)
    value = math.lgamma(total) - math.lgamma(len(a))
    for one in a:
        value += -math.lgamma(one) + (one - 1) * (float(digamma(one)) - float(digamma(total)))
    return value


@pytest.mark.parametrize("classes", [2, 4])
def test_the_loss_of_an_opinion_again_with_loops(classes):
    alpha = draw(1, 5, classes, seed=2)[0] + 1
    labels = torch.arange(5) % classes
    own, divergence = expected_cross_entropy(alpha, labels), kl_of_misleading_evidence(alpha, labels)
    for i in range(5):
        row, y = alpha[i].tolist(), int(labels[i])
        # The paper's integral over the simplex: sum_k y_k (psi(S) - psi(alpha_k)).
        expected = sum((k == y) * (float(digamma(sum(row))) - float(digamma(row[k]))) for k in range(classes))
        assert float(own[i]) == pytest.approx(expected, rel=1e-9)
        others = [1.0 if k == y else row[k] for k in range(classes)]
        assert float(divergence[i]) == pytest.approx(log_gamma_divergence(others), rel=1e-9)


def test_the_expected_cross_entropy_is_an_expectation():
    alpha = torch.tensor([[2.0, 3.0, 1.5]], dtype=torch.float64)
    torch.manual_seed(0)
    drawn = torch.distributions.Dirichlet(alpha[0]).sample((200_000,))
    loss = expected_cross_entropy(alpha, torch.tensor([1]))
    assert float(loss) == pytest.approx(float(-drawn[:, 1].log().mean()), abs=0.01)


def test_evidence_for_the_true_class_alone_diverges_by_nothing():
    alpha = torch.tensor([[1.0, 7.0, 1.0]])
    assert float(kl_of_misleading_evidence(alpha, torch.tensor([1]))) == 0
    assert float(kl_of_misleading_evidence(alpha, torch.tensor([0]))) > 0


@pytest.mark.parametrize("most", [30.0, 300.0])
def test_in_single_precision_much_evidence_gives_the_same_losses_and_gradients(most):
    """Six views and ten classes: fused evidence passes 1e6, where float32 loses the difference of logarithms."""
    draw = torch.Generator().manual_seed(0)
    views = most * torch.rand(6, 40, 10, generator=draw, dtype=torch.float64)
    labels = torch.arange(40) % 10
    results = []
    for dtype in (torch.float32, torch.float64):
        given = views.to(dtype).requires_grad_()
        alpha = fused_evidence(given) + 1
        loss = (expected_cross_entropy(alpha, labels) + kl_of_misleading_evidence(alpha, labels)).mean()
        loss.backward()
        results.append((loss.double(), given.grad.double()))
    assert results[0][0] > 0
    torch.testing.assert_close(*(result[0] for result in results), rtol=1e-4, atol=0)
    scale = results[1][1].abs().max()
    torch.testing.assert_close(*(result[1] / scale for result in results), rtol=1e-3, atol=1e-4)
