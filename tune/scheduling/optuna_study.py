"""The Optuna study of a search: samplers, pruners and trials."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from m3col.storage.retry import RetryPolicy
from tune.config import sampler_rules
from tune.config.schema import POPULATION, SearchSettings
from tune.scheduling import cma

P = ParamSpec("P")

T = TypeVar("T")


ABANDONED = "abandoned"  # user attribute of a trial whose process was killed before it had all parameters

DEFAULT = "default"

FIRST_RUNG = 40  # smallest first rung, in percent of a trial's epochs

_REDUCTION = 2

_RUNG = "completed_rung_"

_STARTUP = 5  # finished trials before the median pruner acts


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def sampler(
    kind: str, seed: int, number: int, *, space: Mapping[str, BaseDistribution] | None = None,
    population: int = POPULATION,
) -> optuna.samplers.BaseSampler:  # fmt: skip
    """Returns the sampler for trial `number`, seeded by (seed, number).

    Each trial gets a new sampler: one that is seeded once would propose its first points again after a restart.

    Args:
        kind: as in `search.sampler`.
        seed: of the search.
        number: of the trial.
        space: distributions by config path; needed for cmaes.
        population: trials per generation of cmaes, nsga2 and nsga3.
    """
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=mixed, multivariate=True, group=True, constant_liar=True)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=mixed, deterministic_objective=False)
    if kind == "cmaes":
        return cma.ReplayedCmaSampler(seed=mixed, space=space or {}, population=population)
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=mixed, population_size=population)
    if kind == "nsga3":
        return optuna.samplers.NSGAIIISampler(seed=mixed, population_size=population)
    # Grid points are queued; if the queue is empty, random points follow.
    return optuna.samplers.RandomSampler(seed=mixed)


def first_rung(share: float) -> int:
    """Returns the first rung in percent of a trial's epochs: no trial is pruned before it.

    Args:
        share: share of the epochs before which scores of trials cannot be compared, e.g. the first phase of a method.
    """
    return min(max(FIRST_RUNG, 2 * math.floor(50 * share + 1)), 98)


def pruner(kind: str, rung: int = FIRST_RUNG) -> optuna.pruners.BasePruner:
    """Returns the pruner that a config names."""
    if kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=rung, reduction_factor=_REDUCTION, min_early_stopping_rate=0
        )
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=rung - 1)
    return optuna.pruners.NopPruner()


def _retrying(method: Callable[Concatenate["Trials", P], T]) -> Callable[Concatenate["Trials", P], T]:
    """Decorator: retries a method while the database fails. The method must be safe to call again."""

    @functools.wraps(method)
    def retrying(self: "Trials", *args: P.args, **named: P.kwargs) -> T:
        return self.retry_policy.call(lambda: method(self, *args, **named))

    return retrying


class Trials:
    """The trials of one study in Optuna's database. Only the driver uses it, from one thread.

    Args:
        storage: Optuna's storage.
        name: the study's name in the storage.
        settings: sampler, pruner and seed.
        maximize: whether higher values of the metric are better.
        metric: name of the objective, which optuna-dashboard shows; "": no name.
        space: distributions by config path.
        rung: percentage of a trial's epochs before which nothing is pruned.
        retry_policy: how long methods retry while the database refuses; default: not at all.

    Raises:
        StorageUnavailable: the database failed for longer. Every method may raise it.
    """

    def __init__(
        self, storage: optuna.storages.BaseStorage, *, name: str, settings: SearchSettings, maximize: bool,
        space: Mapping[str, BaseDistribution], metric: str = "", rung: int = FIRST_RUNG,
        retry_policy: RetryPolicy | None = None,
    ) -> None:  # fmt: skip
        quiet()
        self.retry_policy = (retry_policy or RetryPolicy(0)).also(optuna.exceptions.StorageInternalError, DBAPIError)
        self._rung = rung
        self.storage, self.settings, self.space = storage, settings, dict(space)
        self.study = self.retry_policy.call(
            lambda: optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if maximize else "minimize",
                pruner=pruner(settings.pruner, rung),
                load_if_exists=True,
            )
        )
        if metric and self.study.metric_names != [metric]:
            self.retry_policy.call(lambda: self.study.set_metric_names([metric]))
        self.maximize = maximize
        # Caches: only this process writes to the study, and reading a running trial is as slow as a report.
        self._ids: dict[int, int] = {}
        self._reported: dict[int, set[int]] = {}

    @_retrying
    def all(self) -> list[FrozenTrial]:
        """Returns all trials except queued ones and those that lost their parameters in a crash."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state is not TrialState.WAITING and ABANDONED not in t.user_attrs]

    def running(self) -> list[FrozenTrial]:
        return [trial for trial in self.all() if trial.state is TrialState.RUNNING]

    @_retrying
    def get(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        return self._ids[number]

    @_retrying
    def enqueue_first(self, points: list[dict[str, Any]]) -> None:
        """Queues the default (the first point) and, for a grid, all other points. Queues each point only once."""
        keys = {_key(t.params or t.system_attrs.get("fixed_params", {})) for t in self.study.get_trials(deepcopy=False)}
        for number, point in enumerate(points):
            if _key(point) not in keys:
                keys.add(_key(point))
                self.study.enqueue_trial(point, user_attrs={DEFAULT: True} if number == 0 else None)

    @_retrying
    def requeue_incomplete(self) -> None:
        """Fails running trials that lack parameters, as after a crash, and queues their points again.

        The trial is failed last, so that a second call repeats the steps if the first one was interrupted.
        """
        trials = self.study.get_trials(deepcopy=False)
        queued = [_fixed(trial) for trial in trials if trial.state is TrialState.WAITING]
        for trial in trials:
            if trial.state is not TrialState.RUNNING or set(trial.params) == set(self.space):
                continue
            self.storage.set_trial_user_attr(trial._trial_id, ABANDONED, True)
            fixed = _fixed(trial)
            if fixed is not None and fixed not in queued:
                attrs = {DEFAULT: True} if trial.user_attrs.get(DEFAULT) else None
                self.study.enqueue_trial(fixed, user_attrs=attrs)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def pruned_but_unrecorded(self) -> list[int]:
        """Returns running trials that the pruner rejected at a rung, but whose driver died before it recorded that.

        Optuna marks a rung as completed before it returns its decision, and does not decide on the rung again.
        """
        if self.settings.pruner != "asha":
            return []
        rejected = []
        for trial in self.running():
            rungs = [key for key in trial.system_attrs if key.startswith(_RUNG)]
            if not rungs or trial.user_attrs.get(DEFAULT):
                continue
            last_rung = max(rungs)
            threshold = self._rung * _REDUCTION ** int(last_rung.removeprefix(_RUNG))
            steps = [step for step in trial.intermediate_values if step >= threshold]
            values = sorted(t.system_attrs[last_rung] for t in self.all() if last_rung in t.system_attrs)
            kept = max(len(values) // _REDUCTION, 1)
            survivors = values[-kept:] if self.maximize else values[:kept]
            if len(steps) == 1 and trial.system_attrs[last_rung] not in survivors:
                rejected.append(trial.number)
        return rejected

    def ask(self) -> FrozenTrial:
        """Returns a new trial with all its parameters."""
        numbers = {trial.number for trial in self.all()}

        def again() -> FrozenTrial:
            """Returns the trial that the failed call created, if it has all parameters, else a new one."""
            self.requeue_incomplete()
            complete = [trial for trial in self.running() if trial.number not in numbers]
            return complete[0] if complete else self._ask(len(self.all()))

        return self.retry_policy.call(lambda: self._ask(len(numbers)), again=again)

    def _ask(self, count: int) -> FrozenTrial:
        settings = self.settings
        self.study.sampler = sampler(
            settings.sampler, settings.seed, count, space=self.space,
            population=sampler_rules.population(settings, max(1, len(self.space))),
        )  # fmt: skip
        trial = self.study.ask(self.space)
        return self.get(trial.number)

    @_retrying
    def report(self, number: int, step: int, value: float) -> None:
        """Stores an intermediate value. The value of an existing step is kept."""
        if number not in self._reported:
            self._reported[number] = set(self.get(number).intermediate_values)
        if step not in self._reported[number]:
            self.storage.set_trial_intermediate_value(self._id(number), step, value)
            self._reported[number].add(step)

    def should_prune(self, number: int) -> bool:
        """Whether the pruner stops a trial at its last reported step. The default trial is compared with the others,
        but never pruned itself."""
        if self.settings.pruner == "none" or max(self._reported.get(number, ()), default=self._rung) < self._rung:
            return False  # no pruner acts before the first rung
        trial = self.get(number)
        if trial.user_attrs.get(DEFAULT, False):
            self.retry_policy.call(lambda: self.study.pruner.prune(self.study, trial))
            return False

        def ask(snapshot: FrozenTrial) -> bool:
            return self.study.pruner.prune(self.study, snapshot)

        # Optuna decides on a rung only once, so the decision of a failed call must be read from the database.
        return self.retry_policy.call(
            lambda: ask(trial), again=lambda: ask(self.get(number)) or number in self.pruned_but_unrecorded()
        )

    @_retrying
    def complete(self, number: int, value: float, loss: float | None) -> None:
        trial = self.get(number)
        if trial.state.is_finished():
            return
        self.storage.set_trial_user_attr(trial._trial_id, "val/loss", loss)
        self.study.tell(number, value)

    @_retrying
    def prune(self, number: int) -> None:
        if not self.get(number).state.is_finished():
            self.study.tell(number, state=TrialState.PRUNED)

    @_retrying
    def fail(self, number: int, reason: str) -> None:
        trial = self.get(number)
        if not trial.state.is_finished():
            self.storage.set_trial_user_attr(trial._trial_id, "failure", reason[:1000])
            self.study.tell(number, state=TrialState.FAIL)

    def add_seconds(self, seconds: float) -> None:
        """Adds to the time spent on trials, which counts for the time budget across restarts."""
        total = self.seconds() + seconds
        self.retry_policy.call(lambda: self.study.set_user_attr("seconds", total))

    @_retrying
    def seconds(self) -> float:
        return float(self.study.user_attrs.get("seconds", 0.0))


def _fixed(trial: FrozenTrial) -> dict[str, Any] | None:
    """Returns the point with which a trial was queued, None if it was not queued."""
    params: dict[str, Any] | None = trial.system_attrs.get("fixed_params")
    return params


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items(), key=lambda item: item[0]))
