"""The linear classifier on embeddings: the minimum of its loss, chosen and fitted without any other sample."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from m3col.evaluation.linear_evaluation import COSTS, LinearModel, inner_split, logistic, one_per_label, ridge


def blobs(classes: int, *, samples: int = 120, columns: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, labels = make_classification(
        samples, columns, n_informative=4, n_redundant=0, n_classes=classes, n_clusters_per_class=1, class_sep=0.7,
        random_state=seed,
    )  # fmt: skip
    return x * np.arange(1, columns + 1) + 5, labels


def softmax(outputs: np.ndarray) -> np.ndarray:
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_it_is_the_minimum_of_the_penalised_cross_entropy(weights):
    """The same loss, minimised by scipy from its definition on standardised columns."""
    x, labels = blobs(3)
    model = logistic(x, labels, num_classes=3, class_weight=weights, costs=[0.1])
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    counted = np.ones(len(labels)) if weights is None else np.asarray(weights)[labels]

    def loss(flat: np.ndarray) -> float:
        weight, bias = flat[:18].reshape(3, 6), flat[18:]
        p = softmax(scaled @ weight.T + bias)[np.arange(len(labels)), labels]
        return float(-(counted * np.log(p)).sum() + (weight**2).sum() / (2 * 0.1))

    best = minimize(loss, np.zeros(21), method="BFGS", options={"gtol": 1e-8}).x
    expected = softmax(scaled @ best[:18].reshape(3, 6).T + best[18:])
    np.testing.assert_allclose(softmax(model.outputs(x)), expected, atol=2e-3)


def test_two_classes_have_two_outputs_of_opposite_sign():
    x, labels = blobs(2)
    model = logistic(x, labels, num_classes=2)
    outputs = model.outputs(x)
    np.testing.assert_allclose(outputs[:, 0], -outputs[:, 1], atol=1e-9)
    assert (outputs.argmax(axis=1) == labels).mean() > 0.8


def test_the_cost_is_chosen_on_samples_that_were_not_fitted():
    """Few samples in many columns, of which one tells the classes apart: the cost matters; the first of equals wins."""
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    x = rng.normal(size=(80, 60))
    x[:, 0] += 1.5 * labels
    model = logistic(x, labels, num_classes=2, seed=3)
    fit, choose = inner_split(labels, seed=3)
    assert set(fit) | set(choose) == set(range(80)) and not set(fit) & set(choose)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    recalls = []
    for cost in COSTS:
        alone = LogisticRegression(C=cost, max_iter=5000).fit(scaled[fit], labels[fit])
        right = alone.predict(scaled[choose]) == labels[choose]
        recalls.append(np.mean([right[labels[choose] == c].mean() for c in (0, 1)]))
    assert len(set(recalls)) > 1 and model.cost == COSTS[int(np.argmax(recalls))]


def test_a_column_that_is_constant_up_to_rounding_gets_a_weight_like_any_other():
    x, labels = blobs(2)
    noise = np.float32(3) + np.random.default_rng(0).normal(size=(len(x), 20)).astype(np.float32) * np.float32(1e-6)
    assert np.abs(logistic(np.hstack([x, noise]), labels, num_classes=2).weight).max() < 100


def test_a_class_without_samples_is_never_predicted_and_stays_finite():
    x, labels = blobs(2)
    model = logistic(x, labels * 2, num_classes=4)
    assert np.isfinite(model.outputs(x)).all() and set(model.outputs(x).argmax(axis=1)) <= {0, 2}
    only = logistic(x, np.full(len(x), 3), num_classes=4)
    assert set(only.outputs(x).argmax(axis=1)) == {3}


def test_a_constant_column_and_one_class_with_a_single_sample_do_no_harm():
    x, labels = blobs(2)
    x[:, 0] = 7.0
    labels[labels == 1] = 0
    labels[0] = 1
    assert isinstance(logistic(x, labels, num_classes=2), LinearModel)
    assert np.isfinite(logistic(x, labels, num_classes=2).weight).all()


def test_each_label_has_the_logit_of_a_regression_of_its_own():
    x, first = blobs(2)
    second = 1 - np.roll(first, 7)
    model = one_per_label(
        x, np.stack([first, second, np.zeros_like(first)], axis=1), positive_weight=np.array([1.0, 4.0, 1.0])
    )
    for column, labels, weight in ((0, first, 1.0), (1, second, 4.0)):
        alone = logistic(x, labels, num_classes=2, class_weight=[1.0, weight]).outputs(x)
        np.testing.assert_allclose(model.outputs(x)[:, column], alone[:, 1] - alone[:, 0], rtol=1e-9, atol=1e-9)
    assert (model.outputs(x)[:, 2] < -1e3).all()  # a label that no sample has


def test_ridge_is_the_minimum_of_its_loss_and_prefers_the_penalty_that_predicts_best():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)) * np.arange(1, 6) + 3
    targets = x @ rng.normal(size=(5, 2)) + rng.normal(size=(80, 2))
    model = ridge(x, targets, costs=[0.1])
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = np.linalg.solve(scaled.T @ scaled + 10 * np.eye(5), scaled.T @ (targets - targets.mean(axis=0)))
    np.testing.assert_allclose(model.outputs(x), scaled @ expected + targets.mean(axis=0), rtol=1e-9)
    assert ridge(x, targets).cost > ridge(x[:, :1] * 0 + rng.normal(size=(80, 1)), targets).cost
