"""Thousands of random configs: each loads and survives its own YAML, or every fault is one line that can be printed.

Each is a shipped config, or nothing, with a few places changed into something that a person, a script or a broken file
might have left there. The draws are seeded: a failure repeats, and its message holds the whole config.
"""

import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from m3col.checks.resolve import check_against_data
from m3col.config import keys as config_keys
from m3col.config import loading, yaml_files
from m3col.config.schema import RunConfig
from m3col.data.arrays import from_arrays
from m3col.errors import InputError
from m3col.methods import registry
from tune.config import loading as search_config
from tune.config.loading import study_from_dict
from tune.config.schema import SearchConfig

RUNS, SEARCHES, EXAMINED = 3500, 1500, 300
MORE = pytest.mark.dear("more draws of the same kinds; two batches of each are drawn for every change")
ODD_TEXTS = (
    "", " ", ".", "..", "a.b", "rna.seq", "keys", "training", "fused", "winner", "x" * 300, "a\nb", "a\x00b", "\ud800",
    "\u202e", "训练", "CpG (450k)", "[key]", "dict[str,int]", "str", "-1", "1e400", "nan", "null", "~", "{a:1}",
    "depth:3", "a=b", "%s", "{0}", "'", '"', "#", "?", "*", "&x", "!!python/object:os.system", "true", "0x1F", "1_000",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, -1, 2, 3, 7, 0.5, 1.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"), 10**400, -(2**63),
    2**31, True, False,
)  # fmt: skip


def anything(draw: random.Random, depth: int = 0) -> Any:
    """A value of any type, nested at most three deep."""
    kind = draw.randrange(10 if depth < 3 else 7)
    if kind < 3:
        return draw.choice(ODD_NUMBERS)
    if kind < 5:
        return draw.choice(ODD_TEXTS)
    if kind == 5:
        return None
    if kind == 6:
        return draw.choice([[], {}, (1, 2), {1, 2}, b"bytes", object, 1j])
    if kind == 7:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {any_key(draw): anything(draw, depth + 1) for _ in range(draw.randrange(4))}


def any_key(draw: random.Random) -> Any:
    if draw.random() < 0.1:
        return draw.choice([1, None, 1.5, True, ("a", "b")])
    if draw.random() < 0.5:
        return draw.choice(ODD_TEXTS)
    path = draw.choice(known_keys())
    return path if draw.random() < 0.3 else path.rpartition(".")[2]


@cache
def known_keys() -> list[str]:
    return [*config_keys.keys(RunConfig), *config_keys.keys(SearchConfig)]


def plausible(draw: random.Random, path: str) -> Any:
    """A value that fits a key more often than not, so that some configs get as far as the rules across keys."""
    by_modality = {
        "data.preprocess": ["minmax", {"anova": 5}, {"variance": 0}, "impute"],
        "mix.level": "embedding",
        "train.encoder_learning_rate": 1e-4,
    }
    if path in by_modality:
        return {draw.choice(["a", "b", "rna.seq", "keys", "CpG (450k)", ""]): by_modality[path] for _ in range(2)}
    values: dict[str, Any] = {
        "method": draw.choice([*registry.names(), "single:rna.seq", "m3coll"]),
        "data.modalities": draw.choice([["a"], ["a", "b"], [1, 2], ["rna.seq"], None, [0], []]),
        "model.image.options": draw.choice([{"depth": 2}, {"depth:2": None}, {"depth": None}, {"a.b": 1}]),
        "objective.class_weight": draw.choice(["balanced", [0, 0], [1.0, 2.0], [None]]),
        "final.rows": {draw.choice(ODD_TEXTS): {"train.epochs": 3}, draw.choice(ODD_TEXTS): {"mix": {"level": "x"}}},
        "final.published": {"accuracy": {draw.choice(ODD_TEXTS): 0.9}, "acuracy": {"a": 1.0}},
        "space": {draw.choice(known_keys()): draw.choice([[0.1, 0.2], {"low": 0.1, "high": 1}, None, 3])},
        "overrides": {draw.choice(known_keys()): anything(draw)},
        "methods": draw.choice([[], ["m3col", "mixup"], ["single:a", "single:a"], ["nope"], [["a"]]]),
        "datasets": draw.choice([[], ["digits"], ["digits", "omics"], ["none.yaml"], [3]]),
        "base": draw.choice(["digits", "omics", "emoji", "no", "a\nb"]),
    }
    return values[path] if path in values else draw.choice([1, 2, 0.5, "none", True, "minmax", None])


