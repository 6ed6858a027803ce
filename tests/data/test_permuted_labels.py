"""Permuted labels: the same samples and class sizes, no relation to the inputs, groups respected, reproducible."""

from dataclasses import replace

import numpy as np
import pytest

from m3col.checks.resolve import resolve
from m3col.data.loading import load
from m3col.data.permuted_labels import permuted
from tests.support.helpers import tiny_config, tiny_data


def test_each_split_keeps_its_samples_and_class_sizes():
    data = load("digits")
    made = permuted(data, 0)
    for name, split in data.splits.items():
        after = made.splits[name]
        assert np.array_equal(after.ids, split.ids) and np.array_equal(after.inputs["pixels"], split.inputs["pixels"])
        assert np.array_equal(np.bincount(after.labels), np.bincount(split.labels))
        assert 0.02 < (after.labels == split.labels).mean() < 0.25
    again, other = permuted(data, 0), permuted(data, 1)
    assert np.array_equal(made.train.labels, again.train.labels)
    assert not np.array_equal(made.train.labels, other.train.labels)


def test_a_split_does_not_depend_on_which_others_were_read():
    alone = load("digits", splits=("train",), permutation=3)
    assert np.array_equal(alone.train.labels, permuted(load("digits"), 3).train.labels)


@pytest.mark.parametrize("constant", [True, False])
def test_groups_are_respected(constant):
    data = tiny_data(samples=40)
    groups = np.repeat([f"g{k}" for k in range(10)], 4)
    labels = np.repeat(np.arange(10) % 2, 4) if constant else np.tile([0, 1, 1, 0], 10)
    data = replace(data, train=replace(data.train, groups=groups, labels=labels))
    made = permuted(data, 0).train.labels
    by_group = [made[groups == name] for name in np.unique(groups)]
    if constant:  # whole groups swap their labels
        assert all(len({*part}) == 1 for part in by_group) and not np.array_equal(made, labels)
    else:  # labels stay inside of their group
        assert all(part.sum() == 2 for part in by_group) and not np.array_equal(made, labels)


def test_a_few_other_groups_do_not_keep_the_labels_in_place():
    """60 groups of one sample, two of four with one label, one of five with two labels, one of three."""
    groups = np.array([f"once{k}" for k in range(60)] + ["b"] * 4 + ["c"] * 4 + ["mixed"] * 5 + ["three"] * 3)
    labels = np.concatenate([np.arange(60) % 2, [0] * 4, [1] * 4, [0, 1, 0, 0, 0], [1] * 3])
    data = tiny_data()
    split = data.train.take(np.arange(len(labels)) % len(data.train))
    data = replace(data, train=replace(split, groups=groups, labels=labels))
    changed = []
    for seed in range(20):
        made = permuted(data, seed).train.labels
        assert np.array_equal(np.bincount(made), np.bincount(labels))
        assert all(len({*made[groups == name]}) == 1 for name in ("b", "c")) and made[groups == "mixed"].sum() == 1
        changed.append((made[:60] != labels[:60]).mean())
    assert np.mean(changed) == pytest.approx(0.5, abs=0.06)


def test_a_config_with_the_key_gives_such_data_and_others_are_as_before():
    data = tiny_data()
    assert "permuted_labels" not in tiny_config().to_dict()["data"]
    config = tiny_config(data__permuted_labels=5)
    assert config.to_dict()["data"]["permuted_labels"] == 5
    resolved = resolve(config, data=data)
    assert np.array_equal(resolved.dataset.train.labels, permuted(data, 5).train.labels)
