"""The test table (PROTOCOL 6): scores of all rows with intervals, and differences from the default."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import intervals, spec
from m3col.metrics.intervals import Interval
from m3col.tasks.base import Task
from tune.config.schema import slug
from tune.results import optimistic, prediction_table
from tune.results.formatting import EMPTY, is_percent, p_value, shown
from tune.results.study_results import DEFAULT, ENSEMBLE, WINNER, StudyResults
from tune.study.run_name import REFITS, RunName

COLUMNS = (
    "row", "label", "metric", "cv", "test", "sd_seeds", "low", "high", "difference", "difference_low",
    "difference_high", "p", "p_holm", "smallest_visible", "over_baseline", "over_baseline_low", "over_baseline_high",
    "published", "optimistic", "seeds", "samples", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row before it is scored.

    Attributes:
        key: the row's name.
        label: the name that the table shows.
        jobs: its finished models by seed.
        trial: number of the trial whose CV value is shown.
        single: whether it is one model without seeds (a baseline or the ensemble), which is compared with each seed of
            the default.
        note: a remark below the table.
    """

    key: str
    label: str
    jobs: dict[int, str] = field(default_factory=dict)
    trial: int | None = None
    single: bool = False
    note: str = ""

    @property
    def trained(self) -> bool:
        """Whether its models are refits, which have epochs and seeds."""
        return not self.single and bool(self.jobs)


def rows(results: StudyResults) -> list[Row]:
    """Returns the rows: winner, default, extra rows, ensemble, baselines, and rows with published values only."""
    decision = results.decision
    table_rows: list[Row] = []
    if decision is not None:
        same = results.winner_is_default
        label = "winner (= default)" if same else f"winner (trial {decision.winner})"
        table_rows.append(_refitted(results, WINNER, label, decision.winner))
        if not same:
            table_rows.append(_refitted(results, DEFAULT, DEFAULT, results.default))
        table_rows += [_refitted(results, name, name, None) for name in results.config.rows]
        members = table_rows[0].jobs
        if members:
            seeds = results.config.settings.final.seeds
            note = "" if len(members) == seeds else f"{len(members)} of {seeds} members"
            table_rows.append(
                Row(ENSEMBLE, f"ensemble of the winner's {len(members)} models", members, None, True, note)
            )
    table_rows += [
        Row(name, name, {0: f"{prediction_table.BASELINES}{name}"}, None, True) for name in results.baselines()
    ]
    names = {row.key for row in table_rows} | {DEFAULT}
    for values in results.config.settings.final.published.values():
        for name in values:
            if name not in names:
                names.add(name)
                table_rows.append(Row(name, name, single=True, note="published only"))
    return table_rows


def _refitted(results: StudyResults, key: str, label: str, trial: int | None) -> Row:
    jobs: dict[int, str] = {}
    faults: list[str] = []
    for seed in range(results.config.settings.final.seeds):
        name = str(RunName(REFITS, slug(key), seed))
        outcome = results.outcomes.get(name)
        if outcome is not None and outcome.is_complete:
            jobs[seed] = name
        else:
            faults.append("it was not run" if outcome is None else str(outcome.failure))
    seeds = results.config.settings.final.seeds
    note = f"{len(faults)} of {seeds} refits failed: {'; '.join(dict.fromkeys(faults))}" if faults else ""
    return Row(key, label, jobs, trial, False, note)


@dataclass(frozen=True)
class _Scored:
    """Scores by seed, and their bootstrap scores [B] by seed."""

    scores: dict[int, float]
    boots: dict[int, np.ndarray]


