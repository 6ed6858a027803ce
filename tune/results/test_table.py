"""The test table (PROTOCOL 6): who is compared, with which interval, against the default; and a board over studies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import intervals, spec
from m3col.metrics.intervals import Interval
from tune.config.schema import slug
from tune.results import collect, prediction_table
from tune.results.formatting import EMPTY, is_percent, p_value, shown
from tune.results.study_results import DEFAULT, ENSEMBLE, WINNER, StudyResults
from tune.study.run_name import REFITS, RunName

COLUMNS = (
    "row", "label", "metric", "cv", "test", "sd_seeds", "low", "high", "difference", "difference_low",
    "difference_high", "p", "p_holm", "smallest_visible", "published", "optimistic", "seeds", "samples", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row before it is scored. `jobs`: its finished models by seed; `trial`: whose CV value is quoted; `single`:
    one model without seeds (a baseline or the ensemble), compared with each seed of the default."""

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
    """Winner, default, rows asked for, ensemble, baselines, and what was only published."""
    decision = results.decision
    found: list[Row] = []
    if decision is not None:
        same = results.winner_is_default
        label = "winner (= default)" if same else f"winner (trial {decision.winner})"
        found.append(_refitted(results, WINNER, label, decision.winner))
        if not same:
            found.append(_refitted(results, DEFAULT, DEFAULT, results.default))
        found += [_refitted(results, name, name, None) for name in results.config.rows]
        members = found[0].jobs
        if members:
            wanted = results.config.settings.final.seeds
            short = "" if len(members) == wanted else f"{len(members)} of {wanted} members"
            found.append(Row(ENSEMBLE, f"ensemble of the winner's {len(members)} models", members, None, True, short))
    found += [Row(name, name, {0: f"{prediction_table.BASELINES}{name}"}, None, True) for name in results.baselines()]
    known = {row.key for row in found} | {DEFAULT}
    for values in results.config.settings.final.published.values():
        for name in values:
            if name not in known:
                known.add(name)
                found.append(Row(name, name, single=True, note="published only"))
    return found


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
    wanted = results.config.settings.final.seeds
    note = f"{len(faults)} of {wanted} refits failed: {'; '.join(dict.fromkeys(faults))}" if faults else ""
    return Row(key, label, jobs, trial, False, note)


@dataclass(frozen=True)
class _Scored:
    """Scores by seed, and their bootstrap scores [B] by seed."""

    scores: dict[int, float]
    boots: dict[int, np.ndarray]


