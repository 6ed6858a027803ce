"""A predictor: what goes in by name or position, what comes out, and every fault of the input at once."""

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import checkpoint
from m3col.data.splits import draw
from m3col.faults import BadInput
from m3col.training import Task, Training
from tests.helpers import tiny_config, tiny_data

DATA = tiny_data()
INPUTS = DATA.test.inputs


def model(folder, data=DATA, **overrides):
    folds = draw(data, kind="none")
    run = tiny_config(**overrides)
    training = Training(run, Task(pool=data.train, folds=folds, features=data.features, num_classes=data.num_classes))
    training.advance(3)
    described = {"config": run.to_dict(), "classes": data.classes, "features": data.features}
    checkpoint.write_model(folder, training.trainers, **described)
    return folder, training


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return m3col.load(model(tmp_path_factory.mktemp("m") / "model")[0])


def test_probabilities_are_those_of_the_trained_model(tmp_path):
    from m3col.metrics import softmax

    for precision in ("float32", "float64"):
        folder, training = model(tmp_path / precision, train__precision=precision, model__dropout=0.5)
        trainer = training.trainers[0]
        expected = softmax(trainer.logits(trainer.prepare(INPUTS))["fused"])
        assert np.array_equal(m3col.load(folder).predict_proba(INPUTS), expected)


def test_several_checkpoints_vote_with_their_mean(tmp_path):
    folders = [model(tmp_path / str(seed), train__seed=seed)[0] for seed in (0, 1, 2)]
    each = [m3col.load(folder).predict_proba(INPUTS) for folder in folders]
    together = m3col.load(folders)
    assert len(together) == 3
    assert np.allclose(together.predict_proba(INPUTS), np.mean(each, axis=0), rtol=0, atol=1e-15)
    assert np.allclose(together.predict_proba(INPUTS).sum(1), 1)


def test_what_a_model_says_of_itself(loaded):
    assert loaded.modalities == ("view_0", "view_1") and loaded.classes == ("0", "1")
    assert loaded.features == DATA.features and loaded.config["method"] == "m3col"
    assert set(loaded.votes(INPUTS)) == {"view_0", "view_1", "fused"}
    labels = loaded.predict(INPUTS)
    assert labels.tolist() == [loaded.classes[k] for k in loaded.predict_proba(INPUTS).argmax(1)]
    assert loaded.predict_proba({name: x[:1] for name, x in INPUTS.items()}).shape == (1, 2)
    assert loaded.predict_proba({name: x[:0] for name, x in INPUTS.items()}).shape == (0, 2)


def test_columns_of_frames_are_found_by_name(loaded):
    frames = {name: pd.DataFrame(x, columns=list(DATA.features[name])) for name, x in INPUTS.items()}
    shuffled = {name: frame[list(frame.columns)[::-1]].assign(more="text") for name, frame in frames.items()}
    assert np.array_equal(loaded.predict_proba(shuffled), loaded.predict_proba(INPUTS))


def test_column_names_may_be_numbers(tmp_path):
    frames = {name: pd.DataFrame(x) for name, x in DATA.train.inputs.items()}
    data = m3col.data.from_arrays(frames, DATA.train.labels)
    found = m3col.load(model(tmp_path / "m", data=data)[0])
    assert found.predict_proba({name: pd.DataFrame(x) for name, x in INPUTS.items()}).shape == (20, 2)


def changed(name, value):
    return {**INPUTS, name: value}


def spoiled(value, dtype=float):
    x = INPUTS["view_1"].astype(dtype)
    x[2, 3] = value
    return changed("view_1", x)


NAMED = pd.DataFrame(INPUTS["view_0"], columns=[*DATA.features["view_0"][:-1], "view_0_x"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["'view_0' is missing", "'view_1' is missing"]),
        ({"view_0": INPUTS["view_0"], "veiw_1": INPUTS["view_1"]}, ["'view_1' is missing", "did you mean 'veiw_1'"]),
        ({"view_0": np.zeros((3, 2))}, ["'view_0'", "[N, 5]", "[3, 2]", "'view_1' is missing"]),
        (changed("view_0", INPUTS["view_0"][:, 0]), ["'view_0'", "[N, 5]", "[20]"]),
        (changed("view_0", INPUTS["view_0"][:5]), ["same number of rows", "view_0 5", "view_1 20"]),
        (changed("view_0", NAMED), ["'view_0'", "view_0_4 are missing", "'view_0_x'"]),
        (spoiled(np.nan), ["'view_1': row 3, column 'view_1_3' is missing", "impute"]),
        (spoiled(-np.inf), ["row 3", "-inf"]),
        (spoiled("abc", object), ["'view_1': row 3, column 4 must be a number, but is 'abc'"]),
        ([INPUTS["view_0"], INPUTS["view_1"]], ["must map view_0, view_1", "list"]),
    ],
)  # fmt: skip
def test_every_fault_of_the_input_is_one_line(loaded, data, words):
    with pytest.raises(BadInput) as caught:
        loaded.predict_proba(data)
    assert all(any(word in line for line in caught.value.faults) for word in words), caught.value.faults
    assert not any("\n" in line for line in caught.value.faults)


def test_a_model_with_impute_takes_missing_values(tmp_path):
    found = m3col.load(model(tmp_path / "m", data__preprocess=["impute", "minmax"])[0])
    assert np.isfinite(found.predict_proba(spoiled(np.nan))).all()


def test_members_must_fit_each_other(tmp_path):
    two, _ = model(tmp_path / "two")
    three, _ = model(tmp_path / "three", data=tiny_data(classes=3))
    with pytest.raises(BadInput, match="classes or features differ"):
        m3col.load([two, three])
    with pytest.raises(BadInput, match="at least one"):
        m3col.load([])
