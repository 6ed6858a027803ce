"""Loads the config of a search: a base run config, the search space, and settings of search and test table."""

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
from tune.config import extra_rows, named_spaces, outer_section, sampler_rules, urls
from tune.config import search_space as spaces
from tune.config.resources import TrialResources, resource_faults
from tune.config.schema import KEPT, SearchConfig, SearchSettings, StudyConfig
from tune.study.run_spec import study_name

_BY_KEY = ("overrides", "space")  # mappings whose keys are dotted keys of the run


@dataclass(frozen=True)
class PartialStudy:
    """A validated study, whose run config may have faults.

    Attributes:
        study: the study. Faulty keys of its run config have their default values, so that other checks can still run.
        faulty: the faulty keys.
        place: says for a key of the run config which file or override set it.
        where: the file of the search config.
    """

    study: StudyConfig
    faulty: frozenset[str]
    place: Callable[[str], str]
    where: str


def load(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> list[StudyConfig]:
    """Returns the studies of a search.

    Args:
        source: name of a shipped config, path of a YAML file, or a mapping.
        overrides: values by dotted path of the search config or of the run config.
        in_memory: whether the data set is in memory, so that the config need not name one.

    Raises:
        InputError: with every fault of file, base config, space and rows.
    """
    partials, faults = parse(source, overrides=overrides, in_memory=in_memory)
    if faults:
        raise InputError(faults)
    return [partial.study for partial in partials]


def parse(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> tuple[list[PartialStudy], list[str]]:
    """As `load`, but returns the faults. Raises InputError only if the file cannot be read."""
    if isinstance(source, Mapping):
        raw, place, name = dict(source), "config", "search"
    else:
        path = run_config.find(source, "search")
        raw, place, name = yaml_files.read(path), str(path), path.stem
    search_overrides, run_overrides = _sort_overrides(overrides or {})
    named = search_overrides.get("space", raw.get("space"))
    named_faults = named_spaces.faults(named, search_overrides, where=place)
    raw, key_faults = with_good_keys(run_config.join(raw, search_overrides, by_name=_BY_KEY))
    plain = raw
    if isinstance(named, str):
        raw, plain = {**raw, "space": named}, {**raw, "space": {}}
    settings, type_faults = validate(SearchConfig, urls.usable(plain))
    who = places(place, ("overrides", search_overrides))
    faults = lines([*key_faults, *map(_explained, type_faults)], who) + urls.faults(raw, who)
    if in_memory:
        run_overrides.setdefault("data.name", rules.IN_MEMORY)
    outer, outer_faults = outer_section.parse(raw, run_overrides, where=place)
    faults += outer_faults
    settings = (settings or SearchConfig()).model_copy(update={"outer": outer})
    search = _Search(raw, settings, search_overrides, run_overrides, place, name)
    faults += named_faults or _space_faults(search)
    partials: list[PartialStudy] = []
    for base, dataset, method in _pairs(raw):
        try:
            partial, study_faults = _study(search, base, dataset=dataset, method=method)
        except InputError as error:
            study_faults = list(error.faults)
        else:
            partials.append(partial)
        faults += study_faults
    faults += _twin_faults([partial.study.name for partial in partials], where=place)
    return partials, list(map(one_line, dict.fromkeys(faults)))


def _twin_faults(studies: Sequence[str], *, where: str) -> list[str]:
    """The faults of studies with the same name: a resume could not tell them apart."""
    counts = Counter(map(naming.folded, studies))
    return [
        f"{where}: datasets and methods make {counts[name]} studies called {name!r}; leave one out, or rename its file"
        for name in dict.fromkeys(map(naming.folded, studies))
        if counts[name] > 1
    ]


@dataclass(frozen=True)
class _Search:
    """A search config as the user wrote it: `raw` values (with `search_overrides` applied), the typed `settings`, and
    the overrides of its runs."""

    raw: Mapping[str, Any]
    settings: SearchConfig
    search_overrides: Mapping[str, Any]
    run_overrides: Mapping[str, Any]
    where: str
    name: str


def _explained(fault: Fault) -> Fault:
    """Rewrites the fault of a key that belongs into `overrides`."""
    head = fault.path.partition(".")[0]
    if "unknown key" in fault.text and head in RunConfig.model_fields and head not in SearchConfig.model_fields:
        return Fault(fault.path, f"unknown key {fault.path!r}: keys of the run stand below 'overrides'")
    return fault


def _space_faults(search: _Search) -> list[str]:
    """The faults of an empty space, and of keys that every method of the search ignores."""
    raw_space, methods = search.raw.get("space", {}), search.raw.get("methods")
    if not isinstance(raw_space, Mapping):
        return []
    if not raw_space and get(search.raw, "search.trials") != 1:
        return [f"{search.where}: space must name at least one config path with its range, but is empty"]
    if not isinstance(methods, list) or not methods:
        return []
    kinds = {kind for method in methods if registry.is_method(kind := registry.split(str(method))[0])}
    ignored = [key for key in raw_space if kinds and all(key in registry.ignored_keys(kind) for kind in kinds)]
    listed = ", ".join(sorted(kinds))
    return [f"{search.where}: space.{key}: none of the methods ({listed}) has this key" for key in ignored]


def _sort_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits overrides into those of the search config and those of the run config, such as `objective.beta`."""
    search_overrides: dict[str, Any] = {}
    run_overrides: dict[str, Any] = {}
    search_sections = set(SearchConfig.model_fields)
    run_sections = set(RunConfig.model_fields)
    for path, value in overrides.items():
        head = path.partition(".")[0]
        if path in SearchSettings.model_fields:  # `trials=80` for `search.trials=80`
            search_overrides[f"search.{path}"] = value
            continue
        is_run = head in run_sections and head not in search_sections
        if head == "resources" and path == "resources.threads":
            is_run = True
        (run_overrides if is_run else search_overrides)[path] = value
    return search_overrides, run_overrides


def _pairs(raw: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Returns (base config, data set, method) of each study. The typed model reports entries of a wrong type."""
    lists = [raw.get("datasets") or [None], raw.get("methods") or [None]]
    base = raw.get("base", "digits")
    if not isinstance(base, str) or not all(isinstance(item, list) for item in lists):
        return []
    datasets, methods = ([item for item in items if item is None or isinstance(item, str)] for items in lists)
    return [(dataset or base, dataset, method) for dataset in datasets for method in methods]


def _study(search: _Search, base: str, *, dataset: str | None, method: str | None) -> tuple[PartialStudy, list[str]]:
    raw, where = search.raw, search.where
    run = _base_run(search, base, method, key="base" if dataset is None else "datasets")
    divided = search.settings.outer is not None
    faults = [outer_section.worded(line) if divided else line for line in run.faults]
    config = run.config
    raw_space = raw.get("space", {})
    if isinstance(raw_space, str):
        raw_space = named_spaces.fitted(named_spaces.of_method(raw_space, config.method, where=where), config)
    raw_space = dict(raw_space) if isinstance(raw_space, Mapping) else {}
    if method is not None:
        raw_space = {k: v for k, v in raw_space.items() if k not in registry.ignored_keys(config.method)}
    space: dict[str, BaseDistribution] = {}
    # A study may have no space: then it evaluates the default only.
    if raw_space and "method" not in run.faulty:
        space, space_faults = spaces.parse(raw_space, config, where=where, faulty=run.faulty)
        faults += space_faults
    rows, row_faults = extra_rows.parse(raw, config, where=where)
    faults += row_faults + sampler_rules.faults(search.settings.search, space, where=where)
    faults += _resource_faults(search.settings.resources, [config, *rows.values()], where=where)
    if config.validation.kind == "none":
        place = run.place("validation.kind")
        faults.append(f"{place}: validation.kind must be kfold, holdout or given for a search, but got 'none'")
    title = "-".join([Path(dataset or search.name).stem, *([method] if method else [])])
    study = StudyConfig(study_name(title), config, space, raw_space, rows, search.settings)
    return PartialStudy(study, run.faulty, run.place, where), faults


def _resource_faults(resources: TrialResources, runs: Sequence[RunConfig], *, where: str) -> list[str]:
    return [f"{where}: resources.{text}" for text in resource_faults(resources, runs)]


def _base_run(search: _Search, base: str, method: str | None, *, key: str) -> run_config.PartialConfig:
    """Returns the validated run config of a study. Raises InputError if the file or the method does not exist."""
    path = run_config.find(base, "train", where=f"{search.where}: {key}")
    raw = yaml_files.read(path)
    # A search needs validation; the configs of published settings usually have none.
    if get(raw, "validation.kind") == "none":
        raw = without_keys(raw, frozenset({"validation.kind"}))
    base_overrides = dict(extra_rows.dotted(search.raw.get("overrides", {})))
    validation = {f"validation.{k}": v for k, v in extra_rows.dotted(search.raw.get("validation", {}))}
    outer = search.settings.outer
    division = {} if outer is None or outer.kind == "given" else {"data.resplit": outer.division(0)}
    changes = {**base_overrides, **search.run_overrides, **validation, **division}
    from_method: dict[str, Any] = {}
    if method is not None:
        kind, modality = registry.split(method)
        try:
            registry.find(kind)
        except InputError as error:
            reasons = [line.removeprefix("method ") for line in error.faults]
            raise InputError([f"{search.where}: methods: {line}" for line in reasons]) from None
        raw = without_keys({**raw, "method": kind}, registry.ignored_keys(kind))
        changes = {k: v for k, v in changes.items() if k not in registry.ignored_keys(kind) and k != "method"}
        from_method = {"method": kind, **({"data.modalities": [modality]} if modality else {})}
    place = places(
        str(path),
        (f"{search.where}, overrides", base_overrides),
        (search.where, {**validation, **division}),
        ("overrides", [*search.run_overrides, *search.search_overrides]),
        (f"{search.where}, methods", from_method),
    )
    return run_config.parse(raw, overrides={**changes, **from_method}, where=place)


def study_from_dict(described: Mapping[str, Any]) -> StudyConfig:
    """Returns the study that study.json describes. Raises InputError if the description is damaged."""
    try:
        return _study_from_dict(described)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = reason_of(error, limit=None)
        raise InputError([f"study.json: the config in it is damaged ({type(error).__name__}: {reason})"]) from None


def _study_from_dict(described: Mapping[str, Any]) -> StudyConfig:
    run = run_config.load_stored(described["run"], where="study.json")
    settings = SearchConfig.model_validate({k: described[k] for k in KEPT})
    space: dict[str, BaseDistribution] = {}
    if described["space"]:
        space, faults = spaces.parse(described["space"], run, where="study.json")
        if faults:
            raise InputError(faults)
    rows = {name: run_config.load_stored(row, where="study.json") for name, row in described["rows"].items()}
    return StudyConfig(described["name"], run, space, described["space"], rows, settings)


def stored(described: Mapping[str, Any], overrides: Mapping[str, Any]) -> StudyConfig:
    """Returns the study that study.json describes, with search settings replaced. Raises InputError."""
    search_overrides, run_overrides = _sort_overrides(overrides)
    faults = [
        f"{path}: a resumed study keeps its config; only {', '.join(KEPT)} can be given"
        for path in [*search_overrides, *run_overrides]
        if path.partition(".")[0] not in KEPT and path != "data.dir"
    ]
    raw = run_config.join(
        described, {path: value for path, value in search_overrides.items() if path.partition(".")[0] in KEPT}
    )
    _, type_faults = validate(SearchConfig, {key: raw[key] for key in KEPT if key in raw})
    faults += lines(type_faults, "overrides")
    faults += urls.faults(raw, lambda key: "overrides")
    if faults:
        raise InputError(faults)
    if "data.dir" in run_overrides:
        raw = with_value(raw, "run.data.dir", run_overrides["data.dir"])
    study = study_from_dict(raw)
    faults = _resource_faults(study.settings.resources, [study.run, *study.rows.values()], where="overrides")
    faults += sampler_rules.package_faults(study.settings.search, where="overrides")
    if faults:
        raise InputError(faults)
    return study
