"""Stacking: how much each head counts for each class, fitted on samples that no head was trained on.

Letters: N such samples, K heads, C classes, labels or targets; x_h [N, C] what head h says, y the truth, s_n the weight
of a sample, B the inverse of the regularisation.

    z_c = b_c + sum over h of w_hc x_hc
    minimise over w and b:  sum over n of  s_n loss(z_n, y_n)  +  1 / (2 B) [ sum (w_hc - 1 / K)^2 + sum b_c^2 ]

The loss is the cross-entropy with x_h the log-probabilities of classes, the binary cross-entropy of each label with x_h
the log-odds, or half the squared error of each target.
Sources: Wolpert, "Stacked Generalization", Neural Networks 5 (1992) 241; for classes the form is a log-linear pool,
Genest and Zidek, "Combining Probability Distributions", Statistical Science 1 (1986) 114, with weights per class.
Differs: z_c sees of each head the output of class c alone, so that few samples suffice. Weights are drawn towards
1 / K, the mean of the heads, not towards 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3col.metrics.classification import Floats

COST = 0.03  # B; with 1.0, few samples make the predictions worse than those of the fused head

_MOST_STEPS = 100

_CLOSE = 1e-12  # squared Newton decrement from which the next step ends the fit, to rounding

_Terms = Callable[[Floats], tuple[float, Floats, Floats]]


class StackedWeights(NamedTuple):
    """Outputs are bias + the sum over heads of weight * outputs of the head.

    Attributes:
        weight: w [K, C].
        bias: b [C].
    """

    weight: Floats
    bias: Floats


def classes(
    x: Floats, labels: NDArray[np.int64], *, class_weight: Floats | None = None, cost: float = COST, prior: bool = True
) -> StackedWeights:
    """Fits the weights for exactly one class per sample.

    Args:
        x: [K, N, C] log-probabilities by head.
        labels: [N] integers 0..C-1. A class without samples keeps weights near 1 / K.
        class_weight: [C], s_n by class; None: 1.
        cost: B.
        prior: whether weights are drawn towards 1 / K (default), else towards 0.

    Returns:
        The weights; outputs go through a softmax.
    """
    heads, _, width = x.shape
    sample = np.ones(len(labels)) if class_weight is None else class_weight[labels]
    columns = _with_constant(x)
    truth = np.eye(width)[labels]

    def terms(theta: Floats) -> tuple[float, Floats, Floats]:
        z = np.einsum("hc,hnc->nc", theta.reshape(heads + 1, width), columns)
        top = z.max(axis=1, keepdims=True)
        log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        gradient = np.einsum("nc,hnc->hc", sample[:, None] * (p - truth), columns).ravel()
        # d2 / dw_hc dw_gd = sum_n s p_c u_hc u_gd ((c = d) - p_d), with u the columns
        rows = np.einsum("nc,hnc->nhc", np.sqrt(sample)[:, None] * p, columns).reshape(len(p), -1)
        hessian = -(rows.T @ rows)
        blocks = np.einsum("nc,hnc,gnc->chg", sample[:, None] * p, columns, columns)
        for c in range(width):
            hessian[c::width, c::width] += blocks[c]
        return float(-(sample * (log_p * truth).sum(axis=1)).sum()), gradient, hessian

    return _split(_minimise(terms, _start(heads, width, prior=prior), cost), heads)


def labels_alone(
    x: Floats, labels: NDArray[np.int64], *, positive_weight: Floats | None = None, cost: float = COST,
    prior: bool = True,
) -> StackedWeights:  # fmt: skip
    """Fits the weights of each of C labels alone.

    Args:
        x: [K, N, C] log-odds by head.
        labels: [N, C] of 0 and 1.
        positive_weight: [C], s_n of the samples that have the label; None: 1.
        cost: B.
        prior: whether weights are drawn towards 1 / K (default), else towards 0.

    Returns:
        The weights; outputs go through a sigmoid.
    """
    heads, _, width = x.shape
    columns, present = _with_constant(x), np.ones(width) if positive_weight is None else positive_weight
    fitted = []
    for c in range(width):
        u, truth = columns[:, :, c].T, labels[:, c]
        sample = np.where(truth == 1, present[c], 1.0)

        def terms(
            theta: Floats, u: Floats = u, truth: NDArray[np.int64] = truth, sample: Floats = sample
        ) -> tuple[float, Floats, Floats]:
            z = u @ theta
            p = np.exp(-np.logaddexp(0, -z))
            value = (sample * (np.logaddexp(0, z) - truth * z)).sum()
            return float(value), u.T @ (sample * (p - truth)), (u * (sample * p * (1 - p))[:, None]).T @ u

        fitted.append(_minimise(terms, _start(heads, 1, prior=prior), cost))
    return _split(np.stack(fitted, axis=1).ravel(), heads)


def targets(x: Floats, values: Floats, *, cost: float = COST, prior: bool = True) -> StackedWeights:
    """Fits the weights of each of C targets alone, by least squares.

    Args:
        x: [K, N, C] predictions by head.
        values: [N, C].
        cost: B.
        prior: whether weights are drawn towards 1 / K (default), else towards 0.

    Returns:
        The weights.
    """
    heads, _, width = x.shape
    columns, start = _with_constant(x), _start(heads, 1, prior=prior)
    fitted = []
    for c in range(width):
        u = columns[:, :, c].T
        step = np.linalg.solve(u.T @ u + np.eye(heads + 1) / cost, u.T @ (values[:, c] - u @ start))
        fitted.append(start + step)
    return _split(np.stack(fitted, axis=1).ravel(), heads)


def _with_constant(x: Floats) -> Floats:
    """The columns u [K + 1, N, C] of each output; the last one, 1, is that of the bias."""
    return np.concatenate([x, np.ones_like(x[:1])])


def _start(heads: int, width: int, *, prior: bool) -> Floats:
    """What the weights and biases [(K + 1) C] are drawn towards."""
    return np.concatenate([np.full(heads * width, 1 / heads if prior else 0.0), np.zeros(width)])


def _split(theta: Floats, heads: int) -> StackedWeights:
    rows = theta.reshape(heads + 1, -1)
    return StackedWeights(rows[:-1], rows[-1])


def _minimise(terms: _Terms, start: Floats, cost: float) -> Floats:
    """Newton's method with halved steps, from `start`, towards which the penalty draws.

    Args:
        terms: value, gradient [P] and Hessian [P, P] of a convex sum of losses at parameters [P].
        start: [P].
        cost: B.
    """
    theta = start.copy()
    for _ in range(_MOST_STEPS):
        loss, gradient, hessian = terms(theta)
        value = loss + ((theta - start) ** 2).sum() / (2 * cost)
        gradient = gradient + (theta - start) / cost
        step = np.linalg.solve(hessian + np.eye(len(theta)) / cost, gradient)
        decrement = float(gradient @ step)
        if decrement < _CLOSE:
            return theta - step
        size = 1.0
        while size > _CLOSE:
            moved = theta - size * step
            if terms(moved)[0] + ((moved - start) ** 2).sum() / (2 * cost) <= value - 0.25 * size * decrement:
                break
            size /= 2
        theta = theta - size * step
    return theta
