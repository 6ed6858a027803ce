"""The typed config of a search: a base run config, a space over its paths, and how to look, prune and compare."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, ValidationError

from m3col import config as run_config
from m3col import methods, yamlio
from m3col.config import Count, NotNegative, RunConfig, Seed, ValidationConfig
from m3col.data import naming
from m3col.faults import BadInput, nearest, one_line
from m3col.judge import Fault, Strict, get, judge, lines, places, with_good_keys, with_value, without_keys
from tune import extra_rows, urls
from tune import space as spaces
from tune.resources import TrialResources, request_for, resource_faults
from tune.runs import Request, study_name

_BY_KEY = ("overrides", "space")  # mappings whose keys are dotted keys of the run
KEPT = ("search", "resources", "final", "storage", "tracking")  # sections that a study stores as they are


class ConfirmConfig(Strict):
    """The best `top` finished trials and the default run again on a new partition with `seeds` new seeds."""

    top: Count = 3
    seeds: Count = 2


class SearchSettings(Strict):
    """`trials`: points to try, the default among them; `time_budget_s`: seconds after which no trial goes on;
    `concurrency`: trials at a time, default: what the cluster holds; `replicates`: repeats of the default that measure
    the noise of a score; `grid_points`: values per range for the grid sampler."""

    sampler: Literal["tpe", "random", "gp", "grid"] = "tpe"
    pruner: Literal["asha", "median", "none"] = "asha"
    trials: Count = 30
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    concurrency: Count | None = None
    replicates: Annotated[int, Field(ge=0)] = 3
    confirm: ConfirmConfig | None = ConfirmConfig()
    grid_points: Annotated[int, Field(ge=2)] = 5
    seed: Seed = 0


class FinalConfig(Strict):
    """The test table: `seeds` refits of each row; `rows`: name -> config overrides, beside winner and default;
    `published`: metric -> row -> published value; `optimistic`: the best test epoch as an extra column."""

    refit: Literal["full", "given"] = "full"
    seeds: Count = 3
    rows: dict[str, dict[str, Any]] = Field(default={})
    baselines: bool = True
    published: dict[str, dict[str, float]] = Field(default={})
    optimistic: bool = False
    draws: Annotated[int, Field(ge=100)] = 2000


class TrackingConfig(Strict):
    """`uri`: MLflow tracking URI, default: SQLite in the runs folder; `none` switches tracking off."""

    uri: str | None = None
    experiment: str | None = None
    log_ids: bool = False


class StorageConfig(Strict):
    """Where a study's files and its database are, beside the runs folder of the driver.

    `uri`: s3://bucket/prefix or a folder that every machine sees; checkpoints and a copy of the record go below it,
    into a folder of the study's name. `database`: SQLAlchemy URL of the Optuna study, default: SQLite in the study's
    folder. `patience_s`: how long a write that fails is tried again before the search stops.
    """

    uri: str | None = None
    database: str | None = None
    patience_s: NotNegative = 300.0

    def of(self, study: str) -> str | None:
        """The URI of one study's files, None where its folder is all there is."""
        return None if self.uri is None else f"{self.uri.rstrip('/')}/{study}"


class SearchConfig(Strict):
    """`base`: a run config by name or path, changed by `overrides`. `datasets`, `methods`: one study per pair."""

    base: str = "digits"
    overrides: dict[str, Any] = Field(default={})
    datasets: list[str] = Field(default=[])
    methods: list[str] = Field(default=[])
    space: dict[str, Any] = Field(default={})
    search: SearchSettings = SearchSettings()
    validation: ValidationConfig = ValidationConfig()
    resources: TrialResources = TrialResources()
    final: FinalConfig = FinalConfig()
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()


@dataclass(frozen=True)
class StudyConfig:
    """One study: one data set, one method. `rows` are whole configs; the rows "default" and "winner" are implied."""

    name: str
    run: RunConfig
    space: Mapping[str, BaseDistribution]
    raw_space: Mapping[str, Any]
    rows: Mapping[str, RunConfig]
    settings: SearchConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain values for study.json; `study_from_dict` takes them back."""
        kept = self.settings.model_dump(include=set(KEPT))
        return {"name": self.name, "run": self.run.to_dict(), "space": dict(self.raw_space),
                "rows": {name: row.to_dict() for name, row in self.rows.items()}, **kept}  # fmt: skip

    @property
    def request(self) -> Request:
        """What each run of this study asks of the cluster."""
        return request_for(self.settings.resources, self.run)

    def point(self, params: Mapping[str, Any], *, seed: int | None = None, split_seed: int | None = None) -> RunConfig:
        """The run config of one point of the space."""
        return reseeded(self.run.with_overrides(dict(params)), seed=seed, split_seed=split_seed)


def reseeded(config: RunConfig, *, seed: int | None = None, split_seed: int | None = None) -> RunConfig:
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["train.seed"] = seed
    if split_seed is not None:
        changes["validation.seed"] = split_seed
    return config.with_overrides(changes) if changes else config


@dataclass(frozen=True)
class Sketch:
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

    Raises BadInput with every fault of file, base config, space and rows.
    """
    sketches, faults = draft(source, overrides=overrides, in_memory=in_memory)
    if faults:
        raise BadInput(faults)
    return [sketch.study for sketch in sketches]


