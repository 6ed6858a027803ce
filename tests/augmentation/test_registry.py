"""The table of augmentations: what a config may compose, and every fault at once."""

from pathlib import Path

import pytest

from m3col.augmentation import registry
from m3col.config import loading, yaml_files
from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.inputs import images


@pytest.mark.parametrize(("kind", "name"), registry.TABLE)
def test_every_entry_has_defaults_and_a_function_unless_the_source_applies_it(kind, name):
    entry = registry.TABLE[kind, name]
    (chosen,) = registry.parse(name, kind=kind)
    assert chosen.settings == entry.settings() and entry.settings.__doc__
    assert callable(entry.apply) if entry.function else name in ("crop", "flip", "resized_crop")


@pytest.mark.parametrize(("kind", "name"), registry.PRESETS)
def test_every_preset_is_a_list_without_faults(kind, name):
    assert registry.faults(registry.PRESETS[kind, name], kind=kind, where="x") == []
    assert [chosen.name for chosen in registry.parse(name, kind=kind)] == [
        next(iter(item)) if isinstance(item, dict) else item for item in registry.PRESETS[kind, name]
    ]


def test_the_published_recipes():
    crop, jitter, grey, blur, flip = registry.parse("simclr", kind="image")
    assert crop.settings.area == [0.08, 1.0] and crop.settings.aspect == [3 / 4, 4 / 3]
    assert jitter.settings.model_dump() == {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}
    assert (grey.settings.p, blur.settings.p, flip.settings.p) == (0.2, 0.5, 0.5) and blur.settings.radius == [0.1, 2.0]
    (weak,) = registry.parse("weak", kind="image")
    assert weak.settings.area == [0.5, 1.0]
    noise, drop = registry.parse(["noise", "drop"], kind="numeric")
    assert (noise.settings.sd, noise.settings.p, drop.settings.share, drop.settings.p) == (0.1, 0.5, [0.0, 0.8], 0.5)


def test_settings_by_modality_survive_a_config():
    augment = {"image_1": "simclr", "image_2": [{"blur": {"p": 0.1}}, "flip"]}
    config = loading.load({"data": {"name": "trifeatures", "image": {"augment": augment}}})
    assert isinstance(loading.load(config.to_dict()), RunConfig)
    assert registry.of_modality(config.data.image.augment, "image_1") == "simclr"
    blur, flip = registry.parse(registry.of_modality(config.data.image.augment, "image_2"), kind="image")
    assert blur.settings.p == 0.1 and flip.settings.p == 0.5
    assert registry.parse(registry.of_modality(config.data.image.augment, "other"), kind="image") == ()
    one = loading.load(config, overrides={"data.image.augment.image_1": "none"})
    assert one.data.image.augment == {**augment, "image_1": "none"}


