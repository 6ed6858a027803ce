"""Outer splits: what is pooled, what is divided, and that a training with one can be loaded, evaluated and resumed."""

import numpy as np
import pytest

import m3col
from jobs import cli
from m3col import api, tasks
from m3col.config import loading as run_config
from m3col.config.resplit import ResplitConfig
from m3col.data import arrays, loading, resplits
from m3col.data.dataset import Dataset
from m3col.errors import InputError
from m3col.evaluation import test_ledger


def build(counts=(30, 20, 10), *, test=(5, 5, 5), **options) -> Dataset:
    """Samples of each class; the only feature numbers the samples."""
    labels = np.repeat(np.arange(len(counts)), counts)
    held_out = np.repeat(np.arange(len(test)), test)
    return arrays.from_arrays(
        {"a": np.arange(len(labels), dtype=float)[:, None], "b": np.ones((len(labels), 2))}, labels,
        test=({"a": 1000 + np.arange(len(held_out), dtype=float)[:, None], "b": np.ones((len(held_out), 2))}, held_out),
        **options,
    )  # fmt: skip


def applied(dataset: Dataset, task: str = "single_label", **settings) -> Dataset:
    return resplits.apply(dataset, ResplitConfig(**settings), task=tasks.build(task, dataset.classes))


def features(dataset: Dataset) -> tuple[list[float], list[float]]:
    return tuple([] if x is None else x.inputs["a"][:, 0].tolist() for x in (dataset.train, dataset.test))


EVERY = [*range(60), *range(1000, 1015)]


def test_a_random_division_has_the_share_of_the_data_set_in_every_class_and_depends_on_seed_and_index_alone():
    dataset = build()
    divided = [applied(dataset, seed=3, index=index) for index in range(4)]
    for each in divided:
        train, test = features(each)
        assert sorted([*train, *test]) == EVERY
        assert len(test) == 15 and each.validation is None
        # 15 of 75 samples are tested: a fifth of the 35, 25 and 15 samples of the classes
        assert np.bincount(each.test.labels).tolist() == [7, 5, 3]
        for split in (each.train, each.test):  # labels and ids have moved with their samples
            numbers = split.inputs["a"][:, 0].astype(int)
            own = np.where(numbers < 1000, np.searchsorted([30, 50], numbers, side="right"), (numbers - 1000) // 5)
            assert split.labels.tolist() == own.tolist()
            assert split.ids.tolist() == [f"train-{n}" if n < 1000 else f"test-{n - 1000}" for n in numbers]
    assert len({tuple(features(each)[1]) for each in divided}) == 4
    assert features(applied(dataset, seed=3, index=2)) == features(divided[2])
    assert features(applied(dataset, seed=4, index=2)) != features(divided[2])


def test_validation_samples_are_pooled_and_as_many_are_tested_as_before():
    validation = ({"a": 2000 + np.arange(4.0)[:, None], "b": np.ones((4, 2))}, np.array([0, 1, 2, 2]))
    dataset = build((13, 9, 7), test=(3, 2, 2), validation=validation)
    for index in range(5):
        each = applied(dataset, index=index)
        train, test = features(each)
        assert each.validation is None
        assert sorted([*train, *test]) == [*range(29), *range(1000, 1007), *range(2000, 2004)]
        assert len(test) == 7  # whatever 7 of 40 samples are of 17, 12 and 11
        assert np.bincount(each.test.labels).tolist() == [3, 2, 2]


def test_folds_test_every_sample_once_and_each_repeat_has_other_folds():
    dataset = build()
    tests = [features(applied(dataset, kind="kfold", folds=5, index=index))[1] for index in range(10)]
    for repeat in (tests[:5], tests[5:]):
        assert sorted(number for test in repeat for number in test) == EVERY
    assert not {tuple(test) for test in tests[:5]} & {tuple(test) for test in tests[5:]}
    for test in tests:
        assert len(test) == 15


def test_everything_is_for_training_where_nothing_is_tested():
    everything = applied(build(), kind="everything")
    assert features(everything) == (EVERY, []) and everything.test is None


@pytest.mark.parametrize("kind", ["resplit", "kfold"])
@pytest.mark.parametrize("task", ["single_label", "regression"])
def test_groups_stay_on_one_side(kind, task):
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 30, size=60)
    labels = groups % 3 if task == "single_label" else draw.normal(size=60)
    table = {"a": np.arange(60.0)[:, None], "b": np.ones((60, 2))}
    test = ({"a": 1000 + np.arange(9.0)[:, None], "b": np.ones((9, 2))}, np.arange(9) % 3)
    dataset = arrays.from_arrays(table, labels, groups=groups, test=test, task=task)
    for index in range(6):
        each = applied(dataset, task, kind=kind, index=index, folds=3)
        assert not set(each.train.groups) & set(each.test.groups)
        # the samples without a group are groups of their own
        assert {g for g in [*each.train.groups, *each.test.groups] if g.startswith("test/")} == {
            f"test/test-{n}" for n in range(9)
        }
        assert 0.5 < len(each.test) / (69 * (9 / 69 if kind == "resplit" else 1 / 3)) < 1.6


