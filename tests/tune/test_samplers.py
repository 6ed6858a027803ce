"""Samplers that learn once per generation: CMA-ES without a stored optimizer, and the rules of their configs."""

import itertools
import math
from typing import get_args

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from m3col.errors import InputError
from tests.support.driving import small
from tune import checks
from tune.config import sampler_rules
from tune.config.schema import SearchSettings
from tune.page import methods_text
from tune.scheduling import cma
from tune.scheduling.optuna_study import Trials

SPACE: dict[str, BaseDistribution] = {
    "a": FloatDistribution(1e-4, 1.0, log=True),
    "b": FloatDistribution(-2.0, 2.0),
    "c": IntDistribution(8, 64, step=8),
}


def slow_position(distribution, value):
    """The twin of `cma.position`: by the ends' logarithms, written out."""
    if distribution.log:
        return math.log(value / distribution.low) / math.log(distribution.high / distribution.low)
    return (value - distribution.low) / (distribution.high - distribution.low)


def test_positions_equal_their_twin_and_lead_back_to_the_value():
    examples = {"a": [1e-4, 0.02, 1.0], "b": [-2.0, 0.3, 2.0], "c": [8, 40, 64]}
    for path, values in examples.items():
        for value in values:
            share = cma.position(SPACE[path], value)
            assert share == pytest.approx(slow_position(SPACE[path], value), abs=1e-9)
            assert cma.value_at(SPACE[path], share) == pytest.approx(value, rel=1e-9)
    assert cma.value_at(SPACE["c"], 0.51) == 40 and isinstance(cma.value_at(SPACE["c"], 0.2), int)


def trials_of(storage, *, seed=0, kind="cmaes"):
    settings = SearchSettings(sampler=kind, trials=100, seed=seed, pruner="none", population=6)
    return Trials(storage, name="study", settings=settings, maximize=False, space=SPACE)


def height(params):
    return sum((cma.position(SPACE[path], params[path]) - 0.3) ** 2 for path in SPACE)


def run(storage, count, **named):
    """Runs trials with a new `Trials` for each, as if the search were killed after each of them."""
    for _ in range(count):
        trials = trials_of(storage, **named)
        if not trials.all():
            trials.enqueue_first([{"a": 0.5, "b": 1.5, "c": 56}])
        trial = trials.ask()
        trials.complete(trial.number, height(trial.params), None)
    return [(trial.params, trial.value) for trial in trials_of(storage, **named).all()]


def test_the_first_mean_of_cma_is_the_default_and_the_second_the_weighted_mean_of_the_best():
    sampler = cma.ReplayedCmaSampler(seed=1, space=SPACE, population=6)
    rng = np.random.default_rng(0)
    default = rng.random(3)
    evaluated = [(rng.random(3), float(value)) for value in rng.permutation(7)]
    np.testing.assert_array_equal(sampler._replayed(default, evaluated[:5]).mean, default)
    best = sorted(evaluated[:6], key=lambda item: item[1])[:3]  # the seventh waits for its generation
    weights = [math.log(3.5) - math.log(rank) for rank in (1, 2, 3)]  # arXiv 1604.00772, Eq. 49
    for axis in range(3):
        mean = sum(weight * point[axis] for weight, (point, _) in zip(weights, best, strict=True)) / sum(weights)
        assert sampler._replayed(default, evaluated).mean[axis] == pytest.approx(mean, abs=1e-9)


def test_the_first_mean_of_cma_is_the_default_also_while_the_default_runs():
    trials = trials_of(optuna.storages.InMemoryStorage())
    trials.enqueue_first([{"a": 0.5, "b": 1.5, "c": 56}])
    means = []
    with pytest.MonkeyPatch.context() as patched:
        replayed = cma.ReplayedCmaSampler._replayed
        patched.setattr(
            cma.ReplayedCmaSampler,
            "_replayed",
            lambda self, mean, rows: means.append(mean) or replayed(self, mean, rows),
        )
        default, second = trials.ask(), trials.ask()
        trials.complete(second.number, 1.0, None)
        trials.ask()
    expected = [cma.position(SPACE[path], default.params[path]) for path in SPACE]
    assert len(means) == 2
    for mean in means:
        np.testing.assert_allclose(mean, expected)


def test_cma_finds_the_lowest_point_equals_itself_after_restarts_and_stores_no_optimizer():
    storage = optuna.storages.InMemoryStorage()
    restarted = run(storage, 60)
    assert restarted[0][0] == {"a": 0.5, "b": 1.5, "c": 56}
    assert len({tuple(params.values()) for params, _ in restarted}) > 50
    best, random = (min(value for _, value in rows) for rows in (restarted, run_random(60)))
    assert best < 0.25 * random
    trials = trials_of(storage).study.get_trials()
    assert not [key for trial in trials for key in trial.system_attrs if key.startswith("cma")]

    unbroken = trials_of(other := optuna.storages.InMemoryStorage())
    unbroken.enqueue_first([{"a": 0.5, "b": 1.5, "c": 56}])
    for _ in range(60):
        trial = unbroken.ask()
        unbroken.complete(trial.number, height(trial.params), None)
    assert [(trial.params, trial.value) for trial in trials_of(other).all()] == restarted


def run_random(count):
    return run(optuna.storages.InMemoryStorage(), count, kind="random")


@pytest.mark.parametrize("kind", ["nsga2", "nsga3"])
def test_genetic_samplers_equal_themselves_after_restarts(kind):
    first, second = (run(optuna.storages.InMemoryStorage(), 20, kind=kind) for _ in range(2))
    assert first == second
    assert first != run(optuna.storages.InMemoryStorage(), 20, kind=kind, seed=1)
    parents, children = ([set(itertools.chain(*(p.values() for p, _ in rows)))] for rows in (first[:6], first[6:12]))
    assert parents[0] & children[0], "a child has values of its parents"


def test_what_a_sampler_needs_is_reported_at_once(monkeypatch):
    monkeypatch.setattr(sampler_rules.importlib.util, "find_spec", lambda name: None)
    config = small(search__sampler="cmaes", search__trials=6)
    config["space"] = {"objective.beta": {"low": 0.01, "high": 1.0}, "train.optimizer": {"choices": ["adamw", "adam"]}}
    with pytest.raises(InputError) as error:
        checks.validate(config, data=None, overrides={}, options=checks.Options())
    text = "\n".join(error.value.faults)
    assert "cmaes takes ranges only, but train.optimizer has choices" in text
    assert "cmaes needs a package that is not installed: pip install 'm3col[cmaes]'" in text
    assert "search.trials must be > 6 for cmaes" in text and "nearest valid: 7" in text
    del config["space"]["train.optimizer"]
    with pytest.raises(InputError, match="at least two ranges"):
        checks.validate(config, data=None, overrides={}, options=checks.Options())


def test_a_population_without_a_sampler_of_generations_and_one_larger_than_the_trials_are_refused():
    for kind, words in (("tpe", "only the samplers cmaes, nsga2, nsga3"), ("nsga2", "search.trials must be > 30")):
        with pytest.raises(InputError, match=words):
            checks.validate(
                small(search__sampler=kind, search__population=30), data=None, overrides={}, options=checks.Options()
            )


def test_every_sampler_and_pruner_has_words_for_the_methods_paragraph():
    for key, words in (("sampler", methods_text._SAMPLERS), ("pruner", methods_text._PRUNERS)):
        assert set(get_args(SearchSettings.model_fields[key].annotation)) == set(words)