def test_every_fault_is_reported_at_once():
    raw = {
        "data": {
            "image": {"augment": [
                "noise", {"blur": {"radius": [2, 1], "p": 1.5}}, "flip", "flip", {"crop": {"size": 3}}, "resized_crop",
                "simclr",
            ]},
            "numeric": {"augment": {"a": "simclr", "b": [{"drop": {"share": [0.5]}}, 3], "c": 7}},
            "text": {"augment": "maks"},
        }
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        loading.load(raw, where="x.yaml")
    lines = error.value.faults
    expected = [
        "data.image.augment[0]: augmentation 'noise' is an augmentation of numeric tables and sequences, not of images",
        "data.image.augment[1].blur.radius must be [smallest, largest], but got [2, 1]; did you mean [1, 2]?",
        "data.image.augment[1].blur.p must be <= 1, but got 1.5; the nearest valid value is 1",
        "data.image.augment names 'flip' twice; leave one out",
        "unknown key 'data.image.augment[4].crop.size'",
        "data.image.augment must have one of 'crop' and 'resized_crop', which both choose the place, but has both",
        "data.image.augment[6] 'simclr' is a preset, which cannot be an entry of a list; write it alone",
        "data.numeric.augment.a: augmentation 'simclr' is an augmentation of images, not of numeric tables",
        "data.numeric.augment.b[0].drop.share",
        "data.numeric.augment.b[1] must be a name or one `name: {setting: value}`, but got 3",
        "data.numeric.augment.c must be the name of an augmentation or a list of them, but got 7",
        "data.text.augment: augmentation 'maks' is unknown; did you mean 'mask'?",
    ]
    for text in expected:
        assert sum(line.startswith(f"x.yaml: {text}") for line in lines) == 1, (text, lines)
    assert len(lines) == len(expected)


def test_the_page_of_the_documentation_has_every_entry_with_its_defaults():
    page = (Path(__file__).resolve().parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    loading.load(yaml_files.parse(page.partition("```yaml\n")[2].partition("```")[0]))
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    for kind, name in (*registry.TABLE, *registry.PRESETS):
        assert f"`{name}`" in rows, (kind, name)
    for entry in registry.TABLE.values():
        row = rows["`drop`"] if entry.name == "consecutive_drop" else rows[f"`{entry.name}`"]
        for key, value in entry.settings().model_dump().items():
            if entry.name == "one_of":
                continue  # augmentations, below the table
            shown = [round(part, 3) for part in value] if isinstance(value, list) else value
            assert f"`{key}: {str(shown).lower()}`" in row, (entry.name, key)


def test_the_smallest_area_can_be_set_by_a_number_of_its_own():
    """So that a search can vary it."""
    made = registry.parse(registry.with_crop_area("simclr", 0.3), kind="image")
    assert [chosen.name for chosen in made] == registry.PRESETS["image", "simclr"]
    plain = registry.parse("simclr", kind="image")
    assert made[0].settings.area == [0.3, 1.0] and made[0].settings.aspect == plain[0].settings.aspect
    assert [chosen.settings for chosen in made[1:]] == [chosen.settings for chosen in plain[1:]]
    assert registry.with_crop_area("flip", 0.3) == "flip"
    config = loading.load({"data": {"image": {"augment": {"a": "weak", "b": "none"}, "crop_area": 0.7}}})
    transforms = {name: images.fit(config, name, None, ()) for name in ("a", "b")}
    assert registry.parse(transforms["a"].augment, kind="image")[0].settings.area == [0.7, 1.0]
    assert transforms["b"].augment == "none"


@pytest.mark.parametrize(("image", "line"), [
    ({"crop_area": 0.3}, "needs 'resized_crop' in data.image.augment, which is 'none'; did you mean 'simclr'?"),
    ({"crop_area": 0.3, "augment": ["flip"]}, "needs 'resized_crop' in data.image.augment, which is ['flip']"),
    ({"crop_area": 0, "augment": "weak"}, "must be > 0, but got 0"),
    ({"crop_area": 0.6, "augment": [{"resized_crop": {"area": [0.1, 0.5]}}]},
     "must be <= 0.5, the largest area of data.image.augment, but got 0.6; the nearest valid value is 0.5"),
])  # fmt: skip
def test_a_smallest_area_that_fits_no_augmentation_is_refused(image, line):
    with pytest.raises(InputError) as error:
        loading.load({"data": {"image": image}})
    (only,) = error.value.faults
    assert only.startswith(f"config: data.image.crop_area {line}")


def test_an_augmentation_that_is_null_is_one_fault_of_its_own():
    faults = loading.parse({"data": {"image": {"augment": None, "crop_area": 0.3}}, "train": {"epochs": 0}}).faults
    assert [fault.split()[1] for fault in faults] == ["data.image.augment", "train.epochs"]


@pytest.mark.parametrize("spec", [None, {}, {"a": {}}, "", [[]], [{"flip": None}], [{"flip": {"p": "x"}}], [{}]])
def test_odd_values_are_refused_or_mean_none(spec):
    lines = registry.faults(spec, kind="image", where="data.image.augment")
    assert lines if spec != {} else not lines
    with pytest.raises(InputError):
        registry.parse(spec, kind="image")


def test_every_fault_inside_of_one_of_is_reported():
    spec = [
        {
            "one_of": {
                "of": ["none", {"noise": {"sd": -1}}, "nois", "input_mixup", {"one_of": {"of": ["none", "noise"]}}]
            }
        }
    ]
    lines = registry.faults(spec, kind="numeric", where="x")
    assert [line.split(":")[0].split()[0] for line in lines] == [
        "x[0].of[1].noise.sd", "x[0].of[2]", "x[0].of[3]", "x[0].of[4]",
    ]  # fmt: skip
    assert registry.faults([{"one_of": {"of": ["none"]}}], kind="numeric", where="x") != []
    assert registry.faults([{"one_of": {"of": ["none", "noise"]}}], kind="image", where="x") != []


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (["noise", {"one_of": {"of": ["none", {"noise": {"sd": 0.3}}]}}], "noise"),
        (["one_of", "permute"], "permute"),
        (["drop", {"one_of": {}}], "drop"),
        (["noise", {"one_of": {"of": ["none", "drop"]}}], None),
        (["noise", {"one_of": {"of": 3}}], None),
    ],
)
def test_an_augmentation_beside_one_of_that_chooses_it_is_refused(spec, name):
    """Both would have the same random numbers, so that their noise would be added twice."""
    lines = [line for line in registry.faults(spec, kind="sequence", where="x") if "inside" in line]
    expected = [] if name is None else [
        f"x names {name!r} twice, once inside 'one_of', with the same random numbers; leave one out"
    ]  # fmt: skip
    assert lines == expected


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ([{"one_of": {"of": ["none"]}}], "x[0].one_of.of must have at least 2 entries, but got ['none']"),
        ([{"drop": {"share": [0.5]}}], "x[0].drop.share must have at least 2 entries, but got [0.5]"),
        (
            [{"drop": {"share": [0.1, 0.2, 0.3]}}],
            "x[0].drop.share must have at most 2 entries, but got [0.1, 0.2, 0.3]",
        ),
    ],
)
def test_lists_of_the_wrong_length_in_our_own_words(spec, line):
    assert registry.faults(spec, kind="numeric", where="x") == [line]
