"""The typed config of a search: a base run config, a space over its paths, and how to look, prune and compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field

from m3col import config as run_config
from m3col import methods, yamlio
from m3col.config import Count, NotNegative, RunConfig, Seed, ValidationConfig
from m3col.faults import BadInput, nearest
from m3col.judge import Strict, flatten, get, judge, with_value, without_keys
from tune import space as spaces

SAMPLERS = ("tpe", "random", "gp", "grid")
PRUNERS = ("asha", "median", "none")


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


class TrialResources(Strict):
    """What one trial takes; `cpus_per_trial` defaults to the run config's `resources.threads`."""

    cpus_per_trial: Annotated[float, Field(gt=0)] | None = None
    gpus_per_trial: NotNegative = 0.0


class FinalConfig(Strict):
    """The test table: `seeds` refits of each row; `rows`: name -> config overrides, beside winner and default;
    `published`: metric -> row -> published value; `optimistic`: the best test epoch as an extra column."""

    refit: Literal["full", "given"] = "full"
    seeds: Count = 3
    rows: dict[str, dict[str, Any]] = {}
    baselines: bool = True
    published: dict[str, dict[str, float]] = {}
    optimistic: bool = False
    draws: Annotated[int, Field(ge=100)] = 2000


class TrackingConfig(Strict):
    """`uri`: MLflow tracking URI, default: SQLite in the runs folder; `none` switches tracking off."""

    uri: str | None = None
    experiment: str | None = None
    log_ids: bool = False


class SearchConfig(Strict):
    """`base`: a run config by name or path, changed by `overrides`. `datasets` and `methods` make one study per pair."""

    base: str = "digits"
    overrides: dict[str, Any] = {}
    datasets: list[str] = []
    methods: list[str] = []
    space: dict[str, Any] = {}
    search: SearchSettings = SearchSettings()
    validation: ValidationConfig = ValidationConfig()
    resources: TrialResources = TrialResources()
    final: FinalConfig = FinalConfig()
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
        kept = self.settings.model_dump(include={"search", "resources", "final", "tracking"})
        return {"name": self.name, "run": self.run.to_dict(), "space": dict(self.raw_space),
                "rows": {name: row.to_dict() for name, row in self.rows.items()}, **kept}  # fmt: skip

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


def load(
    source: str | Path | Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, in_memory: bool = False
) -> list[StudyConfig]:
    """The studies of a search. `overrides`: dotted paths of the search config or of the run config.

    Raises BadInput with every fault of file, base config, space and rows.
    """
    if isinstance(source, Mapping):
        raw, place, name = dict(source), "config", "search"
    else:
        path = run_config.find(source, "search")
        raw, place, name = yamlio.read(path), str(path), path.stem
    own, for_runs = _sort_overrides(overrides or {})
    raw = run_config.join(raw, own)
    settings, faults = judge(SearchConfig, raw, where=place)
    shared = {**dict(_dotted(raw.get("overrides", {}))), **for_runs}
    if in_memory:
        shared.setdefault("data.name", "arrays")
    studies: list[StudyConfig] = []
    for base, dataset, method in _pairs(raw):
        try:
            studies.append(_study(raw, settings, base, dataset=dataset, method=method, shared=shared, where=place, name=name))
        except BadInput as error:
            faults += [line for line in error.faults if line not in faults]
    if faults:
        raise BadInput(faults)
    return studies


def _dotted(section: Any) -> list[tuple[str, Any]]:
    return list(flatten(section)) if isinstance(section, Mapping) else []


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
    datasets = raw.get("datasets") or [None]
    wanted = raw.get("methods") or [None]
    if not isinstance(datasets, list) or not isinstance(wanted, list):
        return []
    base = raw.get("base", "digits")
    return [(dataset or base, dataset, method) for dataset in datasets for method in wanted]