def all_metrics(results: StudyResults) -> pd.DataFrame:
    """Returns every metric of every row in long form, the declared metric first; see COLUMNS.

    Columns of published linear evaluations (m3col.evaluation.published_probes) follow where they were computed.

    Values are fractions, not percent. `difference` is row minus default, paired by seed and by bootstrap draw;
    `over_baseline` is row minus the baseline with the best cross-validation. `p_holm` is computed for the declared
    metric only, over the trained rows, the ensemble and that baseline.
    """
    order = [results.declared, *(name for name in results.task.metrics if name != results.declared)]
    compared = rows(results)
    probabilities = {row.key: _probabilities(results, row) for row in compared}
    row_tasks = {row.key: results.task_of(_validated(results, row)) for row in compared}
    counts = None
    if results.test_labels is not None:
        draws = results.config.settings.final.draws
        strata = results.task.bootstrap_strata(results.test_labels)
        counts = intervals.bootstrap_counts(strata, draws=draws, groups=results.test_groups)
    looks = optimistic.candidates(results, {row.key: [*row.jobs.values()] for row in compared if row.trained})
    seen = dict.fromkeys([*COLUMNS, *sorted(looks)])
    lines: list[dict[str, Any]] = []
    for metric in order:
        scored = {
            key: _score(row_tasks[key], results.test_labels, metric, models, counts)
            for key, models in probabilities.items()
        }
        best: dict[str, dict[str, float]] = {}
        if results.test_labels is not None:
            # Published code predicts a label from a probability of 0.5, whatever threshold a row has.
            best = optimistic.scores(
                looks, metric, results.test_labels,
                lambda column, row: row_tasks[row] if column == optimistic.EPOCH else results.task,
            )  # fmt: skip
        lines += _lines(results, metric, compared, scored, best)
    return pd.DataFrame(lines, columns=list(seen))


def declared_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the lines of `all_metrics` for the declared metric."""
    if table.empty:
        return table
    return table[table["metric"] == table["metric"].iloc[0]].reset_index(drop=True)


def _probabilities(results: StudyResults, row: Row) -> dict[int, np.ndarray]:
    """Returns the test predictions [N, C] of a row's models by seed; of the ensemble their mean."""
    if results.test_labels is None:
        return {}
    optional = {seed: results.test_probabilities(job) for seed, job in row.jobs.items()}
    by_seed = {seed: value for seed, value in optional.items() if value is not None}
    if row.key == ENSEMBLE and by_seed:
        return {0: np.mean(list(by_seed.values()), axis=0)}
    return by_seed


def _validated(results: StudyResults, row: Row) -> list[str]:
    """Returns the jobs whose out-of-fold predictions belong to a row: of its trial, or of its baseline."""
    trial = results.decision.winner if row.key == ENSEMBLE and results.decision is not None else row.trial
    return list(row.jobs.values()) if trial is None else results.deciding_runs(trial)


def _score(
    task: Task, labels: np.ndarray | None, metric: str, models: dict[int, np.ndarray], counts: np.ndarray | None
) -> _Scored:
    if labels is None or counts is None:
        return _Scored({}, {})
    return _Scored(
        {seed: task.score(metric, labels, value) for seed, value in models.items()},
        {seed: task.bootstrap_scores(metric, labels, value, counts) for seed, value in models.items()},
    )


def _lines(
    results: StudyResults,
    metric: str,
    compared: Sequence[Row],
    scored: dict[str, _Scored],
    best: dict[str, dict[str, float]],
) -> list[dict[str, Any]]:
    baseline_row = WINNER if results.winner_is_default else DEFAULT
    samples = _units(results)
    lines = []
    for row in compared:
        own, other = scored[row.key], scored.get(baseline_row, _Scored({}, {}))
        line: dict[str, Any] = {"row": row.key, "label": row.label, "metric": metric, "note": row.note}
        line["cv"] = _cv(results, row, metric)
        line["published"] = _published(results, row, metric)
        line[optimistic.EPOCH] = float("nan")
        line |= {column: by_row.get(row.key, float("nan")) for column, by_row in best.items()}
        line |= {"seeds": len(own.scores), "samples": samples}
        if own.scores:
            line |= _absolute(own, samples)
        if row.key != baseline_row:
            difference = _difference(own, other, single=row.single, samples=samples)
            if difference is not None:
                line |= _relative(difference)
        best_row = results.best_baseline
        if best_row is not None and row.key != best_row:
            line |= _over_baseline(own, scored[best_row], samples)
        lines.append(line)
    if metric == results.declared:
        # The many baselines are there for orientation: only the best one is a claim that needs a corrected p.
        others = {*results.baselines()} - {results.best_baseline}
        adjusted = intervals.holm([np.nan if line["row"] in others else line.get("p", np.nan) for line in lines])
        for line, value in zip(lines, adjusted, strict=True):
            line["p_holm"] = value
    return lines


def _units(results: StudyResults) -> int:
    labels, groups = results.test_labels, results.test_groups
    if labels is None:
        return 0
    return len(labels) if groups is None else len(np.unique(groups))


