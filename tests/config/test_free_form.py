"""Mappings whose keys anyone may choose: unknown keys and null are refused as everywhere else, with the cause."""

import pytest

from m3col.checks import encoders
from m3col.config import loading, yaml_files
from m3col.config.loading import load, with_overrides
from m3col.config.modality_sections import ImageModelConfig
from m3col.errors import InputError
from tests.models.builders import image_config
from tests.models.test_hub import found
from tune.config import loading as search_config

# What people write without a blank after the colon, read as YAML.
WITHOUT_BLANK = [
    ("model.image.options={embed_dim:96}", "model.image.options: key 'embed_dim:96'", "{embed_dim: 96}"),
    ("model.image.options={drop_rate:0.1}", "model.image.options: key 'drop_rate:0.1'", "{drop_rate: 0.1}"),
    ("model.text.options={hidden_size:32}", "model.text.options: key 'hidden_size:32'", "{hidden_size: 32}"),
    ("model.text.options={a: {b:1}}", "model.text.options.a: key 'b:1'", "{b: 1}"),
    ("data.preprocess=[{anova:50}]", "data.preprocess[0]: key 'anova:50'", "{anova: 50}"),
    ("data.preprocess={rna: [{anova:50}]}", "data.preprocess.rna[0]: key 'anova:50'", "{anova: 50}"),
    ("mix.level={rna:input}", "mix.level: key 'rna:input'", "{rna: input}"),
    ("train.encoder_learning_rate={rna.seq:1e-3}", "train.encoder_learning_rate: key 'rna.seq:1e-3'", "rna.seq: 1e-3"),
    ("train={epochs:3}", "train: key 'epochs:3'", "{epochs: 3}"),
    ("train.schedule={kind:step, gamma: 0.5}", "train.schedule: key 'kind:step'", "{kind: step}"),
    ("mix.level={rna=input}", "mix.level: key 'rna=input'", "{rna: input}"),
]


@pytest.mark.parametrize(("word", "begin", "remedy"), WITHOUT_BLANK)
def test_a_key_without_a_blank_is_one_line_wherever_it_stands(word, begin, remedy, tmp_path):
    key, value = loading.parse_override(word)
    path = tmp_path / "x.yaml"
    path.write_text(
        f"{key}: {word.partition('=')[2]}\n" if "." not in key else yaml_files.dump(loading.join({}, {key: value}))
    )
    for where, call in (
        ("overrides", lambda: loading.parse({}, overrides={key: value}).faults),
        (str(path), lambda: loading.parse(path).faults),
        ("overrides", lambda: search_config.parse({"search": {"trials": 1}}, overrides={key: value})[1]),
        ("config", lambda: search_config.parse({"search": {"trials": 1}, "overrides": {key: value}})[1]),
    ):
        lines = [line for line in call() if "has no value" in line]
        assert len(lines) == 1 and begin in lines[0] and remedy in lines[0] and lines[0].startswith(where), call()
        assert len(call()) == 1, call()


@pytest.mark.parametrize(
    ("raw", "begin"),
    [
        ({"space": {"objective.beta:3": None}}, "config: space: key 'objective.beta:3'"),
        ({"final": {"rows": {"plain": {"train.epochs:3": None}}}}, "config: final.rows.plain: key 'train.epochs:3'"),
        ({"final": {"published": {"accuracy": {"paper:0.9": None}}}}, "config: final.published.accuracy: key"),
        ({"search": {"trials:3": None}}, "config: search: key 'trials:3'"),
        ({"trials:3": None}, "config: key 'trials:3'"),
    ],
)
def test_keys_without_a_blank_in_the_config_of_a_search(raw, begin):
    faults = search_config.parse({"space": {"objective.beta": {"low": 0.01, "high": 1.0}}, **raw})[1]
    assert sum("put a blank after the colon" in line for line in faults) == 1
    assert any(line.startswith(begin) for line in faults), faults


@pytest.mark.parametrize("text", ["model: {image: {options: depth:3}}", "train: epochs:3", "model:\n  text:\n    a:1"])
def test_text_where_a_mapping_belongs_has_the_same_remedy(text):
    (line,) = loading.parse(yaml_files.parse(text)).faults
    assert line.endswith("; put a blank after the colon")


