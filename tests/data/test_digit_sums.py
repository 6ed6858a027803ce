"""Pairs of digits: labels by a plain loop over scikit-learn's images, and that no image is in two splits or groups."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from m3col.data import load, splits
from m3col.data.formats import digit_sums
from m3col.errors import InputError


@pytest.fixture(scope="module")
def dataset():
    return digit_sums.read()


@pytest.fixture(scope="module")
def parts(dataset):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


@pytest.fixture(scope="module")
def numbers():
    """From the values of an image to its number; no two images of scikit-learn are equal."""
    numbers = {tuple(image.ravel().tolist()): number for number, image in enumerate(load_digits().images)}
    assert len(numbers) == 1797
    return numbers


def pairs(part, numbers):
    """The numbers of the two images of each pair."""
    columns = (part.inputs["left"], part.inputs["right"])
    return [(numbers[tuple(a.tolist())], numbers[tuple(b.tolist())]) for a, b in zip(*columns, strict=True)]


def test_labels_are_the_last_digits_of_the_sums(parts, numbers):
    digits = load_digits().target
    for part in parts.values():
        for (a, b), label, name in zip(pairs(part, numbers), part.labels, part.ids, strict=True):
            assert str(digits[a] + digits[b])[-1] == str(label) == digit_sums.CLASSES[label]
            assert name == f"{a}+{b}"


def test_no_image_is_in_two_splits_or_in_two_groups(parts, numbers):
    home = {}
    for name, part in parts.items():
        for pair, group in zip(pairs(part, numbers), part.groups, strict=True):
            for image in pair:
                assert home.setdefault(image, (name, group)) == (name, group)
    assert len(home) == 1797
    assert Counter(name for name, _ in home.values()) == {"train": 600, "validation": 197, "test": 1000}
    assert Counter(name for name, _ in {*home.values()}) == {"train": 12, "validation": 4, "test": 200}


@pytest.mark.parametrize(("name", "times"), [("train", 4), ("validation", 4), ("test", 1)])
def test_each_image_is_equally_often_on_each_side_and_no_pair_occurs_twice(parts, numbers, name, times):
    drawn = pairs(parts[name], numbers)
    assert len({frozenset(pair) for pair in drawn}) == len(drawn)  # nor the other way round
    assert all(a != b for a, b in drawn)
    for side in (0, 1):
        assert {*Counter(pair[side] for pair in drawn).values()} == {times}


def test_pairs_depend_on_the_seed_alone(dataset):
    assert dataset.digests() == digit_sums.read(seed=0).digests() == load("digit_sums").digests()
    assert dataset.digests()["train"].startswith("b47dfdd3c210")
    other = digit_sums.read(seed=1).digests()
    assert all(other[name] != digest for name, digest in dataset.digests().items())
    with pytest.raises(InputError, match="seed must be an integer in 0"):
        digit_sums.read(seed=-1)


def test_the_test_split_can_be_left_out_and_modalities_chosen(dataset):
    one = load("digit_sums", splits=("train", "validation"), modalities=["right"])
    assert one.test is None and one.modalities == ("right",)
    assert np.array_equal(one.validation.inputs["right"], dataset.validation.inputs["right"])


def test_other_divisions_keep_the_images_of_a_pair_on_one_side(dataset, numbers):
    drawn = pairs(dataset.train, numbers)
    for fold in splits.draw(dataset, kind="kfold", folds=3, seed=0):
        sides = [{image for row in rows for image in drawn[row]} for rows in (fold.train, fold.validation)]
        assert sides[0] and sides[1] and not sides[0] & sides[1]
