"""The config of a search: what it makes, and all faults of file, base, overrides, space and rows at once."""

import pytest

from m3col.config import loading as run_config
from m3col.config import yaml_files
from m3col.errors import InputError
from m3col.methods import registry
from tune.config import loading

SPACE = {"objective.beta": {"low": 0.01, "high": 1.0}}


def faults(raw, **overrides) -> list[str]:
    with pytest.raises(InputError) as caught:
        loading.load(raw, overrides={key.replace("__", "."): value for key, value in overrides.items()})
    return list(caught.value.faults)


@pytest.mark.parametrize("path", sorted((run_config.folder() / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_search_loads_and_survives_study_json(path):
    studies = loading.load(path)
    names = [study.name for study in studies]
    assert names == [path.stem] or len({*names}) == len(names) > 1
    for study in studies:
        assert study.run.validation.kind != "none"
        again = loading.study_from_dict(yaml_files.parse(yaml_files.dump(study.to_dict())))
        assert again.to_dict() == study.to_dict() and again.space == study.space
    assert loading.load(path.stem) == studies


def test_one_study_per_data_set_and_method_with_the_same_terms():
    raw = {"datasets": ["digits", "rosmap"], "methods": ["m3col", "concat", "single:pixels"], "search": {"seed": 5},
           "space": {**SPACE, "train.learning_rate": {"low": 1e-4, "high": 0.1}}}  # fmt: skip
    studies = loading.load(raw)
    names = [f"{data}-{method}" for data in ("digits", "rosmap") for method in ("m3col", "concat", "single-pixels")]
    assert [study.name for study in studies] == names
    assert [list(study.space) for study in studies[:3]] == [
        ["objective.beta", "train.learning_rate"], ["train.learning_rate"], ["train.learning_rate"],
    ]  # fmt: skip
    assert studies[2].run.data.modalities == ["pixels"] and studies[3].run.data.name == "rosmap"
    assert len({(study.run.validation, study.settings.search.seed, study.run.train.seed) for study in studies}) == 1


def test_overrides_find_their_side_by_their_first_word():
    (study,) = loading.load(
        {"space": SPACE, "overrides": {"train.epochs": 3, "model": {"dropout": 0.2}}},
        overrides={
            "trials": 7, "search.seed": 3, "objective.alpha": 0.3, "train.epochs": 4, "validation.folds": 3,
            "resources.threads": 2, "resources.cpus_per_worker": 2, "overrides.train.seed": 9, "metric": "val/accuracy",
        },
    )  # fmt: skip
    settings = study.settings
    assert (settings.search.trials, settings.search.seed, settings.resources.cpus_per_worker) == (7, 3, 2)
    run = study.run
    assert (run.objective.alpha, run.train.epochs, run.train.seed, run.model.dropout) == (0.3, 4, 9, 0.2)
    assert (run.validation.folds, run.resources.threads, run.metric) == (3, 2, "val/accuracy")


def test_a_published_setting_without_validation_gets_one():
    (study,) = loading.load({"base": "digits", "space": SPACE})
    assert run_config.load("digits").validation.kind == "none" and study.run.validation.kind is None


def test_a_study_may_be_its_default_alone():
    (study,) = loading.load({"search": {"trials": 1}})
    assert study.space == {}


def test_rows_are_whole_configs():
    (study,) = loading.load({"space": SPACE, "final": {"rows": {"a": {"method": "concat"}, "b": {"train.seed": 4}}}})
    assert study.rows["a"].method == "concat" and study.rows["b"].train.seed == 4
    assert study.point({"objective.beta": 0.5}, seed=3, split_seed=8).validation.seed == 8


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"space": 3}, "space must be a mapping, but got 3"),
        ({"space": ["objective.beta"]}, "space must be a mapping"),
        ({"space": {}}, "space must name at least one config path"),
        ({}, "space must name at least one config path"),
        ({"space": {3: [1]}}, "space.3: a key must be text"),
        ({"space": SPACE, "final": 3}, "final must be a section"),
        ({"space": SPACE, "final": {"rows": ["a"]}}, "final.rows must be a mapping, but got ['a']"),
        ({"space": SPACE, "final": {"rows": {"a": "text"}}}, "final.rows.a must be a mapping, but got 'text'"),
        ({"space": SPACE, "final": {"rows": {"a": {"x": 1}}}}, "final.rows.a: unknown key 'x'"),
        ({"space": SPACE, "final": {"rows": {"winner": {}}}}, "final.rows.winner: this name is reserved"),
        ({"space": SPACE, "final": {"rows": {"a b": {}, "a_b": {}}}}, "needs the same folder"),
        (
            {"space": SPACE, "final": {"published": {"auroc": {"default": "x"}}}},
            "final.published.auroc.default must",
        ),
        ({"space": SPACE, "final": {"remarks": "text"}}, "final.remarks must be a list, but got 'text'"),
        ({"space": SPACE, "final": {"remarks": [3]}}, "final.remarks[0] must be text, but got 3"),
        ({"space": SPACE, "final": {"remarks": [""]}}, "final.remarks[0] must not be empty, but got ''"),
        (
            {"space": SPACE, "final": {"draws": 99}},
            "final.draws must be >= 100, but got 99; the nearest",
        ),
        ({"space": SPACE, "overrides": "text"}, "overrides must be a mapping, but got 'text'"),
        ({"space": SPACE, "overrides": {"train": 3}}, "config, overrides: train must be a section"),
        ({"space": SPACE, "validation": 3}, "validation must be a section"),
        ({"space": SPACE, "validation": {"kind": "none"}}, "validation.kind must be kfold, holdout or given"),
        ({"space": SPACE, "validation": {"folds": 1}}, "config: validation.folds must be >= 2"),
        ({"space": SPACE, "search": 3}, "search must be a section"),
        ({"space": SPACE, "search": {"time_budget_s": float("inf")}}, "search.time_budget_s must be a finite number"),
        ({"space": SPACE, "search": {"sampler": "botorch"}}, "search.sampler must be one of tpe, random, gp, grid"),
        ({"space": SPACE, "datasets": "digits"}, "datasets must be a list"),
        ({"space": SPACE, "datasets": ["digits", 3]}, "datasets[1] must be text, but got 3"),
        ({"space": SPACE, "datasets": ["digit"]}, "config: datasets 'digit': no such file"),
        ({"space": SPACE, "methods": ["m3col", 3]}, "methods[1] must be text, but got 3"),
        ({"space": SPACE, "methods": ["m3coll"]}, "config: methods: 'm3coll' is unknown; did you mean 'm3col'?"),
        ({"space": SPACE, "methods": ["m3col", "single"]}, "config, methods: method 'single' needs data.modalities"),
        ({"space": SPACE, "methods": ["concat", "mixup"]}, "space.objective.beta: none of the methods (concat, mixup)"),
        ({"space": SPACE, "base": 3}, "base must be text, but got 3"),
        (
            {"space": SPACE, "base": "digit"},
            "config: base 'digit': no such file, and no shipped train",
        ),
        ({"space": SPACE, "base": "no.yaml"}, "config: base 'no.yaml': no such file"),
        ({"space": SPACE, "overrides": {"method": "concat"}}, "space.objective.beta: method 'concat' ignores this key"),
        ({"space": SPACE, "train": {"epochs": 3}}, "unknown key 'train': keys of the run stand below 'overrides'"),
        ({"space": SPACE, "serch": {}}, "unknown key 'serch'; did you mean 'search'?"),
    ],
)
def test_each_fault_is_one_line(raw, words):
    found = faults(raw)
    assert len(found) == 1 and words in found[0], found