def draft(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> tuple[list[Sketch], list[str]]:
    """The studies of a search and all faults. Raises BadInput only where the file cannot be read."""
    if isinstance(source, Mapping):
        raw, place, name = dict(source), "config", "search"
    else:
        path = run_config.find(source, "search")
        raw, place, name = yamlio.read(path), str(path), path.stem
    own, for_runs = _sort_overrides(overrides or {})
    raw, found = with_good_keys(run_config.join(raw, own, by_name=_BY_KEY))
    settings, of_types = judge(SearchConfig, urls.usable(raw))
    who = places(place, ("overrides", own))
    faults = lines([*found, *map(_explained, of_types)], who) + urls.faults(raw, who)
    if in_memory:
        for_runs.setdefault("data.name", run_config.IN_MEMORY)
    given = _Given(raw, settings or SearchConfig(), own, for_runs, place, name)
    faults += _space_faults(given)
    sketches: list[Sketch] = []
    for base, dataset, method in _pairs(raw):
        try:
            sketch, more = _study(given, base, dataset=dataset, method=method)
        except BadInput as error:
            more = list(error.faults)
        else:
            sketches.append(sketch)
        faults += more
    faults += _twin_faults([sketch.study.name for sketch in sketches], where=place)
    return sketches, list(map(one_line, dict.fromkeys(faults)))


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
    kinds = {str(method).partition(":")[0] for method in wanted} & set(methods.names())
    ignored = [key for key in raw_space if kinds and all(key in methods.ignored_keys(kind) for kind in kinds)]
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


def _study(given: _Given, base: str, *, dataset: str | None, method: str | None) -> tuple[Sketch, list[str]]:
    raw, where = given.raw, given.where
    run = _base_run(given, base, method, key="base" if dataset is None else "datasets")
    faults, config = list(run.faults), run.config
    raw_space = raw.get("space", {})
    raw_space = dict(raw_space) if isinstance(raw_space, Mapping) else {}
    if method is not None:
        raw_space = {k: v for k, v in raw_space.items() if k not in methods.ignored_keys(config.method)}
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
    return Sketch(study, run.faulty, run.place, where), faults


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


def _base_run(given: _Given, base: str, method: str | None, *, key: str) -> run_config.Draft:
    """The run config of a study, judged. Raises BadInput where there is no such file or no such method."""
    path = run_config.find(base, "train", where=f"{given.where}: {key}")
    raw = yamlio.read(path)
    # A search needs a validation part; a published setting usually has none.
    if get(raw, "validation.kind") == "none":
        raw = without_keys(raw, frozenset({"validation.kind"}))
    below = dict(extra_rows.dotted(given.raw.get("overrides", {})))
    validation = {f"validation.{k}": v for k, v in extra_rows.dotted(given.raw.get("validation", {}))}
    changes = {**below, **given.for_runs, **validation}
    from_method: dict[str, Any] = {}
    if method is not None:
        kind, _, modality = method.partition(":")
        if kind not in methods.TABLE:
            raise BadInput([f"{given.where}: methods: {kind!r} is unknown{nearest(kind, methods.names())}"])
        raw = without_keys({**raw, "method": kind}, methods.ignored_keys(kind))
        changes = {k: v for k, v in changes.items() if k not in methods.ignored_keys(kind) and k != "method"}
        from_method = {"method": kind, **({"data.modalities": [modality]} if modality else {})}
    place = places(
        str(path),
        (f"{given.where}, overrides", below),
        (given.where, validation),
        ("overrides", [*given.for_runs, *given.own]),
        (f"{given.where}, methods", from_method),
    )
    return run_config.draft(raw, overrides={**changes, **from_method}, where=place)


def study_from_dict(found: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes. Raises BadInput where that is damaged."""
    try:
        return _study_from_dict(found)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BadInput([f"study.json: the config in it is damaged ({type(error).__name__}: {reason})"]) from None


def _study_from_dict(found: Mapping[str, Any]) -> StudyConfig:
    run = run_config.load_stored(found["run"], where="study.json")
    settings = SearchConfig.model_validate({k: found[k] for k in KEPT})
    space: dict[str, BaseDistribution] = {}
    if found["space"]:
        space, faults = spaces.parse(found["space"], run, where="study.json")
        if faults:
            raise BadInput(faults)
    rows = {name: run_config.load_stored(row, where="study.json") for name, row in found["rows"].items()}
    return StudyConfig(found["name"], run, space, found["space"], rows, settings)


def stored(found: Mapping[str, Any], overrides: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes, with search settings replaced. Raises BadInput."""
    own, for_runs = _sort_overrides(overrides)
    faults = [
        f"{path}: a resumed study keeps its config; only {', '.join(KEPT)} can be given"
        for path in [*own, *for_runs]
        if path.partition(".")[0] not in KEPT and path != "data.dir"
    ]
    raw = run_config.join(found, {path: value for path, value in own.items() if path.partition(".")[0] in KEPT})
    _, more = judge(SearchConfig, {key: raw[key] for key in KEPT if key in raw})
    faults += lines(more, "overrides")
    faults += urls.faults(raw, lambda key: "overrides")
    if faults:
        raise BadInput(faults)
    if "data.dir" in for_runs:
        raw = with_value(raw, "run.data.dir", for_runs["data.dir"])
    study = study_from_dict(raw)
    faults = _resource_faults(study.settings.resources, [study.run, *study.rows.values()], where="overrides")
    if faults:
        raise BadInput(faults)
    return study
