"""CMA-ES whose state is computed anew from the finished trials, so that no pickled state is stored or read."""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

_STEP = 0.3  # first standard deviation, as a share of each range

_SEEDS = 2**32 - 1  # what NumPy's generators take


def position(distribution: BaseDistribution, value: float) -> float:
    """The position of a value in its range: 0 at the low end, 1 at the high end; of a log range by its logarithm.

    Args:
        distribution: the range.
        value: a value in it.
    """
    low, high = _ends(distribution)
    return (_scaled(distribution, value) - low) / (high - low)


def value_at(distribution: BaseDistribution, share: float) -> float | int:
    """The value at a position, see `position`; rounded to a step where the range has steps."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _ends(distribution)
    scaled = low + share * (high - low)
    value = math.exp(scaled) if distribution.log else scaled
    if distribution.step is not None and not distribution.log:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    if isinstance(distribution, IntDistribution):
        return min(max(round(value), distribution.low), distribution.high)
    return float(min(max(value, distribution.low), distribution.high))


def _ends(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _scaled(distribution, distribution.low), _scaled(distribution, distribution.high)


def _scaled(distribution: BaseDistribution, value: float) -> float:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return math.log(value) if distribution.log else float(value)


class ReplayedCmaSampler(BaseSampler):
    """CMA-ES (arXiv 1604.00772): adapts a normal distribution to the best trials of each generation.

    The state is a function of the finished trials and the seed: all generations are replayed for each new trial, which
    takes about a millisecond each. Differs: `CmaEsSampler` of Optuna stores a pickled optimizer in the database, which
    would be executed when it is read. The first mean is trial 0, the default, also while it runs. Finished trials,
    sorted by number, are cut into generations, so that with several trials at a time a generation may contain trials
    that were drawn for the one before. Pruned and failed trials do not count.

    Args:
        seed: of the draw of one trial.
        space: ranges by config path; at least two, and no choices.
        population: trials per generation, see `tune.config.sampler_rules.population`.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
        >>> sampler = ReplayedCmaSampler(seed=0, space=space, population=6)
    """

    def __init__(self, *, seed: int, space: Mapping[str, BaseDistribution], population: int) -> None:
        self._seed, self._space = seed % _SEEDS, dict(space)
        self._population = population
        self._random = RandomSampler(seed=self._seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All ranges, see the base class."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point of a new trial, see the base class."""
        trials = study.get_trials(deepcopy=False)
        default = next((t for t in trials if t.number == 0 and t.params.keys() >= search_space.keys()), None)
        if default is None:
            return {}
        finished = [t for t in trials if t.state == TrialState.COMPLETE]
        sign = -1 if study.direction.name == "MAXIMIZE" else 1
        evaluated = [
            (np.array([position(search_space[path], trial.params[path]) for path in search_space]), sign * trial.value)
            for trial in sorted(finished, key=lambda trial: trial.number)
            if trial.value is not None
        ]
        mean = np.array([position(search_space[path], default.params[path]) for path in search_space])
        point = self._replayed(mean, evaluated).ask()
        return {
            path: value_at(search_space[path], float(share)) for path, share in zip(search_space, point, strict=True)
        }

    def _replayed(self, mean: np.ndarray, evaluated: Sequence[tuple[np.ndarray, float]]) -> Any:
        """The optimizer after all complete generations.

        Args:
            mean: [n], the first mean.
            evaluated: position [n] and value to minimise, by trial.
        """
        cmaes = importlib.import_module("cmaes")  # an optional package
        size = self._population
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        optimizer = cmaes.CMA(mean=mean.copy(), sigma=_STEP, bounds=bounds, seed=self._seed, population_size=size)
        for start in range(0, len(evaluated) - size + 1, size):
            optimizer.tell(list(evaluated[start : start + size]))
        return optimizer

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, before the first trial has finished; see the base class."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)
