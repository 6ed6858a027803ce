"""Preprocessing: each step against a simple reference, state, faults, and no leakage."""

import numpy as np
import pytest
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from m3col.data import arrays, preprocessing, splits
from m3col.data import arrays as data_arrays
from m3col.data.checks import dataset_values
from m3col.data.preprocessing import Pipeline
from m3col.errors import InputError


@pytest.fixture
def x() -> np.ndarray:
    values = np.random.default_rng(1).normal(size=(30, 6)) * [1, 10, 0.1, 1, 1, 1]
    values[:, 3] = 0.1  # a constant whose mean is not exactly 0.1
    return values


LABELS = np.arange(30) % 3
NAMES = [f"f{k}" for k in range(6)]


def fit(x, steps) -> Pipeline:
    return Pipeline.fit(x, LABELS, steps, feature_names=NAMES)


@pytest.mark.parametrize(("step", "twin"), [("minmax", MinMaxScaler()), ("standard", StandardScaler())])
def test_scaling_agrees_with_scikit_learn_and_clips_nothing(x, step, twin):
    other = np.random.default_rng(2).normal(size=(10, 6)) * 30
    fitted = fit(x, [step])
    varying = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(fitted.transform(other)[:, varying], twin.fit(x).transform(other)[:, varying])
    assert (fitted.transform(other)[:, 3] == 0).all() and (fitted.transform(x)[:, 3] == 0).all()
    assert fitted.transform(other).max() > 1 and fitted.transform(other).min() < 0


def test_impute_uses_the_training_median_and_takes_infinity_as_missing(x):
    x[:10, 0] = np.nan
    x[10, 1] = np.inf
    x[:, 2] = np.nan
    fitted = fit(x, ["impute"])
    new = fitted.transform(np.full((1, 6), -np.inf))[0]
    assert new[0] == np.median(x[10:, 0])
    assert new[1] == np.median(np.delete(x[:, 1], 10))
    assert new[2] == 0
    np.testing.assert_array_equal(fitted.transform(x)[11:, 1], x[11:, 1])


def test_variance_drops_constant_features_and_those_below_the_threshold(x):
    assert fit(x, ["variance"]).feature_names == ("f0", "f1", "f2", "f4", "f5")
    assert fit(x, [{"variance": 20}]).feature_names == ("f1",)
    with pytest.raises(InputError, match="variance: 1e\\+06 keeps no feature; the largest training variance is"):
        fit(x, [{"variance": 1e6}])


def test_anova_keeps_the_best_features_of_scikit_learn(x):
    x[:, 4] += LABELS
    varying = [0, 1, 2, 4, 5]
    expected, _ = f_classif(x[:, varying], LABELS)
    np.testing.assert_allclose(preprocessing.f_statistic(x, LABELS)[varying], expected)
    best = sorted(np.array(varying)[np.argsort(-expected)[:2]])
    assert fit(x, [{"anova": 2}]).feature_names == tuple(f"f{k}" for k in best)
    assert fit(x, [{"anova": 5}]).feature_names == ("f0", "f1", "f2", "f4", "f5")
    assert len(fit(x, [{"anova": 99}]).feature_names) == 6


def test_a_feature_that_separates_perfectly_ranks_first(x):
    x[:, 5] = LABELS
    assert fit(x, [{"anova": 1}]).feature_names == ("f5",)


def test_steps_follow_one_another_and_survive_storage(x):
    x[0, 0] = np.nan
    steps = ["impute", {"variance": 0.0}, {"anova": 3}, "minmax"]
    fitted = fit(x, steps)
    described, arrays = fitted.state()
    assert all(a.dtype in (np.float64, np.int64) for a in arrays.values())
    again = Pipeline.from_state(described, arrays)
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))
    assert again.feature_names == fitted.feature_names and len(again.feature_names) == 3
    assert fitted.transform(x).min() == 0 and fitted.transform(x).max() == 1


def test_storage_that_does_not_fit_is_refused(x):
    described, arrays = fit(x, ["minmax"]).state()
    with pytest.raises(InputError, match="'minmix' is unknown"):
        Pipeline.from_state(described | {"steps": ["minmix"]}, arrays)
    with pytest.raises(InputError, match="arrays of step 0 are"):
        Pipeline.from_state(described, {"0.shift": arrays["0.shift"]})
    with pytest.raises(InputError, match="'steps'"):
        Pipeline.from_state({}, arrays)


