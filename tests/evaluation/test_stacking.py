"""Weights of heads: equal to scikit-learn's where it has the model, to a slow optimizer elsewhere."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge

from m3col.evaluation import stacking

HEADS, SAMPLES = 3, 40


def heads(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [K, N, C] of three heads, the first of which knows something, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(SAMPLES) % classes
    logits = rng.normal(size=(HEADS, SAMPLES, classes))
    logits[0] += 1.5 * np.eye(classes)[labels]
    return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), labels


def test_two_classes_equal_scikit_learn():
    x, labels = heads(2)
    sample = np.array([1.0, 2.5])[labels]
    one = np.ones((SAMPLES, 1))
    rows = np.concatenate([x[:, :, 1].T, -x[:, :, 0].T, one, -one], axis=1)
    model = LogisticRegression(C=0.7, fit_intercept=False, tol=1e-12, solver="newton-cholesky").fit(
        rows, labels, sample_weight=sample
    )
    expected = model.coef_[0]
    fitted = stacking.classes(x, labels, class_weight=np.array([1.0, 2.5]), cost=0.7, prior=False)
    np.testing.assert_allclose(fitted.weight, np.stack([expected[3:6], expected[:3]], axis=1), atol=1e-7)
    np.testing.assert_allclose(fitted.bias, expected[[7, 6]], atol=1e-7)


def test_each_label_equals_scikit_learn():
    rng = np.random.default_rng(1)
    labels = (rng.random((SAMPLES, 2)) > 0.6).astype(int)
    x = rng.normal(size=(HEADS, SAMPLES, 2)) + labels
    fitted = stacking.labels_alone(x, labels, positive_weight=np.array([3.0, 1.0]), cost=1.0, prior=False)
    for c in range(2):
        rows = np.concatenate([x[:, :, c].T, np.ones((SAMPLES, 1))], axis=1)
        sample = np.where(labels[:, c] == 1, [3.0, 1.0][c], 1.0)
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-12, solver="newton-cholesky")
        expected = model.fit(rows, labels[:, c], sample_weight=sample).coef_[0]
        np.testing.assert_allclose([*fitted.weight[:, c], fitted.bias[c]], expected, atol=1e-7)


def test_each_target_equals_scikit_learn():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(SAMPLES, 2))
    x = rng.normal(size=(HEADS, SAMPLES, 2)) + values
    fitted = stacking.targets(x, values, cost=0.4)
    for c in range(2):
        rows = np.concatenate([x[:, :, c].T, np.ones((SAMPLES, 1))], axis=1)
        # what is drawn towards 0 is the difference from the mean of the heads
        model = Ridge(alpha=1 / 0.4, fit_intercept=False, solver="cholesky").fit(
            rows, values[:, c] - x[:, :, c].mean(0)
        )
        expected = model.coef_ + [*[1 / HEADS] * HEADS, 0.0]
        np.testing.assert_allclose([*fitted.weight[:, c], fitted.bias[c]], expected, rtol=1e-9, atol=1e-12)


def slow_loss(theta: np.ndarray, x: np.ndarray, labels: np.ndarray, cost: float) -> float:
    """The penalised loss of classes by loops; theta has the weights head by head, then the biases."""
    k, n, c = x.shape
    total = 0.0
    for i in range(n):
        z = [theta[k * c + j] + sum(theta[h * c + j] * x[h, i, j] for h in range(k)) for j in range(c)]
        total += math.log(sum(math.exp(v) for v in z)) - z[labels[i]]
    for h in range(k):
        for j in range(c):
            total += (theta[h * c + j] - 1 / k) ** 2 / (2 * cost)
    return total + sum(theta[k * c + j] ** 2 for j in range(c)) / (2 * cost)


def test_three_classes_are_the_minimum_of_the_formula():
    x, labels = heads(3)
    x, labels = x[:, :15], labels[:15]
    fitted = stacking.classes(x, labels, cost=2.0)
    theta = np.concatenate([fitted.weight.ravel(), fitted.bias])
    slow = minimize(slow_loss, np.zeros(12), args=(x, labels, 2.0), tol=1e-12)
    assert slow_loss(theta, x, labels, 2.0) <= slow.fun + 1e-9
    np.testing.assert_allclose(theta, slow.x, atol=1e-4)
    for at in range(12):  # the slope is 0: central differences of the loops
        step = np.eye(12)[at] * 1e-5
        slope = (slow_loss(theta + step, x, labels, 2.0) - slow_loss(theta - step, x, labels, 2.0)) / 2e-5
        assert abs(slope) < 1e-7


def test_with_much_regularisation_all_heads_count_equally():
    x, labels = heads(3)
    fitted = stacking.classes(x, labels, cost=1e-9)
    np.testing.assert_allclose(fitted.weight, 1 / HEADS, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, 0, atol=1e-6)


def test_the_head_that_knows_something_counts_most_and_a_class_without_samples_is_fitted():
    x, labels = heads(3)
    fitted = stacking.classes(x[:, labels < 2], labels[labels < 2], cost=1.0)
    assert (fitted.weight[0, :2] > fitted.weight[1:, :2].max()).all() and np.isfinite(fitted.weight).all()
    assert fitted.bias[2] < fitted.bias[:2].min()


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_extreme_outputs_end_at_a_minimum(scale):
    x, labels = heads(3)
    fitted = stacking.classes(x * scale, labels, cost=1.0)
    assert np.isfinite(fitted.weight).all() and np.isfinite(fitted.bias).all()
    worse = stacking.classes(x * scale, labels, cost=1e-9)

    def loss(found: stacking.StackedWeights) -> float:
        z = (found.weight[:, None] * x * scale).sum(axis=0) + found.bias
        return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(SAMPLES), labels]).sum())

    assert loss(fitted) < loss(worse)
