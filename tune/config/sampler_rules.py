"""What a sampler needs: a space that it can sample, enough trials, and its package."""

import importlib.util
import math
from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution

from tune.config import search_space as spaces
from tune.config.schema import POPULATION, SearchSettings

GENERATIONS = ("cmaes", "nsga2", "nsga3")  # samplers that learn once per generation of trials


def population(search: SearchSettings, parameters: int) -> int:
    """Trials per generation of a sampler in `GENERATIONS`.

    Args:
        search: the section `search`.
        parameters: n, the number of searched parameters; cmaes has 4 + floor(3 ln n) by default (arXiv 1604.00772,
            Eq. 48).

    Example:
        >>> population(SearchSettings(sampler="cmaes"), 4)
        8
    """
    if search.population is not None:
        return search.population
    return 4 + math.floor(3 * math.log(parameters)) if search.sampler == "cmaes" else POPULATION


def faults(search: SearchSettings, space: Mapping[str, BaseDistribution], *, where: str) -> list[str]:
    """What does not fit together, one line each.

    Args:
        search: the section `search`.
        space: distributions by config path.
        where: the file, for the lines.
    """
    if not space:
        return []
    lines = _grid_faults(search, space)
    if search.sampler in GENERATIONS:
        lines += _generation_faults(search, space)
    elif search.population is not None:
        lines.append(
            f"search.population: only the samplers {', '.join(GENERATIONS)} have generations, but the sampler is "
            f"{search.sampler}; leave it out"
        )
    if search.sampler == "cmaes":
        lines += _cma_faults(space)
    return [f"{where}: {line}" for line in lines] + package_faults(search, where=where)


def _grid_faults(search: SearchSettings, space: Mapping[str, BaseDistribution]) -> list[str]:
    """The fault of a grid with more points than trials."""
    size = spaces.grid_size(space, points=search.grid_points) if search.sampler == "grid" else 0
    if size <= search.trials:
        return []
    return [
        f"search.trials must be >= {size} for this grid (search.grid_points {search.grid_points} per range), "
        f"but got {search.trials}; nearest valid: {size}, or fewer points"
    ]


def _generation_faults(search: SearchSettings, space: Mapping[str, BaseDistribution]) -> list[str]:
    """The fault of a first generation that never ends: all its trials are random, so nothing is learnt."""
    size = population(search, len(space))
    if size < search.trials or search.trials == 1:
        return []
    return [
        f"search.trials must be > {size} for {search.sampler} (search.population: {size} trials per generation), but "
        f"got {search.trials}; nearest valid: {size + 1}, or a smaller search.population"
    ]


def _cma_faults(space: Mapping[str, BaseDistribution]) -> list[str]:
    lines = [
        f"search.sampler cmaes takes ranges only, but {path} has choices; use tpe, or leave {path} out"
        for path, distribution in space.items()
        if isinstance(distribution, CategoricalDistribution)
    ]
    if len(space) < 2:
        lines.append("search.sampler cmaes needs a space of at least two ranges, but this one has one; use tpe or gp")
    return lines


def package_faults(search: SearchSettings, *, where: str) -> list[str]:
    """The line for a sampler whose package is not installed."""
    if search.sampler != "cmaes" or importlib.util.find_spec("cmaes") is not None:
        return []
    return [f"{where}: search.sampler cmaes needs a package that is not installed: pip install 'm3col[cmaes]'"]