def test_x_is_not_modified_and_its_width_is_validated(x):
    before = x.copy()
    fitted = fit(x, ["impute", "minmax"])
    fitted.transform(x)
    np.testing.assert_array_equal(x, before)
    with pytest.raises(ValueError, match=r"must be \[N, 6\]"):
        fitted.transform(x[:, :5])
    with pytest.raises(ValueError, match="5 feature names for 6 columns"):
        Pipeline.fit(x, LABELS, [], feature_names=NAMES[:5])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (["minmx"], r"data.preprocess\[0\]: step 'minmx' is unknown; did you mean 'minmax'"),
        (["minmax", {"minmax": 1}], r"\[1\]: step 'minmax' takes no value, but got 1"),
        (["anova"], "needs a value, a whole number"),
        ([{"anova": 0}], "anova must be a whole number of features >= 1, but got 0"),
        ([{"anova": True}], "got True"),
        ([{"anova": 2.0}], "got 2.0"),
        ([{"variance": float("nan")}], "got nan"),
        ([{"variance": -1}], "got -1"),
        (["minmax", "impute"], "impute must be the first step"),
        ("minmax", "must be a list of steps"),
        ([3], "a step is a name"),
        ({"a": ["minmx"], "b": []}, r"data.preprocess.a\[0\]"),
    ],
)
def test_faults_of_a_list_of_steps(spec, match):
    with pytest.raises(InputError, match=match):
        preprocessing.resolve(spec, ["a", "b"])


def test_steps_per_modality():
    assert preprocessing.resolve(["minmax"], ["a", "b"]) == {"a": ["minmax"], "b": ["minmax"]}
    assert preprocessing.resolve({"b": [], "a": ["minmax"]}, ["a", "b"]) == {"a": ["minmax"], "b": []}
    with pytest.raises(InputError) as caught:
        preprocessing.resolve({"a": [{"anova": 0}], "bb": []}, ["a", "b"])
    assert len(caught.value.faults) == 3


def test_values_that_are_not_finite_need_impute():
    a, b = np.eye(4), np.eye(4)
    a[1, 2], a[3, 0], b[0, 0] = np.nan, np.nan, np.nan
    held_out = {"a": np.eye(4), "b": np.eye(4)}
    held_out["b"][2, 3] = np.nan
    dataset = data_arrays.from_arrays({"a": a, "b": b}, [0, 1, 0, 1], test=(held_out, [0, 1, 0, 1]), name="toy")
    lines = dataset_values.faults(dataset, ["minmax"])
    assert len(lines) == 3
    assert lines[0].startswith("toy, modality 'a', train: row 2, column 3 (a_2): value nan (2 such in all)")
    assert "modality 'b', test: row 3, column 4 (b_3): value nan" in lines[2]
    assert dataset_values.faults(dataset, ["impute", "minmax"]) == []
    assert len(dataset_values.faults(dataset, {"a": ["impute"], "b": []})) == 2
    assert "keeps no feature" in dataset_values.faults(dataset, ["impute", {"variance": 9}])[0]
    assert "unknown" in dataset_values.faults(dataset, ["minmx"])[0]


def permuted_auroc(*, select_first: bool) -> float:
    """Mean AUROC over 5 folds of 5,000 random features with random labels and `anova: 50`."""
    rng = np.random.default_rng(8)
    count = 300
    x, labels = rng.normal(size=(count, 5000)), rng.permutation(np.arange(count) % 2)
    if select_first:  # the mistake: the validation samples take part in the selection
        x = Pipeline.fit(x, labels, [{"anova": 50}], feature_names=[""] * 5000).transform(x)
    dataset = arrays.from_arrays({"noise": x}, labels)
    scores = []
    for fold in splits.draw(dataset, kind="kfold", folds=5, seed=0):
        train, held_out = dataset.train.take(fold.train), dataset.train.take(fold.validation)
        steps = ["minmax"] if select_first else [{"anova": 50}, "minmax"]
        names = dataset.features["noise"]
        fitted = Pipeline.fit(train.inputs["noise"], train.labels, steps, feature_names=names)
        model = LogisticRegression(max_iter=500).fit(fitted.transform(train.inputs["noise"]), train.labels)
        scores.append(
            roc_auc_score(held_out.labels, model.predict_proba(fitted.transform(held_out.inputs["noise"]))[:, 1])
        )
    return float(np.mean(scores))


def test_selection_inside_the_folds_finds_nothing_in_permuted_labels():
    # standard error of a null AUROC with n/2 samples per class: sqrt((n + 1) / (12 (n/2)^2)), here 0.033
    assert permuted_auroc(select_first=False) == pytest.approx(0.5, abs=1.96 * (301 / (12 * 150**2)) ** 0.5)


def test_selection_before_the_folds_would_be_seen():
    assert permuted_auroc(select_first=True) > 0.8
