"""The typed sections of a search config. Each knob stands here once: type, default, allowed values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field

from m3col.config.keys import Strict
from m3col.config.loading import with_overrides
from m3col.config.schema import Count, NotNegative, RunConfig, Seed, ValidationConfig
from tune.config.resources import Request, TrialResources, request_for

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
        return reseeded(with_overrides(self.run, dict(params)), seed=seed, split_seed=split_seed)


def reseeded(config: RunConfig, *, seed: int | None = None, split_seed: int | None = None) -> RunConfig:
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["train.seed"] = seed
    if split_seed is not None:
        changes["validation.seed"] = split_seed
    return with_overrides(config, changes) if changes else config


def slug(name: str) -> str:
    """A row's name as a folder name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name.strip()).lstrip(".") or "_"
