"""The forms of the free baselines equal plain loops over scikit-learn, and never see the samples they predict."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from m3col import tasks
from m3col.evaluation import baseline_forms
from m3col.evaluation.baseline_forms import COSTS, Block, Forms, inner_folds

RNG = np.random.default_rng(0)

LABELS = np.repeat([0, 1, 2], 16)

NEW = np.repeat([0, 1, 2], 4)

TASK = tasks.build(classes=3)


def features(labels: np.ndarray, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, len(labels)])
    centres = np.random.default_rng(seed).normal(size=(3, width))
    return centres[labels] + rng.normal(size=(len(labels), width))


def forms(*, absent: int = 0, wrap=np.asarray, **changes) -> Forms:
    blocks = {}
    for name, width in (("a", 4), ("b", 3)):
        has = (np.ones(len(LABELS), dtype=bool), np.ones(len(NEW), dtype=bool))
        if name == "b":
            has[0][:absent], has[1][:absent] = False, False
        blocks[name] = Block(wrap(features(LABELS, width, width)), wrap(features(NEW, width, width)), *has)
    return Forms(TASK, LABELS, blocks, **changes)


def fitted(x, y, apply, cost=1.0):
    return LogisticRegression(C=cost, max_iter=10_000).fit(x, y).predict_proba(apply)


def test_late_is_the_mean_of_the_modalities_probabilities():
    made = forms()
    expected = np.mean([fitted(block.train, LABELS, block.apply) for block in made.blocks.values()], axis=0)
    np.testing.assert_allclose(made.late(made.linear()), expected, atol=1e-9)


def test_a_modality_that_a_sample_lacks_is_left_out_of_the_mean_and_of_the_fit():
    made = forms(absent=3)
    a, b = made.blocks["a"], made.blocks["b"]
    first, second = fitted(a.train, LABELS, a.apply), fitted(b.train[3:], LABELS[3:], b.apply)
    expected = np.where(np.arange(len(NEW))[:, None] < 3, first, (first + second) / 2)
    np.testing.assert_allclose(made.late(made.linear()), expected, atol=1e-9)
    np.testing.assert_allclose(made.alone(made.linear(), "b")[:3], made.constant()[:3])


def test_the_cost_is_the_one_with_the_least_log_loss_over_inner_folds():
    made = forms()
    x, losses = made.blocks["b"].train, []
    for cost in COSTS:
        p = np.zeros((len(LABELS), 3))
        for fit, rest in inner_folds(TASK, LABELS, None):
            p[rest] = fitted(x[fit], LABELS[fit], x[rest], cost)
        losses.append(-np.log(p[np.arange(len(LABELS)), LABELS]).mean())
    assert made.cost("b") == COSTS[int(np.argmin(losses))] and len(set(losses)) == len(COSTS)
    np.testing.assert_allclose(
        made.alone(made.tuned("b"), "b"), fitted(x, LABELS, made.blocks["b"].apply, made.cost("b")), atol=1e-9
    )


def test_stacked_is_fitted_to_predictions_of_samples_that_the_inner_models_did_not_see():
    made = forms()
    columns, new = [], []
    for block in made.blocks.values():
        p = np.zeros((len(LABELS), 3))
        for fit, rest in inner_folds(TASK, LABELS, None):
            p[rest] = fitted(block.train[fit], LABELS[fit], block.train[rest])
        columns.append(np.log(p))
        new.append(np.log(fitted(block.train, LABELS, block.apply)))
    expected = fitted(np.concatenate(columns, axis=1), LABELS, np.concatenate(new, axis=1))
    np.testing.assert_allclose(made.stacked(), expected, atol=1e-6)


def test_grouped_is_a_penalty_per_modality():
    made = forms()
    costs = [made.cost(name) for name in made.blocks]
    candidates = []
    for share in baseline_forms._GROUPED:
        scale = np.sqrt(share * np.repeat(costs, [4, 3]))
        candidates.append(fitted(made.joined.train * scale, LABELS, made.joined.apply * scale))
    distances = [np.abs(made.grouped() - p).max() for p in candidates]
    assert min(distances) < 1e-9
    np.testing.assert_allclose(forms(wrap=sparse.csr_matrix).grouped(), made.grouped(), atol=1e-3)


def test_cooperative_learning_gives_probabilities():
    p = forms().cooperative()
    assert p.sum(axis=1) == pytest.approx(1) and (p.argmax(axis=1) == NEW).mean() > 0.6


def test_inner_folds_keep_groups_together_and_every_class_in_each():
    groups = np.arange(len(LABELS)) // 2
    divided = inner_folds(TASK, LABELS, groups)
    assert sorted(np.concatenate([rest for _, rest in divided])) == [*range(len(LABELS))]
    for fit, rest in divided:
        assert not {*groups[fit]} & {*groups[rest]} and {*LABELS[fit]} == {0, 1, 2}
    assert inner_folds(TASK, np.array([0, 0, 1, 2, 2]), None) == []
    assert len(inner_folds(TASK, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), None)) == 3


def test_without_inner_folds_nothing_is_chosen():
    made = forms()
    made.labels = np.array([0] * 47 + [1])
    assert made.inner_folds == [] and made.cost("a") == 1.0 and made.stacked() is None and made.cooperative() is None


def test_no_form_sees_the_labels_it_predicts():
    """Predictions of the new samples do not depend on what other new samples are there."""
    whole = forms()
    parts = {name: Block(b.train, b.apply[:1], b.in_train, b.in_apply[:1]) for name, b in whole.blocks.items()}
    one = Forms(TASK, LABELS, parts)
    for form in (
        lambda f: f.late_tuned(),
        lambda f: f.stacked(tuned=True),
        lambda f: f.grouped(),
        lambda f: f.cooperative(),
    ):
        np.testing.assert_allclose(form(one)[0], form(whole)[0], atol=1e-9)
