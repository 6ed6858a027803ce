"""The search space: config paths with ranges or choices, validated against the base config."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from m3col.config import loading as run_config
from m3col.config import yaml_files
from m3col.config.keys import field_of, get, keys, touches
from m3col.config.schema import RunConfig
from m3col.errors import nearest
from m3col.methods import registry

# Not searchable: they define data, splits, metric, machine or what may be stored, which are the same for all trials of
# a study.
_FIXED = ("method", "task", "metric", "data", "validation", "checkpoint", "resources", "train.seed", "train.device",
          "train.init", "objective.store_training_rows")  # fmt: skip

# Below `data`, but only training samples are augmented by it.
_AUGMENTATION = ("data.image.crop_area",)

_RANGE_KEYS = {"low", "high", "log", "step"}


@cache
def searchable(method: str) -> tuple[str, ...]:
    """Returns the config paths that can be searched."""
    every = keys(run_config.model_of(method))
    sections = {path.rpartition(".")[0] for path in every}
    return tuple(
        path
        for path in every
        if path not in sections
        and (path in _AUGMENTATION or not any(path == fixed or path.startswith(f"{fixed}.") for fixed in _FIXED))
        and path not in registry.ignored_keys(method)
    )


def is_int(path: str, config: RunConfig) -> bool:
    annotation = field_of(type(config), path).annotation
    # An optional integer is a union whose first member may be Annotated[int, ...].
    options = get_args(annotation) or (annotation,)
    return any(option is int or get_args(option)[:1] == (int,) for option in options)


def default_value(config: RunConfig, path: str) -> Any:
    """Returns the value of the base config at a searched path, inherited values resolved."""
    value = get(config.model_dump(), path)
    section, _, field = path.rpartition(".")
    inherits = registry.find(config.method).inherits
    if section == "objective" and value is None and field in inherits:
        return getattr(config.objective, inherits[field])
    return value


def parse(
    raw: Any, config: RunConfig, *, where: str, faulty: Collection[str] = ()
) -> tuple[dict[str, BaseDistribution], list[str]]:
    """Returns the distributions by config path, and all faults of the space.

    Faults are unknown or ignored keys, invalid ranges, bounds that the config rejects, and defaults outside the range.

    Args:
        raw: the section `space`.
        config: the base config.
        where: the file of the section, for the faults.
        faulty: keys with an invalid default, which is therefore not compared with the range.
    """
    if not isinstance(raw, Mapping) or not raw:
        return {}, [f"{where}: space must name at least one config path with its range, but got {raw!r}"]
    space: dict[str, BaseDistribution] = {}
    faults: list[str] = []
    for path, spec in raw.items():
        if not isinstance(path, str):  # the typed model says so
            continue
        fault = _path_fault(path, config.method)
        distribution, path_faults = (None, [fault]) if fault else _distribution(path, spec, config)
        if distribution is not None and not touches(faulty, path):
            path_faults = _default_faults(path, distribution, config)
            distribution = None if path_faults else distribution
        faults += [f"{where}: space.{line}" for line in path_faults]
        if distribution is not None:
            space[path] = distribution
    return space, faults


def _path_fault(path: str, method: str) -> str | None:
    allowed = searchable(method)
    if path in allowed:
        return None
    if path in registry.ignored_keys(method):
        return f"{path}: method {method!r} ignores this key, so that a search over it finds noise"
    below = [key for key in allowed if key.startswith(f"{path}.")]
    if below:
        return f"{path}: is a section; name one of its keys: {', '.join(below)}"
    if any(path == fixed or path.startswith(f"{fixed}.") for fixed in _FIXED):
        return f"{path}: cannot be searched: it defines data, splits or metric, which must be the same for all trials"
    close = nearest(path, allowed)
    same = [key for key in allowed if key.rpartition(".")[2] == path]
    return f"{path}: no such config key{f'; did you mean {same[0]!r}?' if same else close}"


def _distribution(path: str, spec: Any, config: RunConfig) -> tuple[BaseDistribution | None, list[str]]:
    choices = spec.get("choices") if isinstance(spec, Mapping) else spec
    if isinstance(choices, list):
        return _choices(path, choices, config)
    if not isinstance(spec, Mapping):
        return None, [f"{path}: must be {{low, high}} or {{choices: [...]}}, but got {spec!r}"]
    unknown = [key for key in spec if key not in _RANGE_KEYS]
    if unknown:
        return None, [f"{path}: unknown key {key!r}{nearest(key, [*_RANGE_KEYS, 'choices'])}" for key in unknown]
    return _range(path, spec, config)


def _choices(path: str, choices: list[Any], config: RunConfig) -> tuple[BaseDistribution | None, list[str]]:
    if not choices:
        return None, [f"{path}: choices must not be empty"]
    if any(isinstance(value, list | dict) for value in choices):
        return None, [f"{path}: choices must be single values, but got {choices!r}"]
    faults = [fault for value in choices for fault in _refusals(path, value, config)]
    twice = [value for at, value in enumerate(choices) if value in choices[:at]]
    faults += [f"{path}: the choice {value!r} stands twice" for value in dict.fromkeys(twice)]
    return (None, faults) if faults else (CategoricalDistribution(choices), [])


def _range(path: str, spec: Mapping[str, Any], config: RunConfig) -> tuple[BaseDistribution | None, list[str]]:
    faults = _shape_faults(path, spec)
    if faults:
        return None, faults
    low, high, log, step = spec["low"], spec["high"], spec.get("log", False), spec.get("step")
    if not low < high:
        faults.append(f"{path}: low must be < high, but got {low} and {high}")
    if log and low <= 0:
        faults.append(f"{path}: a log range must have low > 0, but got {low}")
    whole = is_int(path, config)
    fractions = [value for value in (low, high, step or 1) if whole and not float(value).is_integer()]
    faults += [
        f"{path}: must have whole numbers, but got {value}; the nearest valid value is {round(value)}"
        for value in fractions
    ]
    for end in (low, high):
        if end not in fractions:
            faults += _refusals(path, int(end) if whole else end, config)
    if faults:
        return None, faults
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1)), []
    return FloatDistribution(float(low), float(high), log=log, step=step), []


def _shape_faults(path: str, spec: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{path}.{end} must be a finite number, but got {spec.get(end)!r}"
        for end in ("low", "high")
        if not yaml_files.is_finite_number(spec.get(end))
    ]
    log, step = spec.get("log", False), spec.get("step")
    if not isinstance(log, bool):
        faults.append(f"{path}.log must be true or false, but got {log!r}")
    if step is not None and not (yaml_files.is_finite_number(step) and step > 0):
        faults.append(f"{path}.step must be a finite number > 0, but got {step!r}")
    if step is not None and log is True:
        faults.append(f"{path}: step and log cannot be combined; leave one out")
    return faults


def _default_faults(path: str, distribution: BaseDistribution, config: RunConfig) -> list[str]:
    """The fault of a default outside its range: the default is always trial 0."""
    default = default_value(config, path)
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        text = f"{path}: the default {default!r} is not among the choices {choices}; add it"
        return [] if default in choices else [text]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if not yaml_files.is_finite_number(default):
        return [f"{path}: a range needs a number as default, but the base config has {default!r}; set it there"]
    if not low <= default <= high:
        wider = f"{min(low, default):g}..{max(high, default):g}"
        return [f"{path}: the default {default} is outside {low:g}..{high:g}; the range {wider} would contain it"]
    if distribution.step is not None:
        steps = (default - low) / distribution.step
        near = low + round(steps) * distribution.step
        if abs(steps - round(steps)) > 1e-8:
            listed = f"{low:g}, {low + distribution.step:g}, ..."
            return [f"{path}: the default {default} is not one of {listed}; the nearest valid value is {near:g}"]
    return []


def _refusals(path: str, value: Any, config: RunConfig) -> list[str]:
    """Why the config cannot take this value."""
    faults = run_config.parse(config, overrides={path: value}, where=lambda key: path).faults
    return [f"{path}: {line.removeprefix(f'{path}: ').removeprefix(f'{path} ')}" for line in faults]


def defaults(space: Mapping[str, BaseDistribution], config: RunConfig) -> dict[str, Any]:
    """Returns the point of the base config, which is always trial 0."""
    return {path: default_value(config, path) for path in space}


def grid(space: Mapping[str, BaseDistribution], *, points: int = 5) -> list[dict[str, Any]]:
    """Returns all combinations of choices and of `points` values (or the values of `step`) of each range."""
    axes: list[tuple[str, Sequence[Any]]] = [(path, _axis(dist, points)) for path, dist in space.items()]
    combinations: list[dict[str, Any]] = [{}]
    for path, values in axes:
        combinations = [{**partial, path: value} for partial in combinations for value in values]
    return combinations


def grid_size(space: Mapping[str, BaseDistribution], *, points: int = 5) -> int:
    """Returns the number of combinations of `grid`."""
    return math.prod(len(_axis(distribution, points)) for distribution in space.values())


def _axis(distribution: BaseDistribution, points: int) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution) and (distribution.step != 1 or high - low < points):
        return list(range(int(low), int(high) + 1, distribution.step))
    if distribution.step is not None and isinstance(distribution, FloatDistribution):
        count = int((high - low) / distribution.step + 1e-9)
        return [round(low + index * distribution.step, 12) for index in range(count + 1)]
    shares = [index / (points - 1) for index in range(points)]
    if distribution.log:
        values = [math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares]
        values[0], values[-1] = low, high
    else:
        values = [low + share * (high - low) for share in shares]
    if isinstance(distribution, IntDistribution):
        return sorted({round(value) for value in values})
    return values