def test_a_file_without_any_blank_has_the_same_remedy(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("train.epochs:3\n")
    with pytest.raises(
        InputError, match="must be a mapping of keys to values, but holds str; put a blank after each colon"
    ):
        loading.load(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.image.options", {"depth": None}, "model.image.options.depth must have a value, but got None"),
        ("model.text.options", {"hidden_size": None}, "model.text.options.hidden_size must have a value"),
        ("model.text.options", {"a": {"b": None}}, "model.text.options.a must be text, a finite number"),
        ("model.image.options", {"a": float("nan")}, "model.image.options.a must be text, a finite number"),
        ("model.image.options", {"a": {1, 2}}, "model.image.options.a must be text"),
        ("model.image.options", {"a": b"x"}, "model.image.options.a must be text"),
        ("model.image.options", None, "model.image.options must be a mapping, but got None"),
        ("data.preprocess", {"rna": None}, "data.preprocess.rna: must be a list of steps"),
        ("data.preprocess", {"rna": [None]}, "data.preprocess.rna[0]: a step is a name"),
        ("data.preprocess", {"rna": [{"variance": None}]}, "variance must be a finite number >= 0, but got None"),
        ("data.preprocess", [{"variance": 10**400}], "variance must be a finite number >= 0"),
        ("mix.level", {"rna": None}, "mix.level.rna must be one of input, embedding, but got None"),
        ("train.encoder_learning_rate", {"rna": None}, "train.encoder_learning_rate.rna must be a number"),
        ("objective.class_weight", [1.0, None], "objective.class_weight[1] must be a number, but got None"),
    ],
)
def test_null_and_what_no_file_holds_is_refused(key, value, words):
    (line,) = loading.parse({}, overrides={key: value}).faults
    assert line.startswith("overrides: ") and words in line, line


def test_a_mapping_for_each_modality_is_no_way_around_the_keys_of_a_method():
    (line,) = loading.parse({"method": "concat", "mix": {"level": {"a": "input"}}}).faults
    assert "mix.level is not a key of method 'concat'" in line


def test_what_older_versions_stored_still_loads():
    """They took a level for each modality with every method, and options without a value."""
    stored = with_overrides(load({}), {"method": "concat"}).to_dict()
    stored = loading.join(stored, {"mix.level": {"a": "input"}, "model.image.options": {"depth:3": None, "depth": 2}})
    run = loading.load_stored(stored, where="checkpoint")
    assert run.method == "concat" and run.model.image.options == {"depth": 2}
    with pytest.raises(InputError, match=r"objective\.bteta"):
        loading.load_stored({"objective": {"bteta": 1}}, where="checkpoint")


UNKNOWN = [
    ("vit_tiny_patch16_224", {"embed_dmi": 96}, "did you mean 'embed_dim'?"),
    ("resnet18", {"stem_widht": 8}, "did you mean 'stem_width'?"),
    ("regnety_002", {"grup_size": 8}, "did you mean 'group_size'?"),
    ("mobilenetv3_small_050", {"drop_rat": 0.1}, "did you mean 'drop_rate'?"),
    ("deit_tiny_distilled_patch16_224", {"dpth": 2}, "did you mean 'depth'?"),
    ("convnext_atto", {"patch size": 2}, "did you mean 'patch_size'?"),
]


@pytest.mark.parametrize(("name", "options", "hint"), UNKNOWN)
def test_options_that_a_model_of_timm_does_not_take(name, options, hint):
    ((path, line),) = found(image=image_config(name=name, options=options), size=64, kinds=("image",))
    assert line.startswith(f"model.image.options.{next(iter(options))} is no option of {name!r}") and hint in line
    assert path.startswith("model.image.options.")


@pytest.mark.parametrize("option", ["out_indices", "pretrained_strict", "kwargs_filter", "feature_cls", "num_classes"])
def test_options_that_timm_would_swallow(option):
    image = ImageModelConfig(name="vit_tiny_patch16_224", pretrained=False, options={option: 1, "depth": 1})
    ((_, line),) = found(image=image, size=224, kinds=("image",))
    assert line == f"model.image.options.{option} cannot be set: it follows from the rest"


def test_all_unknown_options_are_told_at_once_and_good_ones_pass():
    options = {"dpth": 2, "embed_dmi": 8, "out_indices": 1, "mlp_ratio": 2.0}
    lines = [line for _, line in found(image=image_config(options=options), size=32, kinds=("image",))]
    assert len(lines) == 3
    assert found(image=image_config(), size=32, kinds=("image",)) == []
    assert encoders.image.option_faults(image_config(options={}), 32) == []
