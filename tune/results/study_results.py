"""The files of a finished study, read once for tables, summary and plots."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from m3col.errors import InputError
from m3col.evaluation.epoch_metrics import window
from m3col.metrics.spec import higher_is_better
from m3col.storage import atomic_files
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from tune.config.schema import StudyConfig
from tune.results import failure_reasons, prediction_table
from tune.scheduling import selection
from tune.scheduling.optuna_study import Trials
from tune.scheduling.plan import Plan
from tune.study import record
from tune.study.record import StudyFolder
from tune.study.run_messages import RunOutcome
from tune.study.run_name import CONFIRMATIONS, REPLICATES, TRIALS, RunName

WINNER, DEFAULT, ENSEMBLE = "winner", "default", "ensemble"


@dataclass(frozen=True)
class StudyResults:
    """A finished study.

    Attributes:
        folder: the study's folder.
        described: content of study.json.
        config: the study's config.
        plan: the stages of the study.
        trials: all trials.
        scored: the finished trials.
        default: number of the default's trial.
        noise: spread of a score over seeds; None if it was not measured.
        decision: the winner; None if no trial finished.
        outcomes: result.json of every run that has one, by name.
        predictions: the table of predictions.
    """

    folder: StudyFolder
    described: Mapping[str, Any]
    config: StudyConfig
    plan: Plan
    trials: tuple[FrozenTrial, ...]
    scored: tuple[selection.Scored, ...]
    default: int
    noise: selection.Noise | None
    decision: selection.Decision | None
    outcomes: Mapping[str, RunOutcome]
    predictions: pd.DataFrame = field(repr=False)

    @classmethod
    def read(cls, folder: StudyFolder) -> "StudyResults":
        """Reads a study. Raises InputError if it is not finished, or has a newer format."""
        if not (folder.path / record.PREDICTIONS_FILE).exists() and not any(folder.path.glob("trials/*")):
            prediction_table.read(folder)  # raises; opening the storage below would create a database
        config = folder.config()
        plan = Plan(folder, config, _opened(folder, config))
        scored = tuple(plan.scored())
        if not scored and not (folder.path / record.PREDICTIONS_FILE).exists():
            raise InputError([failure_reasons.no_winner(plan)])
        predictions = prediction_table.read(folder)
        return cls._of(folder, plan, predictions, plan.decide() if scored else None)

    @classmethod
    def unfinished(cls, folder: StudyFolder) -> "StudyResults | None":
        """Reads what is there of a study that has not ended, without predictions and winner.

        Returns:
            The study; None if no trial has begun.
        """
        if not any(folder.path.glob("trials/*")):  # opening the storage would create a database
            return None
        config = folder.config()
        plan = Plan(folder, config, _opened(folder, config))
        empty = pd.DataFrame(columns=prediction_table.columns(tasks.of(config.run, _classes(folder))))
        return cls._of(folder, plan, empty, None)

    @classmethod
    def _of(
        cls, folder: StudyFolder, plan: Plan, predictions: pd.DataFrame, decision: selection.Decision | None
    ) -> "StudyResults":
        outcomes = {name: result for name, run in folder.runs() if (result := run.outcome()) is not None}
        return cls(
            folder=folder,
            described=folder.described(),
            config=plan.config,
            plan=plan,
            trials=tuple(plan.trials.all()),
            scored=tuple(plan.scored()),
            default=plan.default(),
            noise=plan.noise(),
            decision=decision,
            outcomes=outcomes,
            predictions=predictions,
        )

    @property
    def metric(self) -> str:
        """The metric of the search, such as val/auroc."""
        return str(self.config.run.metric)

    @property
    def maximize(self) -> bool:
        return self.plan.trials.maximize

    @cached_property
    def task(self) -> Task:
        """The task of the study's models."""
        return tasks.of(self.config.run, self.described["dataset"]["classes"])

    @cached_property
    def declared(self) -> str:
        """The metric of the test table, without its split."""
        return prediction_table.declared(self.config.run, self.task)

    @property
    def winner_is_default(self) -> bool:
        return self.decision is not None and self.decision.winner == self.default

    @cached_property
    def replicates(self) -> list[float]:
        """Scores of the default with other seeds on the search's folds."""
        return [outcome.value for outcome in self.complete(REPLICATES).values() if outcome.value is not None]

    @cached_property
    def importances(self) -> dict[str, float]:
        """The share of variance that each setting explains (fANOVA), the largest first; empty if it has no meaning."""
        values = {trial.value for trial in self.trials if trial.state is TrialState.COMPLETE}
        if len({value for value in values if value is not None and math.isfinite(value)}) < 2 or not self.config.space:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            shares = optuna.importance.get_param_importances(
                self.plan.trials.study, evaluator=evaluator, params=list(self.config.space)
            )
        except (RuntimeError, ValueError):  # no parameter varies among the finished trials
            return {}
        return {name: share for name, share in shares.items() if math.isfinite(share)}

    def complete(self, stage: str, row: str = "") -> dict[str, RunOutcome]:
        """Returns the finished runs of a stage and row, by name; see `RunName`."""
        finished = {RunName.parse(name): outcome for name, outcome in self.outcomes.items() if outcome.is_complete}
        return {str(run): outcome for run, outcome in finished.items() if (run.stage, run.row) == (stage, row)}

    def deciding_runs(self, number: int) -> list[str]:
        """Returns the finished runs whose mean is the CV value of a trial: its confirmations, else its search run."""
        if self.decision is not None and self.decision.confirmed:
            return list(self.complete(CONFIRMATIONS, str(number)))
        return [name for name in self.complete(TRIALS) if name == str(RunName.trial(number))]

    def cv(self, number: int, metric: str) -> float:
        """Returns the CV value of a trial in any metric, averaged as the search value is; NaN without runs."""
        if self.decision is not None and metric == self.metric.partition("/")[2] and number in self.decision.values:
            return float(self.decision.values[number])
        scores = []
        for name in self.deciding_runs(number):
            history = self.folder.run(name).history()
            last = history[-window(len(history)) :]
            scores.append(np.mean([record["metrics"].get(f"val/{metric}", np.nan) for record in last]))
        return float(np.mean(scores)) if scores else float("nan")

    def confirmed(self, number: int) -> list[float]:
        """Returns the scores of a trial in its confirmation runs."""
        outcomes = self.complete(CONFIRMATIONS, str(number)).values()
        return [outcome.value for outcome in outcomes if outcome.value is not None]

    def count(self, state: TrialState) -> int:
        return sum(trial.state is state for trial in self.trials)

    @cached_property
    def test_labels(self) -> np.ndarray | None:
        """Labels [N] of the test samples, in the order of every refit's rows; None if they cannot be scored."""
        tests = self.predictions[self.predictions["kind"] == prediction_table.TEST]
        if tests.empty:
            return None
        labels = self.task.labels_of(tests[tests["job"] == tests["job"].iloc[0]])
        # A confidence interval needs at least two samples.
        return labels if labels is not None and len(labels) > 1 else None

    @cached_property
    def test_groups(self) -> np.ndarray | None:
        tests = self.predictions[self.predictions["kind"] == prediction_table.TEST]
        if tests.empty or "group" not in tests or tests["group"].isna().any():
            return None
        return tests[tests["job"] == tests["job"].iloc[0]]["group"].to_numpy(dtype=str)

    def test_probabilities(self, job: str) -> np.ndarray | None:
        """Returns predictions [N, C], such as probabilities, of one refit or baseline on the test samples."""
        rows = self._tests.get(job)
        return None if rows is None else self.task.link(self.task.outputs_of(rows))

    @cached_property
    def _tests(self) -> dict[str, pd.DataFrame]:
        tests = self.predictions[self.predictions["kind"] == prediction_table.TEST]
        return {str(job): rows for job, rows in tests.groupby("job", sort=False)}

    def task_of(self, jobs: Sequence[str]) -> Task:
        """Returns the task with what it chooses on the out-of-fold predictions of these jobs, such as thresholds.

        Where there are none (a row of the test table without validation), it is the task itself.
        """
        rows = self.predictions
        if not self.task.chooses:
            return self.task
        chosen = rows[rows["job"].isin(list(jobs)) & (rows["kind"] == prediction_table.OOF)]
        labels = None if chosen.empty else self.task.labels_of(chosen)
        return (
            self.task if labels is None else self.task.chosen([labels], [self.task.link(self.task.outputs_of(chosen))])
        )

    def baselines(self) -> list[str]:
        """Returns the rows of the baselines, in the order in which they were computed."""
        jobs = self.predictions["job"].unique()
        return [
            job.removeprefix(prediction_table.BASELINES) for job in jobs if job.startswith(prediction_table.BASELINES)
        ]

    def baseline_cv(self, row: str) -> dict[str, float]:
        rows = self.predictions
        chosen = rows[(rows["job"] == f"{prediction_table.BASELINES}{row}") & (rows["kind"] == prediction_table.OOF)]
        if chosen.empty:
            return dict.fromkeys(self.task.metrics, float("nan"))
        return prediction_table.cross_validated(chosen, self.task)

    @cached_property
    def best_baseline(self) -> str | None:
        """The row of the baseline with the best cross-validation, without the constant one; None if there is none.

        The test split has no part in this choice.
        """
        scores = {row: self.baseline_cv(row)[self.declared] for row in self.baselines()}
        scores.pop(self.task.constant_baseline, None)
        sign = 1 if higher_is_better(self.declared) else -1
        finite = {row: sign * value for row, value in scores.items() if np.isfinite(value)}
        return max(finite, key=lambda row: finite[row]) if finite else None

    def read_baseline_remarks(self) -> dict[str, Any]:
        """What was chosen for each baseline ("chosen"), and which are left out and why ("left_out")."""
        remarks: dict[str, Any] = atomic_files.read_json(self.folder.path / record.BASELINES_FILE, {})
        return remarks


def _opened(folder: StudyFolder, config: StudyConfig) -> Trials:
    return Trials(
        folder.storage(),
        name=folder.database_name(),
        settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)),
        space=config.space,
    )


def _classes(folder: StudyFolder) -> list[str]:
    return list(folder.described()["dataset"]["classes"])
