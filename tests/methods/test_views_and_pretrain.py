"""What is checked before a method without labels is trained: its augmentations, and samples to train on."""

from dataclasses import replace

import numpy as np
import pytest

from m3col.checks.resolve import check_against_data, resolve
from m3col.config import loading
from m3col.data.columns import MediaColumn
from tests.support.helpers import tiny_data

DATA = tiny_data(samples=30, classes=3, modalities=2)


def config(**settings):
    return loading.load({"data": {"name": "arrays"}, "validation": {"kind": "none"}}, overrides=settings)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"method": "comm"}, True),
        ({"method": "cross_self"}, True),
        ({"method": "factorcl"}, True),
        ({"method": "comm", "data.numeric.augment": "noise"}, False),
        ({"method": "comm", "data.numeric.augment": {DATA.modalities[0]: "noise"}}, False),
        ({"method": "cross"}, False),
        ({"method": "supcon"}, False),
        ({"method": "m3col"}, False),
    ],
)
def test_views_without_any_augmentation_are_a_warning(settings, warned):
    lines = [line for line in resolve(config(**settings), data=DATA).dataset.warnings if "augmentations" in line]
    assert bool(lines) == warned
    if warned:
        assert lines[0].startswith(f"method {settings['method']!r}") and "set data.numeric.augment" in lines[0]


def test_the_augmentation_of_a_modality_that_the_run_does_not_use_does_not_count():
    """Of three modalities, of which the run has two."""
    data, augment = tiny_data(samples=30, classes=3, modalities=3), {"view_2": "noise"}
    for modalities, warned in ((["view_0", "view_1"], True), (["view_0", "view_2"], False)):
        run = config(method="comm", **{"data.modalities": modalities, "data.numeric.augment": augment})
        lines = [line for line in resolve(run, data=data).dataset.warnings if "compares augmentations" in line]
        assert bool(lines) == warned


def faults(pretrain) -> list[str]:
    resolved, lines = check_against_data(config(method="comm"), data=replace(DATA, pretrain=pretrain))
    assert (resolved is None) == bool(lines)
    return lines


def test_samples_to_train_on_are_like_those_of_the_training_split():
    split = DATA.train.without_labels()
    first, second = DATA.modalities
    assert faults(split) == []
    assert faults(split.select([first])) == [
        f"{DATA.name}, pretrain: must have the modalities {first}, {second}, but has {first}"
    ]
    wide = replace(split, inputs={**split.inputs, first: np.ones((len(split), 99))})
    width = DATA.train.inputs[first].shape[1]
    expected = f"{DATA.name}, pretrain, modality {first!r}: must have {width} columns as in training, but has 99"
    assert faults(wide) == [expected]
    assert faults(wide.take([0])) == [f"{DATA.name}, pretrain: must have at least 2 samples, but has 1", expected]
    holes = np.where(np.arange(len(split))[:, None] == 3, np.nan, split.inputs[second])
    (line,) = faults(replace(split, inputs={**split.inputs, second: holes}))
    assert f"modality {second!r}, pretrain: row 4" in line and "needs `impute`" in line
    broken = {**split.inputs, second: np.where(np.arange(len(split))[:, None] == 3, np.inf, split.inputs[second])}
    lines = faults(replace(split, inputs=broken))
    assert lines and all(f"modality {second!r}, pretrain" in line and "inf" in line for line in lines)


def test_samples_to_train_on_may_have_their_modalities_in_another_order():
    split = DATA.train.without_labels()
    turned = split.select([*DATA.modalities][::-1])
    assert faults(turned) == [] and [*turned.inputs] != [*DATA.modalities]
    dataset = replace(DATA, pretrain=turned)
    assert [*dataset.pretrain.inputs] == [*DATA.modalities] and dataset.pretrain.digest() == split.digest()
    first, second = DATA.modalities
    narrow = config(method="comm", **{"data.modalities": [first, second]})
    (line,) = check_against_data(narrow, data=replace(DATA, pretrain=split.select([first])))[1]
    assert line.endswith(f"pretrain: must have the modalities {first}, {second}, but has {first}")


def test_another_kind_of_samples_to_train_on_is_a_fault():
    texts = {name: MediaColumn.of("text", ["a"] * len(DATA.train)) for name in DATA.modalities}
    lines = faults(replace(DATA.train.without_labels(), inputs=texts))
    assert len(lines) == 2 and all("must be numeric, but is text" in line for line in lines)