def all_metrics(results: StudyResults) -> pd.DataFrame:
    """Every metric of every row, long: one line per metric and row, the declared metric first; see COLUMNS.

    Values are shares, not percent. `difference` is row minus default, paired by seed and by draw; `p_holm` is for the
    declared metric alone.
    """
    order = [results.declared, *(name for name in results.task.metrics if name != results.declared)]
    compared = rows(results)
    probabilities = {row.key: _probabilities(results, row) for row in compared}
    counts = None
    if results.test_labels is not None:
        draws = results.config.settings.final.draws
        strata = results.task.strata(results.test_labels)
        counts = intervals.bootstrap_counts(strata, draws=draws, groups=results.test_groups)
    probes = _probes(results, compared)
    lines: list[dict[str, Any]] = []
    for metric in order:
        scored = {key: _score(results, metric, models, counts) for key, models in probabilities.items()}
        lines += _lines(results, metric, compared, scored, probes)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def declared_table(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of `all_metrics` for the declared metric."""
    if table.empty:
        return table
    return table[table["metric"] == table["metric"].iloc[0]].reset_index(drop=True)


def _probabilities(results: StudyResults, row: Row) -> dict[int, np.ndarray]:
    if results.test_labels is None:
        return {}
    found = {seed: results.test_probabilities(job) for seed, job in row.jobs.items()}
    there = {seed: value for seed, value in found.items() if value is not None}
    if row.key == ENSEMBLE and there:
        return {0: np.mean(list(there.values()), axis=0)}
    return there


def _score(results: StudyResults, metric: str, models: dict[int, np.ndarray], counts: np.ndarray | None) -> _Scored:
    labels, task = results.test_labels, results.task
    if labels is None or counts is None:
        return _Scored({}, {})
    return _Scored(
        {seed: task.score(metric, labels, value) for seed, value in models.items()},
        {seed: task.bootstrap_scores(metric, labels, value, counts) for seed, value in models.items()},
    )


def _lines(
    results: StudyResults, metric: str, compared: Sequence[Row], scored: dict[str, _Scored], probes: dict[str, Any]
) -> list[dict[str, Any]]:
    baseline_row = WINNER if results.winner_is_default else DEFAULT
    samples = _units(results)
    lines = []
    for row in compared:
        own, other = scored[row.key], scored.get(baseline_row, _Scored({}, {}))
        line: dict[str, Any] = {"row": row.key, "label": row.label, "metric": metric, "note": row.note}
        line["cv"] = _cv(results, row, metric)
        line["published"] = _published(results, row, metric)
        line["optimistic"] = _optimistic(results, metric, probes.get(row.key, []))
        line |= {"seeds": len(own.scores), "samples": samples}
        if own.scores:
            line |= _absolute(own, samples)
        if row.key != baseline_row:
            found = _difference(own, other, single=row.single, samples=samples)
            if found is not None:
                line |= _relative(found)
        lines.append(line)
    if metric == results.declared:
        adjusted = intervals.holm([line.get("p", np.nan) for line in lines])
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
    found = intervals.interval(values, np.stack(list(own.boots.values())), samples)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return {"test": found.estimate, "low": found.low, "high": found.high, "sd_seeds": spread}


def _relative(found: Interval) -> dict[str, float]:
    return {
        "difference": found.estimate,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": found.p_value,
        "smallest_visible": found.smallest_visible,
    }


def _difference(own: _Scored, other: _Scored, *, single: bool, samples: int) -> Interval | None:
    """Row minus default, seed by seed; a single model is paired with each seed of the default."""
    pairs = [(next(iter(own.scores)) if single else seed, seed) for seed in other.scores] if own.scores else []
    pairs = [(mine, theirs) for mine, theirs in pairs if mine in own.scores]
    if not pairs:
        return None
    scores = [own.scores[mine] - other.scores[theirs] for mine, theirs in pairs]
    boots = [own.boots[mine] - other.boots[theirs] for mine, theirs in pairs]
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
    # Papers print percent; a score that cannot exceed 1 was meant so.
    return value / 100 if value > 1 and spec.of(metric).bounded else value


def _probes(results: StudyResults, compared: Sequence[Row]) -> dict[str, list[list[np.ndarray]]]:
    """Per row and seed the test probabilities at the epochs that were kept."""
    if not results.config.settings.final.optimistic or results.test_labels is None:
        return {}
    found: dict[str, list[list[np.ndarray]]] = {}
    for row in compared:
        for job in row.jobs.values() if row.trained else ():
            arrays = collect.arrays_of(results.folder.run(job)) or {}
            epochs = [results.task.link(value) for name, value in arrays.items() if name.startswith("epoch.")]
            if epochs:
                found.setdefault(row.key, []).append(epochs)
    return found


def _optimistic(results: StudyResults, metric: str, probes: list[list[np.ndarray]]) -> float:
    """Mean over seeds of the best test epoch: how the published numbers were chosen."""
    labels = results.test_labels
    if labels is None or not probes:
        return float("nan")
    best = max if spec.of(metric).higher_is_better else min
    score = partial(results.task.score, metric, labels)
    return float(np.mean([best(score(epoch) for epoch in epochs) for epochs in probes]))


def columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The lines of one metric as columns of text by heading; columns without any value are left out."""
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
        "optimistic (best test epoch)": [cell(x) for x in table["optimistic"]],
    }
    return {name: values for name, values in cells.items() if not name or set(values) != {EMPTY}}
