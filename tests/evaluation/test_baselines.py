"""The free baselines of the test table."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from m3col.errors import InputError
from m3col.evaluation import baselines
from m3col.metrics import classification


def test_majority_predicts_the_training_frequencies() -> None:
    p = baselines.majority([1, 1, 0, 1], 3, num_classes=3)
    assert p.tolist() == [[0.25, 0.75, 0.0]] * 3
    assert baselines.majority([0, 1], 0, num_classes=2).shape == (0, 2)
    values = classification.compute([0, 1, 1, 0], baselines.majority([0, 1, 1], 4, num_classes=2))
    assert (values["accuracy"], values["auroc"]) == (0.5, 0.5)


def test_logistic_on_real_digits_is_scikit_learns() -> None:
    x, y = load_digits(return_X_y=True)
    split = train_test_split(x / 16, y, train_size=200, stratify=y, random_state=0)
    x_train, x_test, y_train, y_test = split
    p = baselines.logistic(x_train, y_train, x_test, num_classes=10)
    model = LogisticRegression(C=1.0, max_iter=5000).fit(x_train, y_train)
    np.testing.assert_allclose(p, model.predict_proba(x_test), atol=1e-9)
    assert classification.score("accuracy", y_test, p) > 0.88


def test_a_sparse_table_stays_sparse_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_digits(return_X_y=True)
    x = x / 16
    expected = baselines.logistic(x[:150], y[:150], x[150:200], num_classes=10)
    fitted, fit = [], LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, x, y: fitted.append(x) or fit(self, x, y))
    train, apply = sparse.csr_matrix(x[:150]), sparse.csr_matrix(x[150:200])
    p = baselines.logistic(train, y[:150], apply, num_classes=10)
    assert sparse.issparse(fitted[0])
    np.testing.assert_allclose(p, expected, atol=1e-4)
    assert baselines.logistic(train, y[:150], apply[:0], num_classes=10).shape == (0, 10)
    train[7, 3] = np.nan
    with pytest.raises(InputError, match="x_train must be finite, but row 7, column 3 is nan"):
        baselines.logistic(train, y[:150], apply, num_classes=10)


def test_logistic_gives_an_absent_class_no_probability() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2, 3], 10)
    p = baselines.logistic(rng.normal(size=(30, 4)) + y[:, None], y, rng.normal(size=(5, 4)), num_classes=5)
    assert p.shape == (5, 5)
    assert (p[:, [1, 4]] == 0).all()
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p[:, [0, 2, 3]] > 0).all()


def test_bad_input_is_named_all_at_once() -> None:
    x = np.ones((3, 2))
    with pytest.raises(InputError) as caught:
        baselines.logistic(x, [0, 7], [[np.nan]], num_classes=2)
    assert [line.split()[0] for line in caught.value.faults] == ["y_train", "x_apply", "x_train", "x_apply"]
    with pytest.raises(InputError, match="row 1, column 0 is inf"):
        baselines.logistic([[1.0], [np.inf]], [0, 1], [[1.0]], num_classes=2)
    with pytest.raises(InputError, match="at least two classes, but holds only 1"):
        baselines.logistic(x, [1, 1, 1], x, num_classes=2)
    with pytest.raises(InputError, match="at least one integer from 0 to 1"):
        baselines.majority([], 3, num_classes=2)