def test_faults_name_the_file_or_the_argument_that_holds_them(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("train: {epochs: 0}\n")
    path = tmp_path / "search.yaml"
    path.write_text(
        f"base: {base}\noverrides: {{objective.alpha: -1}}\nvalidation: {{seed: -1}}\nsearch: {{trials: 0}}\n"
        "space: {objective.betaa: [1]}\nfinal: {rows: {a: {method: x}}}\n"
    )
    assert sorted(faults(path, objective__temprature=1, final__seeds=0)) == sorted([
        f"{base}: train.epochs must be >= 1, but got 0; the nearest valid value is 1",
        f"{path}, overrides: objective.alpha must be > 0, but got -1",
        f"{path}: validation.seed must be >= 0, but got -1; the nearest valid value is 0",
        f"{path}: search.trials must be >= 1, but got 0; the nearest valid value is 1",
        f"{path}: space.objective.betaa: no such config key; did you mean 'objective.beta'?",
        f"{path}: final.rows.a: method 'x' is unknown; choose from {', '.join(sorted(registry.names()))}",
        "overrides: unknown key 'objective.temprature'; did you mean 'objective.temperature'?",
        "overrides: final.seeds must be >= 1, but got 0; the nearest valid value is 1",
    ])  # fmt: skip


def test_the_same_fault_of_several_studies_is_told_once():
    raw = {"datasets": ["digits", "rosmap"], "space": {"objective.betaa": [1]}, "overrides": {"train.epochs": 0}}
    assert len(faults(raw)) == 2


def test_a_good_override_beside_a_bad_one_counts_as_default():
    raw = {"overrides": {"objective.beta": 5, "train.epochs": 0}, "space": {"objective.beta": {"low": 4, "high": 6}}}
    assert faults(raw) == ["config, overrides: train.epochs must be >= 1, but got 0; the nearest valid value is 1"]
    raw["overrides"] = {"objective.beta": -1}
    assert faults(raw) == ["config, overrides: objective.beta must be >= 0, but got -1; the nearest valid value is 0"]


STORED = loading.load({"space": SPACE, "search": {"trials": 5}})[0].to_dict()


def test_a_stored_study_takes_settings_and_nothing_else():
    found = loading.stored(STORED, {"trials": 9, "search.concurrency": 2, "data.dir": "/x", "tracking.uri": "none"})
    assert (found.settings.search.trials, found.run.data.dir, found.settings.tracking.uri) == (9, "/x", "none")
    with pytest.raises(InputError) as caught:
        loading.stored(STORED, {"objective.beta": 1, "space.x": 1, "search.trialss": 1})
    assert len(caught.value.faults) == 3 and "keeps its config" in caught.value.faults[0]


@pytest.mark.parametrize("key", ["run", "space", "rows", "search", "final", "name"])
def test_a_damaged_study_is_refused_in_one_line(key):
    for damaged in ({k: v for k, v in STORED.items() if k != key}, {**STORED, key: 3}):
        if damaged.get(key) == 3 and key == "name":
            continue
        with pytest.raises(InputError) as caught:
            loading.study_from_dict(damaged)
        assert all(line.startswith("study.json") and "\n" not in line for line in caught.value.faults)
