"""Trifeatures: masks against plain loops over the published rules, the split, the pairs, their labels, the images."""

import math

import numpy as np
import pytest
from safetensors import SafetensorError

from m3col import randomness
from m3col.config import loading as configs
from m3col.config.modality_sections import TrifeaturesConfig
from m3col.data import load
from m3col.data.formats import trifeatures
from m3col.data.formats.csv_columns import Layout
from m3col.data.images import decoding
from m3col.data.trifeatures import images, masks, pairs
from m3col.errors import InputError

SEED = 42


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))


def layout(**settings):
    return Layout(trifeatures=TrifeaturesConfig(**{"size": 32, "train_pairs": 40, "test_pairs": 30} | settings))


# Masks, pixel by pixel


def in_shape(name, i, j):
    """Whether row i, column j of a canvas of 128 x 128 is in the shape."""
    c = 64
    if name == "square":
        return True
    if name == "circle":
        return (i - 63.5) ** 2 + (j - 63.5) ** 2 < 64**2
    if name == "triangle":
        return abs(j - c) - i // 2 < 1
    if name == "plus":
        return 43 <= i <= 85 or 43 <= j <= 85
    if name == "tee":
        return 43 <= j <= 85 or i < 42
    if name == "rhombus":
        return 0 < j - c + i // 2 < 64
    if name == "pentagon":
        inset = (i - 51) // 3.1
        return abs(j - c) - 1.25 * i < 1 if i < 51 else inset < j < 128 - inset
    if name == "star":
        a, b = 42.24 - 0.43 * (i - 70), 79.36 - 1.05 * (i - 70)
        legs = i >= 70 and (a < j < b or a < 128 - j < b)
        inset = 2.4 * (i - 51)
        return (i < 51 and abs(j - c) - i // 4 < 1) or (51 <= i < 76 and inset < j < 128 - inset) or legs
    if name == "fivesquare":
        row, column = (0 if k < 42 else 1 if k < 85 else 2 for k in (i, j))
        return (row, column) in ((0, 0), (0, 2), (1, 1), (2, 0), (2, 2))
    return i // 3.1 < j < 128 - i // 3.1


def in_texture(name, y, x):
    """Whether row y, column x is in a texture that repeats itself."""
    r, q = y % 10, x % 10
    if name == "solid":
        return True
    if name == "stripes":
        return r < 3
    if name == "grid":
        return r < 3 or q < 3
    if name == "hexgrid":
        return (x + math.floor(1.73 * y)) % 10 < 2 or (x - math.floor(1.73 * y)) % 10 < 2 or r < 2
    if name == "dots":
        return (r - 5) ** 2 + (q - 5) ** 2 < 16
    if name == "triangles":
        return r // 2 - abs(q - 5) > 0
    if name == "zigzags":
        q = 9 - q if y // 10 % 2 else q
        return r // 2 < q < 5 + r // 2
    h = 1.5
    if y // 10 % 2 == 0:
        return abs(q - 5) < h or abs(r - 5) < h
    return q < h or 10 - q < h or (abs(r - 5) < h and abs(q - 5) > h)


@pytest.mark.parametrize("name", masks.SHAPES)
def test_a_shape_is_that_of_its_rule(name):
    expected = [[in_shape(name, i, j) for j in range(128)] for i in range(128)]
    assert np.array_equal(masks.shape_mask(name), expected)
    assert np.array_equal(masks.turned_shape(name, 0), np.array(expected, float))


@pytest.mark.parametrize(("name", "degrees"), [("star", 31), ("tee", -45), ("circle", 44)])
def test_a_turned_shape_is_interpolated_between_four_pixels(name, degrees):
    turned = masks.turned_shape(name, degrees)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    side = math.ceil(127 * (abs(cosine) + abs(sine))) + 1
    assert turned.shape == (side, side) and side <= 181
    for row in range(0, side, 7):
        for column in range(0, side, 5):
            i, j = row - (side - 1) / 2, column - (side - 1) / 2
            y, x = 63.5 + cosine * i - sine * j, 63.5 + sine * i + cosine * j
            expected = 0.0
            for near_y in (math.floor(y), math.floor(y) + 1):
                for near_x in (math.floor(x), math.floor(x) + 1):
                    inside = 0 <= near_y < 128 and 0 <= near_x < 128 and in_shape(name, near_y, near_x)
                    expected += inside * (1 - abs(y - near_y)) * (1 - abs(x - near_x))
            assert turned[row, column] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", [name for name in masks.TEXTURES if name not in ("noise", "rain")])
def test_a_texture_is_that_of_its_rule_on_a_turned_canvas(name):
    size, degrees, offsets = 24, 17, (3, 8)
    made = masks.texture_mask(name, size, degrees=degrees, offsets=offsets, draw=np.random.default_rng(0))
    for row in range(size):
        for column in range(size):
            y, x = turned_back(row + size // 2, column + size // 2, 2 * size, degrees)
            assert made[row, column] == in_texture(name, y + offsets[0], x + offsets[1])
    y, x = np.mgrid[:60, :60]
    assert np.array_equal(
        masks.periodic_texture(name, y, x), [[in_texture(name, i, j) for j in range(60)] for i in range(60)]
    )


def turned_back(row, column, canvas, degrees):
    """The pixel of the canvas that is seen at a pixel of the turned canvas: the nearest one."""
    centre, angle = (canvas - 1) / 2, math.radians(degrees)
    i, j = row - centre, column - centre
    y = centre + math.cos(angle) * i - math.sin(angle) * j
    x = centre + math.sin(angle) * i + math.cos(angle) * j
    return math.floor(y + 0.5), math.floor(x + 0.5)


def test_rain_falls_seven_pixels_and_noise_covers_half():
    size, degrees = 20, -33
    made = masks.texture_mask("rain", size, degrees=degrees, offsets=(0, 0), draw=np.random.default_rng(3))
    starts = np.random.default_rng(3).random((40, 40)) < 0.05
    for row in range(size):
        for column in range(size):
            y, x = turned_back(row + 10, column + 10, 40, degrees)
            assert made[row, column] == any(starts[y - k, x] for k in range(7) if y >= k)
    noise = masks.texture_mask("noise", 200, degrees=0, offsets=(0, 0), draw=np.random.default_rng(4))
    assert 0.49 < noise.mean() < 0.51


# Images


@pytest.mark.parametrize(("size", "canvas"), [(224, 224), (24, 96)])
def test_an_image_is_the_colour_where_shape_and_texture_meet(size, canvas):
    combination, copy = 719, 2  # a star with stripes, white
    step = combination * 3 + copy
    numbers = randomness.generator(seed=SEED, fold=0, epoch=0, step=step, purpose="trifeatures/image")
    angle, texture_angle = numbers.integers(-45, 45, 2).tolist()
    offsets = tuple(numbers.integers(0, 10, 2).tolist())
    shape = masks.turned_shape("star", angle)
    top, left = (int(value * (225 - len(shape))) for value in numbers.random(2))
    whole = np.zeros((224, 224))
    whole[top : top + len(shape), left : left + len(shape)] = shape
    texture = masks.texture_mask("stripes", canvas, degrees=texture_angle, offsets=offsets, draw=None)
    covered = area_mean(whole, canvas) * texture
    visible = area_mean(covered, size)
    made = images.draw(combination, copy, size=size, seed=SEED)
    for row in range(0, size, 3):
        for column in range(0, size, 3):
            value = visible[row, column] * 1.0 + (1 - visible[row, column]) * 0.5
            assert made[row, column].tolist() == [math.floor(round(255 * value, 6))] * 3


def area_mean(values, size):
    """The mean over the area of each of size x size pixels, by sums of parts of old pixels."""
    before = len(values)
    if before == size:
        return values
    weights = np.zeros((size, before))
    for new in range(size):
        for old in range(before):
            low, high = max(new * before / size, old), min((new + 1) * before / size, old + 1)
            weights[new, old] = max(0.0, high - low) * size / before
    return weights @ values @ weights.T


def test_colours_are_those_of_the_list_and_the_ground_is_grey():
    expected = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0.4, 1), (0, 1, 1), (0.3, 0, 0.5), (0.1, 0.4, 0.5),
                (1, 0.6, 0), (1, 1, 1)]  # fmt: skip
    for colour, values in enumerate(expected):
        made = images.draw(100 + colour, 0, size=96, seed=SEED)  # a square without texture
        counts = {}
        for pixel in made.reshape(-1, 3).tolist():
            counts[tuple(pixel)] = counts.get(tuple(pixel), 0) + 1
        most = sorted(counts, key=counts.get)[-2:]
        assert set(most) == {(127, 127, 127), tuple(math.floor(255 * value) for value in values)}


