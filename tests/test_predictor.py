"""A predictor: what goes in by name or position, what comes out, and every fault of the input at once."""

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import tasks
from m3col.data.splits import draw
from m3col.errors import InputError
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()
INPUTS = DATA.test.inputs


def model(folder, data=DATA, **overrides):
    folds = draw(data, kind="none")
    run = tiny_config(**overrides)
    training = LockstepTrainer(
        run, TrainingJob(pool=data.train, folds=folds, features=data.features, task=tasks.build(classes=data.classes))
    )
    training.advance(3)
    described = {"config": run.to_dict(), "classes": data.classes, "features": data.features}
    checkpoint.write_model(folder, training.trainers, **described)
    return folder, training


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return m3col.load(model(tmp_path_factory.mktemp("m") / "model")[0])


def test_probabilities_are_those_of_the_trained_model(tmp_path):
    from m3col.metrics.classification import softmax

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
    with pytest.raises(InputError) as caught:
        loaded.predict_proba(data)
    assert all(any(word in line for line in caught.value.faults) for word in words), caught.value.faults
    assert not any("\n" in line for line in caught.value.faults)


def test_a_model_with_impute_takes_missing_values(tmp_path):
    found = m3col.load(model(tmp_path / "m", data__preprocess=["impute", "minmax"])[0])
    assert np.isfinite(found.predict_proba(spoiled(np.nan))).all()


def test_members_must_fit_each_other(tmp_path):
    two, _ = model(tmp_path / "two")
    three, _ = model(tmp_path / "three", data=tiny_data(classes=3))
    with pytest.raises(InputError, match="classes or features differ"):
        m3col.load([two, three])
    with pytest.raises(InputError, match="at least one"):
        m3col.load([])


# Rows


IDS = [f"P{n}" for n in range(20)]
FRAMES = {name: pd.DataFrame(x, columns=list(DATA.features[name]), index=IDS) for name, x in INPUTS.items()}


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_one_sample_are_found_by_their_index(loaded, seed):
    plain = loaded.predict_proba(INPUTS)
    other = {**FRAMES, "view_1": FRAMES["view_1"].sample(frac=1, random_state=seed)}
    np.testing.assert_array_equal(loaded.predict_proba(other), plain)
    assert loaded.predict(other).tolist() == loaded.predict(INPUTS).tolist()
    for name, votes in loaded.votes(other).items():
        np.testing.assert_array_equal(votes, loaded.votes(INPUTS)[name])
    for name, value in loaded.embeddings(other).items():
        np.testing.assert_array_equal(value, loaded.embeddings(INPUTS)[name])


def test_a_table_of_predictions_keeps_the_index(loaded):
    turned = {name: frame.iloc[::-1] for name, frame in FRAMES.items()}
    table = loaded.predict_table({**FRAMES, "view_0": turned["view_0"]})
    assert table.index.tolist() == IDS[::-1]
    assert table.columns.tolist() == ["label", "p(0)", "p(1)", "vote(view_0)", "vote(view_1)"]
    np.testing.assert_allclose(table.loc[IDS, ["p(0)", "p(1)"]].to_numpy(), loaded.predict_proba(INPUTS), rtol=1e-6)
    assert table.loc[IDS, "label"].tolist() == loaded.predict(INPUTS).tolist()
    assert loaded.predict_table(INPUTS).index.tolist() == list(range(20))


def test_repeated_ids_do_no_harm_where_all_modalities_have_them_alike(loaded):
    repeated = {name: frame.set_axis(["P"] * 20) for name, frame in FRAMES.items()}
    np.testing.assert_array_equal(loaded.predict_proba(repeated), loaded.predict_proba(INPUTS))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (FRAMES["view_1"].iloc[1:], "only in view_0: 'P0'"),
        (FRAMES["view_1"].rename(index={"P3": "Q"}), "only in view_0: 'P3'; only in view_1: 'Q'"),
        (FRAMES["view_1"].reset_index(drop=True), "view_1 has pandas' own index"),
        (FRAMES["view_1"].set_axis([*IDS[1:], "P1"]), "view_1: every id must be unique"),
        (FRAMES["view_1"].set_axis([str(n) for n in range(20)]), "no id in common: are they written alike"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(loaded, second, words):
    with pytest.raises(InputError) as caught:
        loaded.predict_proba({**FRAMES, "view_1": second})
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [1e40, np.inf, -np.inf, -1e39])
@pytest.mark.parametrize("form", ["array", "frame", "tensor"])
def test_no_value_that_does_not_fit_is_computed_with(loaded, value, form):
    import torch

    x = spoiled(value)["view_1"]
    given = {"array": x, "frame": pd.DataFrame(x, columns=list(DATA.features["view_1"])), "tensor": torch.tensor(x)}
    with pytest.raises(InputError, match=r"'view_1': row 3, column 4 \(view_1_3\): "):
        loaded.predict_proba(changed("view_1", given[form]))


def test_a_model_in_float64_takes_what_fits_into_it(tmp_path):
    found = m3col.load(model(tmp_path / "m", train__precision="float64")[0])
    assert np.isfinite(found.predict_proba(spoiled(1e40))).all()
    with pytest.raises(InputError, match="inf is infinite"):
        found.predict_proba(spoiled(np.inf))


def test_a_value_that_overflows_in_preprocessing_is_named(tmp_path):
    views = {name: x * 1e-30 for name, x in DATA.train.inputs.items()}
    small = m3col.data.from_arrays(views, DATA.train.labels)
    found = m3col.load(model(tmp_path / "m", data=small)[0])
    with pytest.raises(
        InputError, match=r"modality 'view_1', after preprocessing: row 3, column 4 \(view_1_3\): 1.*e\+"
    ):
        found.predict_proba(spoiled(1e10))


def test_no_probability_that_is_no_number_leaves_a_predictor(loaded, monkeypatch):
    def broken(inputs):
        found = {name: np.full((20, 2), 0.5) for name in ("fused", "view_0")}
        found["view_0"][4, 1] = np.nan
        return found

    monkeypatch.setattr(loaded.members[0], "probabilities", broken)
    with pytest.raises(InputError, match=r"row 5: the model gives no probabilities \(1 such rows in all\)"):
        loaded.votes(INPUTS)


def test_repeated_columns_are_refused_where_they_are_needed(loaded):
    twice = pd.concat([FRAMES["view_0"], FRAMES["view_0"][["view_0_1"]]], axis=1)
    with pytest.raises(InputError, match="columns 'view_0_1' stand more than once"):
        loaded.predict_proba({**FRAMES, "view_0": twice})
    harmless = pd.concat([FRAMES["view_0"], FRAMES["view_0"][["view_0_1"]].set_axis(["other"], axis=1)], axis=1)
    np.testing.assert_array_equal(loaded.predict_proba({**FRAMES, "view_0": harmless}), loaded.predict_proba(INPUTS))
