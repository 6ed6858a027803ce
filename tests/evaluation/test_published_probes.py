"""Linear evaluations of published code: gradients and costs by hand, loops, and scikit-learn's own search."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.metrics import balanced_accuracy_score, f1_score

from m3col import tasks
from m3col.evaluation import published_probes as probes
from m3col.evaluation.published_probes import COSTS, Samples


def blobs(count: int = 90, classes: int = 3, *, seed: int = 0, apart: float = 1.0) -> Samples:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return Samples(rng.normal(size=(count, 4)) + apart * np.eye(classes, 4)[labels], labels)


def objective(weight: np.ndarray, bias: np.ndarray, samples: Samples, cost: float) -> float:
    """Mean cross-entropy plus half the norm, which is not squared, over the cost: in loops."""
    total = 0.0
    for row, label in zip(samples.x, samples.labels, strict=True):
        outputs = [sum(w * v for w, v in zip(ws, row, strict=True)) + b for ws, b in zip(weight, bias, strict=True)]
        total += np.log(sum(np.exp(output) for output in outputs)) - outputs[label]
    return total / len(samples.labels) + 0.5 / cost * np.sqrt(sum(w * w for ws in weight for w in ws))


@pytest.mark.parametrize("cost", [1e-2, 1.0, 1e2])
def test_softmax_regression_has_the_least_of_its_objective(cost):
    samples = blobs()
    model = probes.softmax_regression(samples, cost, num_classes=3)
    best = objective(model.weight, model.bias, samples, cost)
    rng = np.random.default_rng(1)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(5):
            weight = model.weight + size * rng.normal(size=model.weight.shape)
            bias = model.bias + size * rng.normal(size=3)
            assert objective(weight, bias, samples, cost) > best - 1e-7
    assert (np.abs(model.weight).max() < 1e-6) == (cost == 1e-2)  # a norm that is not squared gives exact zeros


def test_grid_chooses_on_one_part_and_fits_both():
    fit, choose = blobs(60), blobs(45, seed=1)
    recalls = [
        balanced_accuracy_score(
            choose.labels, probes.softmax_regression(fit, c, num_classes=3).outputs(choose.x).argmax(1)
        )
        for c in COSTS
    ]
    assert pytest.approx(max(recalls)) != min(recalls)
    chosen = probes.grid(fit, choose, num_classes=3)
    assert chosen.cost == COSTS[recalls.index(max(recalls))]
    both = Samples(np.concatenate([fit.x, choose.x]), np.concatenate([fit.labels, choose.labels]))
    expected = probes.softmax_regression(both, chosen.cost, num_classes=3)
    np.testing.assert_array_equal(chosen.weight, expected.weight)


def test_without_a_validation_split_two_fifths_of_each_class_choose():
    samples = Samples(np.arange(50.0)[:, None], np.repeat([0, 1], [20, 30]))
    fit, choose = probes.divided(samples, None, samples.labels)
    assert [np.bincount(part.labels).tolist() for part in (fit, choose)] == [[12, 18], [8, 12]]
    assert sorted([*fit.x[:, 0], *choose.x[:, 0]]) == samples.x[:, 0].tolist()
    given = blobs(9)
    assert probes.divided(samples, given, samples.labels) == (samples, given)


def test_without_a_validation_split_two_samples_of_a_class_are_too_few_to_choose_a_cost():
    """Then no protocol gives predictions, so that its column of the table is empty."""
    few = blobs(6, classes=3)  # two of each class
    assert probes.divided(few, None, few.labels) is None
    assert tasks.build(classes=3).published_probes(few, None) == {}
    rare = Samples(np.arange(12.0)[:, None], np.repeat([0, 1], [10, 2]))
    assert probes.divided(rare, None, rare.labels, needs_all=True) is None
    assert [len(part.labels) for part in probes.divided(rare, None, rare.labels)] == [8, 4]
    assert tasks.build(classes=2).published_probes(rare, None) == {}
    assert [*tasks.build(classes=2).published_probes(rare, rare)] == ["grid"]
    lone = Samples(np.arange(2.0)[:, None], np.eye(2, dtype=int))
    assert tasks.build("multi_label", classes=2).published_probes(lone, None) == {}


@pytest.mark.parametrize("apart", [0.4, 1.5])
def test_the_notebooks_evaluation_is_the_search_of_scikit_learn(apart):
    samples, others = blobs(120, apart=apart), blobs(60, seed=5, apart=apart)
    theirs = LogisticRegressionCV(
        Cs=np.logspace(-4, 4, 5), cv=5, max_iter=100, scoring="balanced_accuracy", l1_ratios=(0.0,),
        use_legacy_attributes=False,
    ).fit(samples.x, samples.labels)  # fmt: skip
    model = probes.notebook(samples, num_classes=3)
    assert model.cost == pytest.approx(theirs.C_)
    outputs = model.outputs(others.x) - model.outputs(others.x).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs, theirs.decision_function(others.x), atol=2e-3)


def test_the_notebooks_evaluation_needs_as_many_samples_of_a_class_as_folds():
    samples = blobs(30)
    assert probes.notebook(Samples(samples.x[:14], samples.labels[:14]), num_classes=3) is None
    assert probes.notebook(Samples(samples.x, np.zeros(30, int)), num_classes=3) is None
    assert probes.notebook(Samples(samples.x[:15], samples.labels[:15]), num_classes=4).weight.shape == (4, 4)


def test_one_regression_per_label_with_one_cost_by_macro_f1():
    def labelled(seed: int) -> Samples:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(60, 4))
        labels = (x[:, :3] + 0.8 * rng.normal(size=(60, 3)) > 0.5).astype(int)
        return Samples(x, np.concatenate([labels, np.zeros((60, 1), int)], axis=1))  # the last one nobody has

    fit, choose = labelled(0), labelled(1)
    scores, models = [], []
    for cost in COSTS:
        own = [LogisticRegression(C=cost, max_iter=100).fit(fit.x, fit.labels[:, k]) for k in range(3)]
        predicted = np.stack([*(model.predict(choose.x) for model in own), np.zeros(60, int)], axis=1)
        scores.append(f1_score(choose.labels, predicted, average="macro", zero_division=0))
    chosen = probes.grid_per_label(fit, choose)
    assert chosen.cost == COSTS[int(np.argmax(scores))] and max(scores) > min(scores)
    both = fit.joined(choose)
    models = [LogisticRegression(C=chosen.cost, max_iter=100).fit(both.x, both.labels[:, k]) for k in range(3)]
    for k, model in enumerate(models):
        np.testing.assert_allclose(chosen.outputs(choose.x)[:, k], model.decision_function(choose.x), atol=1e-6)
    assert (chosen.outputs(choose.x)[:, 3] < 0).all()


def test_ridge_has_a_model_for_each_penalty():
    rng = np.random.default_rng(0)
    train = Samples(rng.normal(size=(30, 4)), rng.normal(size=(30, 2)))
    for model, alpha in zip(probes.ridge(train), [10.0**k for k in range(6, -7, -2)], strict=True):
        theirs = Ridge(alpha=alpha).fit(train.x, train.labels)
        np.testing.assert_allclose(model.outputs(train.x), theirs.predict(train.x), atol=1e-9)


def test_each_task_has_its_published_evaluations():
    single, validation = blobs(60), blobs(30, seed=1)
    found = tasks.build(classes=3).published_probes(single, validation)
    assert {name: len(models) for name, models in found.items()} == {"grid": 1, "notebook": 1}
    expected = probes.notebook(single, num_classes=3)  # validation samples are no part of it
    np.testing.assert_array_equal(found["notebook"][0].weight, expected.weight)
    labels = Samples(single.x, np.eye(3, dtype=int)[single.labels])
    assert [*tasks.build("multi_label", classes=3).published_probes(labels, None)] == ["grid"]
    numbers = Samples(single.x, single.x[:, :2] @ np.array([[1.0, 2.0], [0.5, 1.0]]))
    found = tasks.build("regression", classes=2).published_probes(numbers, Samples(validation.x, validation.x[:, :2]))
    assert [*found] == ["ridge"] and len(found["ridge"]) == len(COSTS)
    np.testing.assert_array_equal(
        found["ridge"][3].weight, probes.ridge(numbers.joined(Samples(validation.x, validation.x[:, :2])))[3].weight
    )
