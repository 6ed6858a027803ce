"""The search space: what may be searched, what holds the default, and a line for all that does not."""

import itertools

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from m3col.config import loading
from m3col.config.keys import field_of
from m3col.methods import registry
from tests.support.helpers import tiny_config
from tune.config import search_space

RUN = tiny_config()
BETA = "objective.beta"


def faults(raw, run=RUN, **named) -> list[str]:
    found, lines = search_space.parse(raw, run, where="x.yaml", **named)
    assert not (set(found) & {line.split()[1].removeprefix("space.").rstrip(":") for line in lines})
    return lines


def test_ranges_choices_and_lists_become_distributions():
    found, lines = search_space.parse(
        {
            BETA: {"low": 0.01, "high": 1, "log": True},
            "objective.switch_point": {"low": 0, "high": 0.99, "step": 0.33},
            "model.embedding_dim": {"low": 4, "high": 64, "step": 4},
            "train.epochs": {"low": 2, "high": 600, "log": True},
            "mix.level": ["input", "embedding"],
            "objective.unimodal_supervision": {"choices": [True, False]},
        },
        RUN,
        where="x",
    )
    assert lines == []
    assert found == {
        BETA: FloatDistribution(0.01, 1.0, log=True),
        "objective.switch_point": FloatDistribution(0.0, 0.99, step=0.33),
        "model.embedding_dim": IntDistribution(4, 64, step=4),
        "train.epochs": IntDistribution(2, 600, log=True),
        "mix.level": CategoricalDistribution(["input", "embedding"]),
        "objective.unimodal_supervision": CategoricalDistribution([True, False]),
    }
    assert all(type(found[key].low) is int for key in ("model.embedding_dim", "train.epochs"))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "spec", "words"),
    [
        ("objective.betaa", {"low": 0, "high": 1}, ["no such config key", "'objective.beta'"]),
        ("beta", {"low": 0, "high": 1}, ["no such config key", "'objective.beta'"]),
        ("objective", {"low": 0, "high": 1}, ["is a section", "objective.beta"]),
        ("data.name", ["digits"], ["cannot be searched", "must be the same"]),
        ("train.seed", [0, 1], ["cannot be searched"]),
        ("validation.folds", [2, 3], ["cannot be searched"]),
        (BETA, 3, ["{low, high}", "3"]),
        (BETA, None, ["{low, high}"]),
        (BETA, {"low": 0.01, "hihg": 1}, ["unknown key 'hihg'", "'high'"]),
        (BETA, {"low": 0.01}, [f"{BETA}.high must be a finite number", "None"]),
        (BETA, {"low": NAN, "high": 1}, [f"{BETA}.low must be a finite number", "nan"]),
        (BETA, {"low": 0, "high": INF}, [f"{BETA}.high must be a finite number", "inf"]),
        (BETA, {"low": "0.1", "high": 1}, [f"{BETA}.low must be a finite number", "'0.1'"]),
        (BETA, {"low": True, "high": 1}, [f"{BETA}.low must be a finite number", "True"]),
        (BETA, {"low": 0.01, "high": 1, "log": "yes"}, [f"{BETA}.log must be true or false", "'yes'"]),
        (BETA, {"low": 0, "high": 1, "step": 0}, [f"{BETA}.step must be a finite number > 0", "0"]),
        (BETA, {"low": 0, "high": 1, "step": NAN}, [f"{BETA}.step", "nan"]),
        (BETA, {"low": 0.1, "high": 1, "step": 0.1, "log": True}, ["step and log"]),
        (BETA, {"low": 1, "high": 0.1}, ["low must be < high", "1 and 0.1"]),
        (BETA, {"low": 0, "high": 1, "log": True}, ["log range", "low > 0", "0"]),
        (BETA, {"low": -1, "high": 1}, [f"space.{BETA}: must be >= 0, but got -1", "nearest", "0"]),
        ("objective.temperature", {"low": 0, "high": 1}, ["must be > 0, but got 0"]),
        ("objective.switch_point", {"low": 0, "high": 1.5}, ["must be <= 1, but got 1.5"]),
        ("model.embedding_dim", {"low": 2.5, "high": 64}, ["whole numbers", "2.5", "nearest", "2"]),
        ("model.embedding_dim", {"low": 2, "high": 64, "step": 0.5}, ["whole numbers", "0.5"]),
        (BETA, {"low": 0.5, "high": 1}, ["default 0.1 is outside 0.5..1", "the range 0.1..1 would contain it"]),
        (BETA, {"low": 0.001, "high": 0.05}, ["default 0.1 is outside", "the range 0.001..0.1 would contain it"]),
        (BETA, {"low": 0, "high": 1, "step": 0.25}, ["default 0.1 is not one of 0, 0.25", "nearest", "0"]),
        (BETA, [0.2, 0.3], ["default 0.1 is not among the choices [0.2, 0.3]"]),
        (BETA, [], ["choices must not be empty"]),
        (BETA, [0.1, [0.2]], ["single values"]),
        (BETA, [0.1, 0.2, 0.1], ["0.1 stands twice"]),
        (BETA, [0.1, "high"], ["must be a number, but got 'high'"]),
        ("mix.level", ["input", "inptu"], ["'inptu'", "did you mean 'input'"]),
        ("train.batch_size", {"low": 2, "high": 8}, ["base config has None", "set it there"]),
        ("model.encoder", {"low": 2, "high": 8}, ["must be one of mlp"]),
    ],
)
def test_a_line_with_path_rule_value_and_nearest(path, spec, words):
    lines = faults({path: spec})
    assert lines and all(line.startswith(f"x.yaml: space.{path}") for line in lines)
    assert all(word in "\n".join(lines) for word in words), lines
    assert len(lines) == (2 if path == "model.encoder" else 1), lines


