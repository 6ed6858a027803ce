"""The typed sections of a search config: type, default and allowed values of each setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, field_validator

from m3col.config.keys import Strict
from m3col.config.loading import with_overrides
from m3col.config.schema import Count, NotNegative, RunConfig, Seed, ValidationConfig
from m3col.evaluation import baseline_table
from tune.config.resources import Request, TrialResources, request_for

POPULATION = 10  # trials per generation of nsga2 and nsga3, unless search.population says otherwise

KEPT = ("search", "resources", "final", "storage", "tracking")  # sections that study.json stores unchanged


class ConfirmConfig(Strict):
    """Confirmation runs: the best `top` finished trials and the default, on a new partition with `seeds` new seeds."""

    top: Count = 3
    seeds: Count = 2


class SearchSettings(Strict):
    """How the search samples, prunes and repeats trials.

    Attributes:
        trials: number of trials, including the default.
        time_budget_s: seconds after which running trials are stopped and no new one starts.
        concurrency: number of trials at a time. Default: as many as fit on the cluster.
        replicates: repeats of the default with other seeds, which measure the noise of a score.
        confirm: the confirmation of the best trials; None: no confirmation.
        grid_points: values per range for the grid sampler.
        population: trials per generation of the samplers cmaes, nsga2 and nsga3. Default: 4 + 3 ln n for cmaes with n
            parameters, else 10.
        null: how often the whole procedure is run again on permuted labels, to see what it reaches by chance. The
            search is then a tree of studies, see `OuterConfig`.
    """

    sampler: Literal["tpe", "random", "gp", "grid", "cmaes", "nsga2", "nsga3"] = "tpe"
    pruner: Literal["asha", "median", "none"] = "asha"
    trials: Count = 30
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    concurrency: Count | None = None
    replicates: Annotated[int, Field(ge=0)] = 3
    confirm: ConfirmConfig | None = ConfirmConfig()
    grid_points: Annotated[int, Field(ge=2)] = 5
    population: Annotated[int, Field(ge=2)] | None = None
    null: Annotated[int, Field(ge=0)] = 0
    seed: Seed = 0


class FinalConfig(Strict):
    """The test table.

    Attributes:
        refit: "full": refits train for all epochs; "given": they keep the epoch that is best on the given validation
            split.
        seeds: number of refits per row.
        rows: name -> config overrides of rows in addition to winner and default.
        baselines: true: all baselines that are installed and quick; false: none; a list: these families, however long
            they take.
        published: metric -> row -> published value.
        remarks: sentences that are printed under the table, such as what a published value was computed from.
        optimistic: whether the best test epoch is an extra column and, for methods whose predictions come from a linear
            classifier on their embeddings, the linear evaluations of published code are more of them.
        draws: number of bootstrap draws for intervals.
    """

    refit: Literal["full", "given"] = "full"
    seeds: Count = 3
    rows: dict[str, dict[str, Any]] = Field(default={})
    baselines: bool | list[str] = True
    published: dict[str, dict[str, float]] = Field(default={})
    remarks: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    optimistic: bool = False
    draws: Annotated[int, Field(ge=100)] = 2000

    @field_validator("baselines")
    @classmethod
    def _known(cls, value: bool | list[str]) -> bool | list[str]:
        if faults := baseline_table.faults(value):
            raise ValueError("; ".join(faults))
        return value


class TrackingConfig(Strict):
    """`uri`: MLflow tracking URI, default: SQLite in the runs folder; `none` switches tracking off."""

    uri: str | None = None
    experiment: str | None = None
    log_ids: bool = False


class StorageConfig(Strict):
    """Where a study's files and database are stored, in addition to the driver's runs folder.

    Attributes:
        uri: s3://bucket/prefix, or a folder that every machine sees. Checkpoints and a copy of the study's record are
            stored below it, in a folder with the study's name.
        database: SQLAlchemy URL of the Optuna study. Default: SQLite in the study's folder.
        patience_s: seconds for which a failed write is retried before the search stops.
    """

    uri: str | None = None
    database: str | None = None
    patience_s: NotNegative = 300.0

    def of(self, study: str) -> str | None:
        """Returns the URI of one study's files; None without `uri`."""
        return None if self.uri is None else f"{self.uri.rstrip('/')}/{study}"


class OuterConfig(Strict):
    """Several outer splits: the whole procedure is run once on each, see m3col.data.resplits.

    Attributes:
        kind: "resplit": `folds` times `repeats` random divisions of all labelled samples, with the data set's own share
            of test samples. "kfold": cross-validation with `folds` folds, `repeats` times. "given": the data set's own
            test split alone.
        folds: see `kind`; without labelled test samples a random division tests 1 / `folds` of the samples.
        repeats: see `kind`; a resumed search may have more.
        seed: seed of the divisions.
        groups: a column of a numeric table whose values are kept together; None: the groups of the data set.
        reference: the row with which all others are compared: winner, default, ensemble or one of `final.rows`.
        deliver: whether a last study with all samples as training samples delivers a model.
    """

    kind: Literal["resplit", "kfold", "given"] = "resplit"
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Count = 2
    seed: Seed = 0
    groups: str | None = None
    reference: str = "winner"
    deliver: bool = False

    @property
    def count(self) -> int:
        """J, the number of outer splits."""
        return 1 if self.kind == "given" else self.folds * self.repeats

    def division(self, index: int) -> dict[str, Any] | None:
        """Returns the section `data.resplit` of the runs on one outer split; None for the data set's own."""
        if self.kind == "given":
            return None
        shared = {"kind": self.kind, "folds": self.folds, "seed": self.seed, "groups": self.groups}
        return {**shared, "index": index}


class SearchConfig(Strict):
    """A search. `base`: name or path of a run config, to which `overrides` apply. One study per pair of `datasets` and
    `methods`; with `outer` one tree of studies per pair. `space`: ranges by config key; a file may have a name in its
    place, see `tune.config.named_spaces`."""

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
    outer: OuterConfig | None = None


@dataclass(frozen=True)
class StudyConfig:
    """One study: one data set and one method. `rows`: full run configs of the extra rows of the test table."""

    name: str
    run: RunConfig
    space: Mapping[str, BaseDistribution]
    raw_space: Mapping[str, Any]
    rows: Mapping[str, RunConfig]
    settings: SearchConfig

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for study.json; `study_from_dict` reads them."""
        kept = self.settings.model_dump(include=set(KEPT))
        return {"name": self.name, "run": self.run.to_dict(), "space": dict(self.raw_space),
                "rows": {name: row.to_dict() for name, row in self.rows.items()}, **kept}  # fmt: skip

    @property
    def searches(self) -> bool:
        """Whether there is more than the default to try."""
        return bool(self.space) and self.settings.search.trials > 1

    @property
    def request(self) -> Request:
        """The resources that each run of this study requests."""
        return request_for(self.settings.resources, self.run)

    def point(self, params: Mapping[str, Any], *, seed: int | None = None, split_seed: int | None = None) -> RunConfig:
        """Returns the run config of one point of the search space."""
        return reseeded(with_overrides(self.run, dict(params)), seed=seed, split_seed=split_seed)


def reseeded(config: RunConfig, *, seed: int | None = None, split_seed: int | None = None) -> RunConfig:
    """Returns the config with another `train.seed` or `validation.seed`."""
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["train.seed"] = seed
    if split_seed is not None:
        changes["validation.seed"] = split_seed
    return with_overrides(config, changes) if changes else config


def slug(name: str) -> str:
    """Returns a row's name as a folder name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name.strip()).lstrip(".") or "_"