def test_an_image_depends_on_its_key_alone():
    """On neither what was drawn before nor the cache; and a new version draws what this one draws."""
    wanted = [(0, 0), (555, 1), (355, 0)]
    first = images.contents(wanted, size=32, seed=SEED)
    again = images.contents(wanted, size=32, seed=SEED)
    others = images.contents(wanted[::-1], size=32, seed=SEED)
    assert first == again == others[::-1]
    assert first != images.contents(wanted, size=32, seed=43)
    assert decoding.decode(first[1], 32).tolist() == images.draw(555, 1, size=32, seed=SEED).tolist()
    sums = [int(images.draw(*at, size=32, seed=SEED).astype(int).sum()) for at in wanted]
    assert sums == [369_024, 400_553, 406_931]


def test_a_damaged_or_unwritable_cache_changes_nothing(tmp_path, monkeypatch):
    first = images.contents([(7, 0)], size=32, seed=SEED)
    (stored,) = (tmp_path / "cache").glob("trifeatures-*.safetensors")
    stored.write_bytes(stored.read_bytes()[:100])
    assert images.contents([(7, 0)], size=32, seed=SEED) == first

    def full(*given):
        raise SafetensorError("I/O error: no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(images, "save_file", full)
        stored.unlink()
        assert images.contents([(7, 0)], size=32, seed=SEED) == first and not stored.exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("M3COL_CACHE", str(blocked / "cache"))
    assert images.contents([(7, 0)], size=32, seed=SEED) == first


# Splits, pairs, labels


def test_no_combination_is_in_both_splits():
    train, test = (pairs.images_of(split, seed=SEED) for split in ("train", "test"))
    assert len(train.combination) == 2400 and len(test.combination) == 200
    assert len(set(test.combination.tolist())) == 200 and set(test.copy.tolist()) == {0}
    assert set(train.combination.tolist()) | set(test.combination.tolist()) == set(range(1000))
    assert not set(train.combination.tolist()) & set(test.combination.tolist())
    assert sorted(zip(*train, strict=True)) == list(zip(*train, strict=True))


def test_candidates_are_all_ordered_pairs_of_one_shape():
    test = pairs.images_of("test", seed=SEED)
    expected = [
        (i, j) for i in range(200) for j in range(200) if test.combination[i] // 100 == test.combination[j] // 100
    ]
    made = pairs.candidates(test)
    assert list(map(tuple, made.tolist())) == expected and len(expected) == 4238
    m = pairs.colour_of_texture(SEED).tolist()
    obeys = [test.combination[j] % 10 == m[test.combination[i] // 10 % 10] for i, j in expected]
    assert pairs.obeys_rule(test, made, seed=SEED).tolist() == obeys
    # The published code, whose 200 combinations are others, has 4,094 of which 404 obey; and 576,846 and 57,636.
    train = pairs.images_of("train", seed=SEED)
    every = pairs.candidates(train)
    assert len(every) == sum(np.bincount(train.shape) ** 2) == 578_142
    assert pairs.obeys_rule(train, every, seed=SEED).sum() == 57_789


def test_the_map_is_a_bijection_with_a_key_of_its_own():
    assert pairs.colour_of_texture(SEED).tolist() == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]  # the published one
    images.draw(0, 0, size=32, seed=SEED)
    pairs.draw_pairs("train", 10, seed=SEED)
    assert pairs.colour_of_texture(SEED).tolist() == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]
    assert sorted(pairs.colour_of_texture(7).tolist()) == list(range(10))


def test_pairs_are_drawn_without_replacement_and_alike_on_every_call():
    drawn = pairs.draw_pairs("train", 10_000, seed=SEED)
    assert len(np.unique(drawn, axis=0)) == 10_000
    assert np.array_equal(drawn[:100], pairs.draw_pairs("train", 100, seed=SEED))
    assert len(pairs.draw_pairs("test", 10_000, seed=SEED)) == 4238
    train = pairs.images_of("train", seed=SEED)
    assert 0.09 < pairs.labels(train, drawn, "synergy", seed=SEED).mean() < 0.11
    biased = pairs.draw_pairs("train", 10_000, biased=True, seed=SEED)
    assert len(np.unique(biased, axis=0)) == 10_000
    assert pairs.labels(train, biased, "synergy", seed=SEED).all()


@pytest.mark.parametrize("target", pairs.TARGETS)
def test_labels_are_those_of_their_definition(target):
    train = pairs.images_of("train", seed=SEED)
    drawn = pairs.draw_pairs("train", 300, seed=SEED)
    m = pairs.colour_of_texture(SEED).tolist()
    for (i, j), label in zip(drawn.tolist(), pairs.labels(train, drawn, target, seed=SEED).tolist(), strict=True):
        (shape_i, texture_i, _), (shape_j, texture_j, colour_j) = (
            images.Features.of(int(train.combination[at])) for at in (i, j)
        )
        assert shape_i == shape_j
        expected = {"share": shape_i, "unique1": texture_i, "unique2": texture_j, "synergy": colour_j == m[texture_i]}
        assert label == expected[target]


# Data sets


def test_a_data_set_of_pairs_and_its_pairs_for_pretraining():
    settings = layout(target="synergy").trifeatures
    dataset, pretrain = trifeatures.with_pretraining(settings)
    loaded = load("trifeatures", layout=layout(target="synergy"))
    assert loaded.digests() == dataset.digests() | {"pretrain": pretrain.digest()} and dataset.classes == (
        "other",
        "match",
    )
    assert set(loaded.train.labels.tolist()) == {0, 1} and pretrain.labels is None and len(pretrain) == 40
    assert load("trifeatures", layout=layout(target="share")).pretrain is None  # the training fold has the same pairs
    # In pretraining the rule holds for every pair: read texture and colour off the ids of the images.
    m = pairs.colour_of_texture(SEED).tolist()
    for split, always in ((pretrain, True), (loaded.train, False)):
        numbers = [tuple(int(part) // 3 for part in name.split("-")) for name in split.ids.tolist()]
        assert all((second % 10 == m[first // 10 % 10]) for first, second in numbers) == always
    assert dataset.train.inputs["image_1"].source is pretrain.inputs["image_2"].source
    for modality, part in (("image_1", 0), ("image_2", 1)):
        number = int(loaded.test.ids[5].split("-")[part])
        content = loaded.test.inputs[modality].values[5]
        assert np.array_equal(decoding.decode(content, 32), images.draw(*divmod(number, 3), size=32, seed=SEED))


def test_pretraining_is_unbiased_for_the_other_targets_unless_it_is_asked_for():
    dataset, pretrain = trifeatures.with_pretraining(layout().trifeatures)
    assert pretrain.ids.tolist() == dataset.train.ids.tolist()
    other, biased = trifeatures.with_pretraining(layout(biased=True).trifeatures)
    assert biased.ids.tolist() != other.train.ids.tolist() and other.train.ids.tolist() == dataset.train.ids.tolist()


def test_captions_name_shape_colour_and_texture(monkeypatch):
    monkeypatch.setattr(images, "contents", lambda numbers, **settings: [b"not looked at"] * len(numbers))
    dataset = load("trifeatures_captions", layout=layout(target="colour"), splits=("train",))
    assert dataset.test is None and len(dataset.train) == 2400 and dataset.classes[7] == "ocean"
    for row in (0, 1000, 2399):
        combination = int(dataset.train.ids[row]) // 3
        shape, texture, colour = images.Features.of(combination).names
        text = dataset.train.inputs["text"].values[row]
        assert all(word in text.split() for word in (shape, texture, colour))
        assert dataset.classes[dataset.train.labels[row]] == colour
    assert trifeatures.caption(8) == "an orange triangle with a solid texture"


def test_faults_of_the_section_are_reported_at_once():
    with pytest.raises(InputError) as error:
        configs.load(
            {"data": {"name": "trifeatures", "trifeatures": {"target": "shape", "size": 8, "train_pairs": 0},
                      "image": {"size": 48, "short_side": 40}}}
        )  # fmt: skip
    text = str(error.value)
    assert "data.trifeatures.target 'shape' is not a target of trifeatures; did you mean 'share'?" in text
    assert "data.trifeatures.size must be >= 16, but got 8" in text and "data.trifeatures.train_pairs" in text
    assert "data.image.short_side must be >= data.image.size (48), but got 40; the nearest valid value is 48" in text
    with pytest.raises(InputError, match="'share' is not a target of trifeatures_captions"):
        load("trifeatures_captions", layout=layout(target="share"))