def changed(draw: random.Random, raw: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """`raw` with up to six places replaced, added or torn out."""
    found = dict(raw)
    for _ in range(draw.randrange(7)):
        path = draw.choice(keys)
        what = draw.random()
        if what < 0.45:
            found = config_keys.with_value(found, path, plausible(draw, path))
        elif what < 0.75:
            found = config_keys.with_value(found, path, anything(draw))
        elif what < 0.85:
            found = config_keys.without(found, {path})
        elif what < 0.95:
            found = config_keys.with_value(found, f"{path}.{draw.choice(ODD_TEXTS)}", anything(draw))
        else:
            found[any_key(draw)] = anything(draw)
    return found


@cache
def shipped(kind: str) -> list[dict[str, Any]]:
    return [{}, *(yaml_files.read(path) for path in sorted((loading.folder() / kind).glob("*.yaml")))]


def some_overrides(draw: random.Random, keys: list[str]) -> dict[str, Any]:
    """Words of a command line, as `config.parse_override` reads them, or what Python hands over."""
    found: dict[str, Any] = {}
    for _ in range(draw.randrange(3)):
        path = draw.choice(keys)
        found[path] = plausible(draw, path) if draw.random() < 0.7 else anything(draw)
    if draw.random() < 0.2:
        found[f"mix.level.{draw.choice(ODD_TEXTS)}"] = "input"
    return found


def check_lines(faults: Any, given: object) -> None:
    for line in faults:
        assert isinstance(line, str) and line.strip(), (faults, given)
        assert line.isprintable(), (line, given)


def batches(count: int, size: int) -> list[Any]:
    """The seeds in batches, those after the second for `make test-all`."""
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    return [*ranges[:2], *(pytest.param(seeds, marks=MORE) for seeds in ranges[2:])]


@pytest.mark.parametrize("seeds", batches(RUNS, 700), ids=str)
def test_random_run_configs(seeds):
    good = 0
    for seed in seeds:
        draw = random.Random(seed)
        keys = config_keys.keys(RunConfig)
        raw, overrides = changed(draw, draw.choice(shipped("train")), keys), some_overrides(draw, keys)
        parsed = loading.parse(raw, overrides=overrides)
        check_lines(parsed.faults, (raw, overrides))
        # What is left to look for faults elsewhere is a config of its own.
        assert isinstance(parsed.config, RunConfig)
        if parsed.faults:
            with pytest.raises(InputError):
                loading.load(raw, overrides=overrides)
            continue
        good += 1
        run = loading.load(raw, overrides=overrides)
        again = loading.load(yaml_files.parse(run.to_yaml()))
        assert again == run and loading.digest(again.to_dict()) == loading.digest(run.to_dict()), (raw, overrides)
    assert 0.02 * len(seeds) < good < 0.9 * len(seeds)  # else it is a test of one kind only


@pytest.mark.parametrize("seeds", batches(SEARCHES, 300), ids=str)
def test_random_search_configs(seeds):
    good = 0
    for seed in seeds:
        draw = random.Random(seed)
        keys = config_keys.keys(SearchConfig)
        raw = changed(draw, draw.choice(shipped("search")), keys)
        overrides = some_overrides(draw, known_keys())
        try:
            partials, faults = search_config.parse(raw, overrides=overrides)
        except InputError as error:
            check_lines(error.faults, (raw, overrides))
            continue
        check_lines(faults, (raw, overrides))
        if faults:
            continue
        good += 1
        for partial in partials:
            stored = json.loads(json.dumps(partial.study.to_dict()))
            again = study_from_dict(stored)
            assert loading.digest(again.to_dict()) == loading.digest(partial.study.to_dict()), (raw, overrides)
    assert 0.02 * len(seeds) < good < 0.9 * len(seeds)


NAMES: list[Callable[[random.Random], str]] = [
    lambda draw: draw.choice(ODD_TEXTS),
    lambda draw: draw.choice(["a", "b", "rna", "mir", "rna.seq", "CpG (450k)"]),
]


def some_data(draw: random.Random) -> Any:
    """A small data set in memory under odd names."""
    rows = draw.choice([12, 24])
    labels = np.arange(rows) % 2
    table = np.random.default_rng(draw.randrange(100)).normal(size=(rows, 3)) + labels[:, None]
    names = [draw.choice(NAMES)(draw) for _ in range(2)]
    return from_arrays({name: table for name in names}, labels, classes=[draw.choice(NAMES)(draw) for _ in range(2)])


@pytest.mark.parametrize("seeds", batches(EXAMINED, 100), ids=str)
def test_random_configs_against_a_data_set(seeds):
    good = 0
    for seed in seeds:
        draw = random.Random(seed)
        keys = [key for key in config_keys.keys(RunConfig) if not key.startswith(("model.image", "model.text"))]
        raw = changed(draw, {"data": {"name": "arrays"}}, keys) if draw.random() < 0.6 else {}
        parsed = loading.parse(raw)
        try:
            data = some_data(draw)
        except InputError as error:
            check_lines(error.faults, raw)
            continue
        prepared, faults = check_against_data(parsed.config, data=data, where=parsed.place, faulty=parsed.faulty)
        check_lines(InputError(faults).faults, raw)
        if prepared is not None:
            good += 1
            assert loading.load(yaml_files.parse(prepared.config.to_yaml())) == prepared.config, raw
    assert good > 0.05 * len(seeds)