def test_all_faults_of_all_paths_at_once():
    raw = {BETA: {"low": 2, "high": 1}, "objective.alpha": {"low": NAN, "high": INF}, "x": 1, "mix.level": ["z"]}
    assert len(faults(raw)) == 5
    good, _ = search_space.parse({**raw, "train.learning_rate": {"low": 1e-4, "high": 1}}, RUN, where="x")
    assert set(good) == {"train.learning_rate"}


@pytest.mark.parametrize("raw", [{}, None, 3, [BETA], "x"])
def test_a_space_that_is_empty_or_none_is_a_fault(raw):
    (line,) = faults(raw)
    assert "at least one config path" in line and repr(raw) in line


@pytest.mark.parametrize("method", [name for name in registry.names() if registry.ignored_keys(name)])
def test_keys_that_the_method_ignores_are_faults(method):
    run = tiny_config(method=method, **({"data__modalities": ["view_0"]} if registry.find(method).one_modality else {}))
    for path in registry.ignored_keys(method):
        (line,) = faults({path: {"low": 0.1, "high": 0.2}}, run)
        assert f"space.{path}: method {method!r} ignores this key" in line
        assert path not in search_space.searchable(method)


def test_the_default_of_a_faulty_key_is_not_compared():
    assert faults({BETA: {"low": 0.5, "high": 1}}, faulty={BETA}) == []
    assert len(faults({BETA: {"low": 0.5, "high": 1}}, faulty={"objective.alpha"})) == 1


def test_softclip_temperature_follows_the_temperature_by_default():
    path = "objective.softclip_temperature"
    assert search_space.default_value(tiny_config(objective__temperature=0.3), path) == 0.3
    assert search_space.default_value(tiny_config(objective__softclip_temperature=0.4), path) == 0.4
    assert faults({path: {"low": 0.05, "high": 0.2}}) == []


def test_what_can_be_searched_exists_and_is_no_section():
    for method in registry.names():
        for path in search_space.searchable(method):
            model = loading.model_of(method)
            assert field_of(model, path) is not None and not path.startswith("valid")
            assert not path.startswith("data") or path == "data.image.crop_area"  # of training samples alone


def test_defaults_are_the_base_configs_point():
    found, _ = search_space.parse({BETA: [0.1, 0.2], "train.epochs": {"low": 1, "high": 9}}, RUN, where="x")
    assert search_space.defaults(found, RUN) == {BETA: 0.1, "train.epochs": 6}


def test_a_grid_is_the_product_of_its_axes():
    raw = {
        BETA: {"low": 0.01, "high": 1, "log": True},
        "objective.switch_point": {"low": 0, "high": 0.99, "step": 0.33},
        "train.epochs": {"low": 5, "high": 7},
        "model.embedding_dim": {"low": 8, "high": 100},
        "mix.level": ["input", "embedding"],
    }
    found, lines = search_space.parse(raw, RUN, where="x")
    assert lines == []
    axes = [
        [0.01, pytest.approx(0.1), 1.0],
        [0.0, 0.33, 0.66, 0.99],
        [5, 6, 7],
        [8, 54, 100],
        ["input", "embedding"],
    ]
    expected = [dict(zip(raw, values, strict=True)) for values in itertools.product(*axes)]
    assert search_space.grid(found, points=3) == expected