def _absolute(own: _Scored, samples: int) -> dict[str, float]:
    values = list(own.scores.values())
    interval = intervals.interval(values, np.stack(list(own.boots.values())), samples)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return {"test": interval.estimate, "low": interval.low, "high": interval.high, "sd_seeds": spread}


def _relative(interval: Interval) -> dict[str, float]:
    return {
        "difference": interval.estimate,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "p": interval.p_value,
        "smallest_visible": interval.smallest_visible,
    }


def _over_baseline(own: _Scored, baseline: _Scored, samples: int) -> dict[str, float]:
    """Row minus the best baseline, paired by bootstrap draw; the baseline has one model for all seeds."""
    if not own.scores or not baseline.scores:
        return {}
    score, boots = next(iter(baseline.scores.values())), next(iter(baseline.boots.values()))
    scores = [value - score for value in own.scores.values()]
    interval = intervals.interval(scores, np.stack([draws - boots for draws in own.boots.values()]), samples)
    return {
        "over_baseline": interval.estimate,
        "over_baseline_low": interval.low,
        "over_baseline_high": interval.high,
    }


def _difference(own: _Scored, other: _Scored, *, single: bool, samples: int) -> Interval | None:
    """Returns row minus default, paired by seed; a single model is paired with each seed of the default."""
    pairs = [(next(iter(own.scores)) if single else seed, seed) for seed in other.scores] if own.scores else []
    pairs = [(seed, default_seed) for seed, default_seed in pairs if seed in own.scores]
    if not pairs:
        return None
    scores = [own.scores[seed] - other.scores[default_seed] for seed, default_seed in pairs]
    boots = [own.boots[seed] - other.boots[default_seed] for seed, default_seed in pairs]
    return intervals.interval(scores, np.stack(boots), samples)


def _cv(results: StudyResults, row: Row, metric: str) -> float:
    if row.trial is not None:
        return results.cv(row.trial, metric)
    if row.single and row.key in results.baselines():
        return results.baseline_cv(row.key)[metric]
    return float("nan")


def _published(results: StudyResults, row: Row, metric: str) -> float:
    values = results.config.settings.final.published.get(metric, {})
    key = DEFAULT if row.key == WINNER and results.winner_is_default and WINNER not in values else row.key
    value = values.get(key, np.nan)
    # A value above 1 of a metric that cannot exceed 1 is a percentage, as papers print it.
    return value / 100 if value > 1 and spec.of(metric).bounded else value


def columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the lines of one metric as columns of text by heading, without empty columns."""
    metric, samples = str(table["metric"].iloc[0]), int(table["samples"].iloc[0])
    unit = " (%)" if is_percent(metric) else ""
    seeds = int(table["seeds"].max())

    def cell(value: float, sign: bool = False) -> str:
        return shown(value, metric, samples=samples, sign=sign)

    def span(line: Any, low: str, high: str) -> str:
        return f"{cell(line[low])} to {cell(line[high])}" if np.isfinite(line[low]) else EMPTY

    def change(line: Any) -> str:
        if not np.isfinite(line["difference"]):
            return EMPTY
        low, high = cell(line["difference_low"], True), cell(line["difference_high"], True)
        return f"{cell(line['difference'], True)} ({low} to {high})"

    cells = {
        "": [
            f"**{WINNER}**" + str(x).removeprefix(WINNER) if row == WINNER else str(x)
            for row, x in zip(table["row"], table["label"], strict=True)
        ],
        f"CV {metric}{unit}": [cell(x) for x in table["cv"]],
        f"test {metric}{unit}, mean of {seeds} seeds": [cell(x) for x in table["test"]],
        "sd over seeds": [cell(x) for x in table["sd_seeds"]],
        "95 % interval": [span(line, "low", "high") for _, line in table.iterrows()],
        "difference from default (95 % interval)": [change(line) for _, line in table.iterrows()],
        "p (Holm)": [p_value(x) for x in table["p_holm"]],
        "published": [cell(x) for x in table["published"]],
    }
    cells |= {
        heading: [cell(x) for x in table[column]] for column, heading in optimistic.HEADINGS.items() if column in table
    }
    return {name: values for name, values in cells.items() if not name or set(values) != {EMPTY}}