def test_a_column_can_be_the_group():
    labels, site = np.arange(40) % 2, (np.arange(40) // 2 % 8).astype(float)
    site[5] = np.nan
    tables = {"a": np.arange(40.0)[:, None], "b": np.column_stack([np.ones(40), site])}
    dataset = arrays.from_arrays(tables, labels)
    for index in range(4):
        each = applied(dataset, kind="kfold", folds=4, index=index, groups="b.b_1")
        train, test = (
            set(split.inputs["b"][:, 1][~np.isnan(split.inputs["b"][:, 1])]) for split in (each.train, each.test)
        )
        assert train and test and not train & test
    with pytest.raises(InputError, match=r"data.resplit.groups: no numeric table of arrays has a column 'b_7'"):
        applied(dataset, groups="b_7")


def test_equal_ids_of_two_splits_are_told_apart_and_unlabelled_test_samples_are_left_out():
    dataset = build()
    same = Dataset(**{**vars(dataset), "test": dataset.train.take(range(5))})
    ids = applied(same, kind="everything").train.ids
    assert len(set(ids)) == 65 and ids[0] == "train/train-0" and ids[60] == "test/train-0"
    unlabelled = Dataset(**{**vars(dataset), "test": dataset.test.without_labels()})
    each = applied(unlabelled)
    assert len(each.test) == 12  # 1 / folds of the labelled ones
    assert sorted([*features(each)[0], *features(each)[1]]) == EVERY[:60]
    assert each.dropped == {"test samples without a label, in outer splits": 15}


@pytest.mark.parametrize(
    ("counts", "settings", "line"),
    [
        ((30, 3, 10), {"kind": "kfold", "folds": 9},
         "data.resplit.folds: 9 folds, but class 1 (1) has only 4 samples; at most 4 folds are possible"),
        ((30, 1, 10), {"kind": "resplit"}, "one to train on and one to test, but class 1 (1) has 1"),
    ],
)  # fmt: skip
def test_classes_that_are_too_small_are_refused(counts, settings, line):
    test = (1, int(settings["kind"] == "kfold"), 1)
    dataset = build(counts, test=test)
    with pytest.raises(InputError) as raised:
        applied(dataset, **settings)
    assert line in str(raised.value)


def test_more_folds_than_groups_and_a_data_set_without_labels():
    labels = np.arange(24) % 2
    grouped = arrays.from_arrays({"a": np.ones((24, 1)), "b": np.ones((24, 1))}, labels, groups=np.arange(24) // 6)
    with pytest.raises(InputError, match=r"8 folds, but class 0 .0. has only 4 groups; at most 4 folds are possible"):
        applied(grouped, kind="kfold", folds=8)
    bare = Dataset(**{**vars(grouped), "train": grouped.train.without_labels()})
    with pytest.raises(InputError, match="outer splits need labels"):
        applied(bare)


def test_bad_values_are_reported_together():
    with pytest.raises(InputError) as raised:
        api.validate(
            "digits",
            overrides={"data.resplit": {"kind": "kfoldy", "folds": 1, "index": -1}, "validation.kind": "given"},
        )
    text = str(raised.value)
    assert "must be one of resplit, kfold, everything" in text and "did you mean 'kfold'" in text
    assert "data.resplit.folds must be >= 2" in text and "data.resplit.index must be >= 0" in text
    assert "'given' is the data set's own validation split" in text


def test_a_config_without_an_outer_split_is_written_as_before_and_one_with_it_can_be_read_again():
    plain = run_config.load("digits")
    assert "resplit" not in plain.to_dict()["data"]
    divided = run_config.load("digits", overrides={"data.resplit": {"kind": "kfold", "index": 3}})
    assert run_config.load(divided.to_dict()).data.resplit == ResplitConfig(kind="kfold", index=3)


def test_a_checkpoint_is_evaluated_on_the_test_samples_of_its_own_outer_split(tmp_path, capsys):
    overrides = {"data.resplit": {"kind": "kfold", "index": 1}, "train.epochs": 2, "model.embedding_dim": 8}
    result = m3col.train("digits", overrides=overrides, runs=tmp_path, tracking_uri="none")
    assert cli.main(["evaluate", str(result.checkpoint), "--runs-dir", str(tmp_path)]) == 0
    assert f"{result.metrics['test/accuracy']:.4f}" in capsys.readouterr().out
    ours, evaluated = test_ledger.entries(tmp_path)
    resplit = result.config.data.resplit
    assert ours["digest"] == evaluated["digest"] == loading.load("digits", resplit=resplit).digests()["test"]
    assert ours["digest"] != loading.load("digits").digests()["test"]


def test_a_training_that_was_cut_off_goes_on_with_its_outer_split(tmp_path):
    overrides = {
        "data.resplit": {"kind": "kfold", "index": 2}, "train.epochs": 3, "model.embedding_dim": 8,
        "checkpoint.every_s": 0.0,
    }  # fmt: skip
    folders = []

    def cut(record, epochs, folder):
        folders.append(folder)
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m3col.train("digits", overrides=overrides, runs=tmp_path / "cut", tracking_uri="none", report=cut)
    resumed = m3col.train(runs=tmp_path / "cut", tracking_uri="none", resume=folders[0])
    whole = m3col.train("digits", overrides=overrides, runs=tmp_path / "whole", tracking_uri="none")
    assert resumed.metrics == whole.metrics and resumed.config.data.resplit.index == 2