def _study(
    raw: Mapping[str, Any], settings: SearchConfig | None, base: str, *, dataset: str | None, method: str | None,
    shared: Mapping[str, Any], where: str, name: str,
) -> StudyConfig:  # fmt: skip
    changes = {**shared, **{f"validation.{k}": v for k, v in (raw.get("validation") or {}).items()}}
    run = _base_run(base, method, changes, where=where)
    faults: list[str] = []
    raw_space = raw.get("space", {})
    if method is not None and isinstance(raw_space, Mapping):
        raw_space = {k: v for k, v in raw_space.items() if k not in methods.ignored_keys(run.method)}
    space: dict[str, BaseDistribution] = {}
    # A study may be its default alone: a published table, or one of several methods that has nothing to search.
    if raw_space or (method is None and get(raw, "search.trials") != 1):
        space, faults = spaces.parse(raw_space, run, where=where)
    rows, more = _rows(raw, run, where=where)
    faults += more
    if run.validation.kind == "none":
        faults.append(f"{where}: validation.kind must be kfold, holdout or given for a search, but got 'none'")
    if faults:
        raise BadInput(faults)
    title = "-".join([dataset or name, *([method.replace(":", "-")] if method else [])])
    return StudyConfig(title, run, space, dict(raw_space), rows, settings or SearchConfig())


def _base_run(base: str, method: str | None, changes: Mapping[str, Any], *, where: str) -> RunConfig:
    path = run_config.find(base, "train")
    raw = yamlio.read(path)
    # A search needs a validation part; a published setting usually has none.
    if get(raw, "validation.kind") == "none":
        raw = without_keys(raw, frozenset({"validation.kind"}))
    changes = dict(changes)
    if method is not None:
        kind, _, modality = method.partition(":")
        if kind not in methods.TABLE:
            raise BadInput([f"{where}: methods: {kind!r} is unknown{nearest(kind, methods.names())}"])
        raw = without_keys({**raw, "method": kind}, methods.ignored_keys(kind))
        changes = {k: v for k, v in changes.items() if k not in methods.ignored_keys(kind)}
        if modality:
            changes["data.modalities"] = [modality]
    return run_config.load(raw, overrides=changes, where=f"{where} (base {base})")


def _rows(raw: Mapping[str, Any], run: RunConfig, *, where: str) -> tuple[dict[str, RunConfig], list[str]]:
    rows: dict[str, RunConfig] = {}
    faults: list[str] = []
    wanted = get(raw, "final.rows", {})
    for name, overrides in (wanted or {}).items() if isinstance(wanted, Mapping) else ():
        if name in ("winner", "default", "ensemble"):
            faults.append(f"{where}: final.rows.{name}: this name is taken by a row of its own")
            continue
        try:
            rows[name] = run.with_overrides(dict(_dotted(overrides)))
        except BadInput as error:
            faults += [f"{where}: final.rows.{name}: {line.partition(': ')[2] or line}" for line in error.faults]
    return rows, faults


def study_from_dict(found: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes."""
    run = run_config.load(found["run"], where="study.json")
    settings = SearchConfig.model_validate({k: found[k] for k in ("search", "resources", "final", "tracking")})
    space: dict[str, BaseDistribution] = {}
    if found["space"]:
        space, faults = spaces.parse(found["space"], run, where="study.json")
        if faults:
            raise BadInput(faults)
    rows = {name: run_config.load(row, where="study.json") for name, row in found["rows"].items()}
    return StudyConfig(found["name"], run, space, found["space"], rows, settings)


def stored(found: Mapping[str, Any], overrides: Mapping[str, Any]) -> StudyConfig:
    """The study that a study.json describes, with search settings replaced. Raises BadInput."""
    settings = ("search", "resources", "final", "tracking")
    own, for_runs = _sort_overrides(overrides)
    faults = [
        f"{path}: a resumed study keeps its config; only {', '.join(settings)} can be given"
        for path in [*own, *for_runs]
        if path.partition(".")[0] not in settings and path != "data.dir"
    ]
    raw = run_config.join(found, {path: value for path, value in own.items() if not faults})
    _, more = judge(SearchConfig, {key: raw[key] for key in settings}, where="overrides")
    if faults or more:
        raise BadInput(faults + more)
    if "data.dir" in for_runs:
        raw = with_value(raw, "run.data.dir", for_runs["data.dir"])
    return study_from_dict(raw)
