"""The typed config of a search: a base run config, a space over its paths, and how to look, prune and compare."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from pydantic import ValidationError

from m3col.config import loading as run_config
from m3col.config import rules, yaml_files
from m3col.config.keys import get, with_value, without_keys
from m3col.config.schema import RunConfig
from m3col.config.validation import Fault, lines, places, validate, with_good_keys
from m3col.data.checks import naming
from m3col.errors import InputError, one_line, reason_of
from m3col.methods import registry
from tune.config import extra_rows, urls
from tune.config import search_space as spaces
from tune.config.resources import TrialResources, resource_faults
from tune.config.schema import KEPT, SearchConfig, SearchSettings, StudyConfig
from tune.study.run_spec import study_name

_BY_KEY = ("overrides", "space")  # mappings whose keys are dotted keys of the run


@dataclass(frozen=True)
class PartialStudy:
    """A study that is judged. Where keys of its run are `faulty`, `study.run` is what is left without them: good enough
    to look for faults elsewhere. `place` says who gave a key of the run; `where` is the search's own config."""

    study: StudyConfig
    faulty: frozenset[str]
    place: Callable[[str], str]
    where: str


def load(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> list[StudyConfig]:
    """The studies of a search. `overrides`: dotted paths of the search config or of the run config.

    Raises InputError with every fault of file, base config, space and rows.
    """
    partials, faults = parse(source, overrides=overrides, in_memory=in_memory)
    if faults:
        raise InputError(faults)
    return [partial.study for partial in partials]


def parse(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> tuple[list[PartialStudy], list[str]]:
    """The studies of a search and all faults. Raises InputError only where the file cannot be read."""
    if isinstance(source, Mapping):
        raw, place, name = dict(source), "config", "search"
    else:
        path = run_config.find(source, "search")
        raw, place, name = yaml_files.read(path), str(path), path.stem
    own, for_runs = _sort_overrides(overrides or {})
    raw, found = with_good_keys(run_config.join(raw, own, by_name=_BY_KEY))
    settings, of_types = validate(SearchConfig, urls.usable(raw))
    who = places(place, ("overrides", own))
    faults = lines([*found, *map(_explained, of_types)], who) + urls.faults(raw, who)
    if in_memory:
        for_runs.setdefault("data.name", rules.IN_MEMORY)
    given = _Given(raw, settings or SearchConfig(), own, for_runs, place, name)
    faults += _space_faults(given)
    partials: list[PartialStudy] = []
    for base, dataset, method in _pairs(raw):
        try:
            partial, more = _study(given, base, dataset=dataset, method=method)
        except InputError as error:
            more = list(error.faults)
        else:
            partials.append(partial)
        faults += more
    faults += _twin_faults([partial.study.name for partial in partials], where=place)
    return partials, list(map(one_line, dict.fromkeys(faults)))


def _twin_faults(studies: Sequence[str], *, where: str) -> list[str]:
    """Two studies of one name: a resume would take one for the other."""
    counts = Counter(map(naming.folded, studies))
    return [
        f"{where}: datasets and methods make {counts[name]} studies called {name!r}; leave one out, or rename its file"
        for name in dict.fromkeys(map(naming.folded, studies))
        if counts[name] > 1
    ]


@dataclass(frozen=True)
class _Given:
    """What the user gave: the search config's plain values (`own` overrides joined), and `for_runs` overrides."""

    raw: Mapping[str, Any]
    settings: SearchConfig
    own: Mapping[str, Any]
    for_runs: Mapping[str, Any]
    where: str
    name: str


def _explained(fault: Fault) -> Fault:
    head = fault.path.partition(".")[0]
    if "unknown key" in fault.text and head in RunConfig.model_fields and head not in SearchConfig.model_fields:
        return Fault(fault.path, f"unknown key {fault.path!r}: keys of the run stand below 'overrides'")
    return fault


def _space_faults(given: _Given) -> list[str]:
    """An empty space, and keys that none of the methods has: each study alone leaves out what its method lacks."""
    raw_space, wanted = given.raw.get("space", {}), given.raw.get("methods")
    if not isinstance(raw_space, Mapping):
        return []
    if not raw_space and get(given.raw, "search.trials") != 1:
        return [f"{given.where}: space must name at least one config path with its range, but is empty"]
    if not isinstance(wanted, list) or not wanted:
        return []
    kinds = {kind for method in wanted if registry.is_method(kind := registry.split(str(method))[0])}
    ignored = [key for key in raw_space if kinds and all(key in registry.ignored_keys(kind) for kind in kinds)]
    listed = ", ".join(sorted(kinds))
    return [f"{given.where}: space.{key}: none of the methods ({listed}) has this key" for key in ignored]


def _sort_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides of the search config, and those of the run config (`objective.beta=0.2`, also without `overrides.`)."""
    own: dict[str, Any] = {}
    for_runs: dict[str, Any] = {}
    search_sections = set(SearchConfig.model_fields)
    run_sections = set(RunConfig.model_fields)
    for path, value in overrides.items():
        head = path.partition(".")[0]
        if path in SearchSettings.model_fields:  # `trials=80` for `search.trials=80`
            own[f"search.{path}"] = value
            continue
        is_run = head in run_sections and head not in search_sections
        if head == "resources" and path == "resources.threads":
            is_run = True
        (for_runs if is_run else own)[path] = value
    return own, for_runs


def _pairs(raw: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """(base config, data set, method) of each study. Entries of a wrong type are left to the typed model."""
    lists = [raw.get("datasets") or [None], raw.get("methods") or [None]]
    base = raw.get("base", "digits")
    if not isinstance(base, str) or not all(isinstance(item, list) for item in lists):
        return []
    datasets, wanted = ([item for item in items if item is None or isinstance(item, str)] for items in lists)
    return [(dataset or base, dataset, method) for dataset in datasets for method in wanted]


def _study(given: _Given, base: str, *, dataset: str | None, method: str | None) -> tuple[PartialStudy, list[str]]:
    raw, where = given.raw, given.where
    run = _base_run(given, base, method, key="base" if dataset is None else "datasets")
    faults, config = list(run.faults), run.config
    raw_space = raw.get("space", {})
    raw_space = dict(raw_space) if isinstance(raw_space, Mapping) else {}
    if method is not None:
        raw_space = {k: v for k, v in raw_space.items() if k not in registry.ignored_keys(config.method)}
    space: dict[str, BaseDistribution] = {}
    # A study may be its default alone: a published table, or one of several methods that has nothing to search.
    if raw_space and "method" not in run.faulty:
        space, more = spaces.parse(raw_space, config, where=where, faulty=run.faulty)
        faults += more
    rows, more = extra_rows.parse(raw, config, where=where)
    faults += more + _grid_faults(given.settings.search, space, where=where)
    faults += _resource_faults(given.settings.resources, [config, *rows.values()], where=where)
    if config.validation.kind == "none":
        place = run.place("validation.kind")
        faults.append(f"{place}: validation.kind must be kfold, holdout or given for a search, but got 'none'")
    title = "-".join([Path(dataset or given.name).stem, *([method] if method else [])])
    study = StudyConfig(study_name(title), config, space, raw_space, rows, given.settings)
    return PartialStudy(study, run.faulty, run.place, where), faults


def _grid_faults(search: SearchSettings, space: Mapping[str, BaseDistribution], *, where: str) -> list[str]:
    """A grid of which only a corner would be tried."""
    size = spaces.grid_size(space, points=search.grid_points) if search.sampler == "grid" and space else 0
    if size <= search.trials:
        return []
    return [
        f"{where}: search.trials must be >= {size} for this grid (search.grid_points {search.grid_points} per range), "
        f"but got {search.trials}; nearest valid: {size}, or fewer points"
    ]


def _resource_faults(wanted: TrialResources, runs: Sequence[RunConfig], *, where: str) -> list[str]:
    return [f"{where}: resources.{text}" for text in resource_faults(wanted, runs)]


def _base_run(given: _Given, base: str, method: str | None, *, key: str) -> run_config.PartialConfig:
    """The run config of a study, judged. Raises InputError where there is no such file or no such method."""
    path = run_config.find(base, "train", where=f"{given.where}: {key}")
    raw = yaml_files.read(path)
    # A search needs a validation part; a published setting usually has none.
    if get(raw, "validation.kind") == "none":
        raw = without_keys(raw, frozenset({"validation.kind"}))
    below = dict(extra_rows.dotted(given.raw.get("overrides", {})))
    validation = {f"validation.{k}": v for k, v in extra_rows.dotted(given.raw.get("validation", {}))}
    changes = {**below, **given.for_runs, **validation}
    from_method: dict[str, Any] = {}
    if method is not None:
        kind, modality = registry.split(method)
        try:
            registry.find(kind)
        except InputError as error:
            refused = [line.removeprefix("method ") for line in error.faults]
            raise InputError([f"{given.where}: methods: {line}" for line in refused]) from None
        raw = without_keys({**raw, "method": kind}, registry.ignored_keys(kind))
        changes = {k: v for k, v in changes.items() if k not in registry.ignored_keys(kind) and k != "method"}
        from_method = {"method": kind, **({"data.modalities": [modality]} if modality else {})}
    place = places(
        str(path),
        (f"{given.where}, overrides", below),
        (given.where, validation),
        ("overrides", [*given.for_runs, *given.own]),
        (f"{given.where}, methods", from_method),
    )
    return run_config.parse(raw, overrides={**changes, **from_method}, where=place)


def study_from_dict(found: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes. Raises InputError where that is damaged."""
    try:
        return _study_from_dict(found)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = reason_of(error, limit=None)
        raise InputError([f"study.json: the config in it is damaged ({type(error).__name__}: {reason})"]) from None


def _study_from_dict(found: Mapping[str, Any]) -> StudyConfig:
    run = run_config.load_stored(found["run"], where="study.json")
    settings = SearchConfig.model_validate({k: found[k] for k in KEPT})
    space: dict[str, BaseDistribution] = {}
    if found["space"]:
        space, faults = spaces.parse(found["space"], run, where="study.json")
        if faults:
            raise InputError(faults)
    rows = {name: run_config.load_stored(row, where="study.json") for name, row in found["rows"].items()}
    return StudyConfig(found["name"], run, space, found["space"], rows, settings)


def stored(found: Mapping[str, Any], overrides: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes, with search settings replaced. Raises InputError."""
    own, for_runs = _sort_overrides(overrides)
    faults = [
        f"{path}: a resumed study keeps its config; only {', '.join(KEPT)} can be given"
        for path in [*own, *for_runs]
        if path.partition(".")[0] not in KEPT and path != "data.dir"
    ]
    raw = run_config.join(found, {path: value for path, value in own.items() if path.partition(".")[0] in KEPT})
    _, more = validate(SearchConfig, {key: raw[key] for key in KEPT if key in raw})
    faults += lines(more, "overrides")
    faults += urls.faults(raw, lambda key: "overrides")
    if faults:
        raise InputError(faults)
    if "data.dir" in for_runs:
        raw = with_value(raw, "run.data.dir", for_runs["data.dir"])
    study = study_from_dict(raw)
    faults = _resource_faults(study.settings.resources, [study.run, *study.rows.values()], where="overrides")
    if faults:
        raise InputError(faults)
    return study
