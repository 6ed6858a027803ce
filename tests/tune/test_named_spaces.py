"""`space: <method>` and `space: default`: shipped ranges, fitted to the base config, and what is refused."""

import pytest

from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.methods import registry
from tests.support.helpers import tiny_config
from tune.config import loading, named_spaces, search_space


def studies(**raw):
    return loading.load({"base": "handwritten", **raw})


def faults(overrides=None, **raw) -> list[str]:
    with pytest.raises(InputError) as caught:
        loading.load({"base": "handwritten", **raw}, overrides=overrides)
    return list(caught.value.faults)


def base_of(method: str, **overrides) -> RunConfig:
    spec = registry.find(method)
    most = 1 if spec.one_modality else spec.most_modalities or 3
    return tiny_config(method=method, data__modalities=["a", "b", "c"][:most], **overrides)


@pytest.mark.parametrize("name", named_spaces.names())
def test_a_shipped_space_is_of_a_method_and_has_no_faults(name):
    config = base_of(name)
    raw = named_spaces.fitted(named_spaces.of_method(name, name, where="x"), config)
    space, lines = search_space.parse(raw, config, where="x")
    assert lines == [] and len(space) >= 3 and "train.learning_rate" in space
    of_file = named_spaces.of_method(name, name, where="x")
    left_out = {path for path in of_file if path not in raw}
    assert all(search_space.default_value(config, path) in (None, 0) for path in left_out), left_out


def test_a_logarithmic_range_is_left_out_where_the_base_config_has_0():
    (study,) = studies(space="m3col", methods=["m3col"], overrides={"train.weight_decay": 0.0})
    assert "train.weight_decay" not in study.space and "objective.decision" in study.space


def test_every_method_with_keys_of_its_own_that_are_shipped_here_searches_one_of_them():
    for name in named_spaces.names():
        own = {key for key in registry.find(name).keys if key.startswith("objective.")}
        raw = named_spaces.of_method(name, name, where="x")
        assert not own - {"objective.evaluations"} or own & set(raw), name


def test_the_space_of_one_method():
    (study,) = studies(space="tmc", methods=["tmc"])
    assert study.run.method == "tmc"
    assert study.raw_space["objective.kl_share"] == {"low": 0.02, "high": 0.5, "log": True}
    assert loading.study_from_dict(study.to_dict()).space == study.space


def test_default_is_each_methods_own():
    found = studies(space="default", methods=["tmc", "concat", "single:pixels"])
    own = [{path for path in study.space if path.startswith("objective.")} for study in found]
    assert own == [
        {f"objective.{key}" for key in ("kl_share", "kl_weight", "evidence", "pseudo_view")},
        {"objective.unimodal_supervision"},
        set(),
    ]
    (study,) = studies(space="default")
    assert "objective.beta" in study.space and study.run.method == "m3col"


def test_a_range_is_widened_to_the_base_config_and_keys_without_a_number_are_left_out():
    raw = {
        "train.learning_rate": {"low": 1e-5, "high": 1e-4, "log": True},
        "train.encoder_learning_rate": {"low": 1e-5, "high": 1e-4, "log": True},
        "objective.width": [16, 32],
        "objective.no_such_key": [1],
    }
    assert named_spaces.fitted(raw, base_of("gmu")) == {
        "train.learning_rate": {"low": 1e-5, "high": 0.01, "log": True},
        "objective.width": [256, 16, 32],
        "objective.no_such_key": [1],
    }
    with_rate = base_of("gmu", train__encoder_learning_rate=5e-6)
    assert named_spaces.fitted(raw, with_rate)["train.encoder_learning_rate"]["low"] == 5e-6


def test_unknown_names_and_changed_ranges_are_refused():
    (line,) = faults(space="tcm", methods=["tmc"])
    assert "space 'tcm' is unknown; did you mean 'tmc'?" in line
    (line,) = faults({"space.train.epochs": {"low": 1, "high": 2}}, space="tmc", methods=["tmc"])
    assert line.startswith("overrides: space.train.epochs: the space is 'tmc', whose ranges are fixed")


def test_a_method_without_a_space_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(named_spaces, "names", lambda: ("concat", "tmc"))
    (line,) = faults(space="default", methods=["tmc", "mixup"])
    assert "space 'default': method 'mixup' has no ranges of its own; methods that have: concat, tmc" in line


def test_a_space_of_another_method_has_keys_that_are_refused():
    lines = faults(space="tmc")
    assert any("space.objective.kl_share: method 'm3col' ignores this key" in line for line in lines)
