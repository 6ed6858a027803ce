"""The summary of a study in sentences: the winner, its difference from the default, the noise, the test result."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr

from m3col.errors import one_line
from m3col.evaluation import test_ledger
from m3col.methods import registry
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.metrics import spec
from tune.config.search_space import default_value
from tune.results import baseline_summary, failure_reasons, formatting, optimistic, prediction_table, test_table
from tune.results.formatting import shown
from tune.results.sections import Section, to_markdown
from tune.results.study_results import DEFAULT, WINNER, StudyResults
from tune.scheduling import selection
from tune.scheduling.optuna_study import FIRST_RUNG
from tune.study.provenance import version_warnings
from tune.study.run_messages import FAILED
from tune.study.run_name import REFITS, RunName

_FEW = 5  # with fewer finished trials no rank correlation is computed

_MINUTE, _HOUR = 60, 3600


def write(results: StudyResults, table: pd.DataFrame) -> str:
    """Returns the text of summary.md. `table`: from `test_table.all_metrics`."""
    return to_markdown(sections(results, table))


def sections(results: StudyResults, table: pd.DataFrame) -> list[Section]:
    """Returns the report of a study as sections.

    Args:
        results: the study.
        table: every metric of every row, from `test_table.all_metrics`.
    """
    name, dataset = results.described["name"], results.described["dataset"]["name"]
    declared = test_table.declared_table(table)
    against = baseline_summary.against_best(results, declared)
    lost = [] if declared.empty else baseline_summary.nothing_learnt(results, table)
    paragraphs = (_outcome(results), against, _noise(results), _test(results, declared))
    report = [
        Section(
            f"{name}: {results.config.run.method} on {dataset}",
            level=1,
            paragraphs=[*(text for sentences in paragraphs if (text := " ".join(sentences))), *lost[:1]],
            notes=lost[1:],
        ),
        *_winner_section(results),
    ]
    if not declared.empty:
        what = "Test" if results.test_labels is not None else "Cross-validation"
        remarks = [one_line(text) for text in results.config.settings.final.remarks]
        notes = [*_notes(declared), *remarks, *_footer(results, declared)]
        report.append(Section(f"{what}: {results.declared}", table=test_table.columns(declared), notes=notes))
    return [*report, Section("How the search went", notes=_course(results)), *_other_metrics(results, table)]


def _score(results: StudyResults, value: float, *, sign: bool = False) -> str:
    """Formats a value of the search metric, with its unit."""
    if not formatting.is_percent(results.metric):
        return shown(value, results.metric, sign=sign)
    return f"{100 * value:{'+' if sign else ''}.1f}".replace("-", "−") + (" points" if sign else " %")


def _outcome(results: StudyResults) -> Iterator[str]:
    decision = results.decision
    if decision is None:
        why = failure_reasons.no_winner(results.plan).partition("no trial finished: ")[2]
        yield f"**No trial finished**, so there is no winner: {why}. All reasons are in trials.csv."
        return
    how = "in its search run"
    if decision.confirmed:
        runs = len(results.deciding_runs(decision.winner))
        is_given = results.config.run.validation.kind == "given"  # there is only one such partition
        how = f"over {_count(runs, 'confirmation run')} {'' if is_given else 'on a new partition '}with new seeds"
    value = decision.values[decision.winner]
    scored = f"{results.metric} {_score(results, value)} {how}"
    if _nothing_searched(results):
        yield f"**Nothing was searched**: the default setting scored {scored}. The table below compares settings that"
        yield "were all fixed beforehand."
        return
    if results.winner_is_default:
        yield from _default_won(results, decision, scored)
        return
    yield f"**Trial {decision.winner} won**: {scored}."
    base = decision.values.get(results.default)
    if base is None:
        yield "The default setting did not finish, so that there is nothing to compare it with."
        return
    change = value - base
    yield f"The paper's default scored {_score(results, base)} in the same way, a difference of"
    yield f"{_score(results, change, sign=True)} in cross-validation."


def _nothing_searched(results: StudyResults) -> bool:
    """Whether the study evaluates the default only, because it has no space or one trial."""
    return not results.config.space or results.config.settings.search.trials == 1


def _default_won(results: StudyResults, decision: selection.Decision, scored: str) -> Iterator[str]:
    yield f"**The default setting won**: {scored}. That is an ordinary ending: the search found nothing that is"
    if not decision.default_won_a_tie:
        yield f"better in {_count(len(results.scored), 'finished trial')}."
        first = selection.ranked(results.scored, maximize=results.maximize)[0]
        if decision.confirmed and first.number != results.default:
            yield f"Trial {first.number} had looked best in the search itself ({_score(results, first.value)}), which"
            yield "its confirmation did not bear out."
        return
    gap = abs(decision.values[decision.best] - decision.values[decision.winner])
    yield "better by more than the noise."
    yield f"Trial {decision.best} scored {_score(results, decision.values[decision.best])}, which is"
    yield f"{_points(results, gap)} better, but the noise alone makes {_points(results, decision.tie or 0.0)}"
    yield "(one standard error of such a difference), and ties go to the default."


def _points(results: StudyResults, value: float) -> str:
    return _score(results, abs(value), sign=True).removeprefix("+")


def _noise(results: StudyResults) -> Iterator[str]:
    decision, noise = results.decision, results.noise
    if decision is None:
        return
    if noise is None:
        why = "search.replicates is 0" if not results.config.settings.search.replicates else "no replicate finished"
        yield f"**Noise was not measured** ({why}), so that no difference between trials can be called real."
    else:
        yield f"Noise: {noise.count} runs of the default that differ only in their seeds have a standard deviation of"
        yield f"{_points(results, noise.sd)}."
        ranked = selection.ranked(results.scored, maximize=results.maximize)
        near = (selection.within_noise(results.scored, ranked[0].value, noise) or 1) - 1
        others = len(results.scored) - 1
        if others:
            yield f"{near} of the other {_count(others, 'finished trial')} {_are(near)} within two such deviations of"
            yield "the best search value" + (": the noise alone could have put any of these first." if near else ".")
    if not decision.confirmed and not _nothing_searched(results):
        off = "search.confirm is off" if results.config.settings.search.confirm is None else "nothing to confirm"
        yield f"No confirmation runs ({off}): the CV value is the one that was selected on, and the best of"
        yield f"{_count(len(results.scored), 'trial')} looks better than it is."


def _test(results: StudyResults, table: pd.DataFrame) -> Iterator[str]:
    if results.decision is None or table.empty:
        return
    if results.test_labels is None:
        yield "**There is no labelled test split**, so that the table has cross-validation values only."
        return
    lines = {line["row"]: line for _, line in table.iterrows()}
    winner, metric, samples = lines[WINNER], results.declared, int(table["samples"].iloc[0])
    if not winner["seeds"]:
        yield f"The winner has no test result: {winner['note']}."
        return

    def text(value: float, sign: bool = False) -> str:
        unit = (" points" if sign else " %") if formatting.is_percent(metric) else ""
        return shown(value, metric, samples=samples, sign=sign) + unit

    named = "the default" if results.winner_is_default else "the winner"
    yield f"On {_units(results, samples)} {named} reaches {metric} {text(winner['test'])} (95 % interval"
    yield f"{text(winner['low'])} to {text(winner['high'])}, mean of {_count(int(winner['seeds']), 'seed')})."
    if results.winner_is_default:
        return
    if not np.isfinite(winner["difference"]):
        yield "The default has no test result to compare it with."
        return
    low, high = text(winner["difference_low"], True), text(winner["difference_high"], True)
    yield f"Its difference from the default's {text(lines[DEFAULT]['test'])} is {text(winner['difference'], True)}"
    yield f"({low} to {high}): **{_verdict(winner, metric, samples)}**."
    seen = text(winner["smallest_visible"], True).removeprefix("+")
    yield f"A true difference below {seen} would probably not have been seen."


def _verdict(line: pd.Series, metric: str, samples: int) -> str:
    if not (line["difference_low"] > 0 or line["difference_high"] < 0):
        return f"not distinguishable on {samples:,} samples"
    better = (line["difference"] > 0) == spec.higher_is_better(metric)
    return f"distinguishably {'better' if better else 'worse'} on {samples:,} samples"


def _units(results: StudyResults, samples: int) -> str:
    return f"{samples:,} test {'samples' if results.test_groups is None else 'groups'}"


def _winner_section(results: StudyResults) -> Iterator[Section]:
    """Yields the table of the winner's settings next to the default's."""
    if results.decision is None or results.winner_is_default:
        return
    if rows := setting_rows(results):
        yield Section("The winning setting", table=rows)


def setting_rows(results: StudyResults) -> dict[str, list[str]]:
    """Returns the searched settings by column: name, winner (unless the default won), default, range; maybe empty."""
    space, run = results.config.space, results.config.run
    if not space:
        return {}
    rows = {"setting": [f"`{path}`" for path in space]}
    if results.decision is not None and not results.winner_is_default:
        params = results.plan.trials.get(results.decision.winner).params
        rows["winner"] = [rounded(params.get(path)) for path in space]
    rows["default"] = [rounded(default_value(run, path)) for path in space]
    return rows | {"searched": [_range(results.config.raw_space[path]) for path in space]}


def _range(spec: Any) -> str:
    choices = spec.get("choices") if isinstance(spec, dict) else spec
    if isinstance(choices, list):
        return ", ".join(rounded(value) for value in choices)
    return f"{rounded(spec['low'])} to {rounded(spec['high'])}{' (log)' if spec.get('log') else ''}"


def rounded(value: Any) -> str:
    """Formats a setting with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _notes(table: pd.DataFrame) -> list[str]:
    lines = [f"{line['label']}: {line['note']}." for _, line in table.iterrows() if line["note"]]
    trained = table[table["seeds"] > 0]
    if not trained.empty and int(trained["seeds"].max()) == 1:
        lines.append("One model per row: the intervals cover the test samples, but not other seeds.")
    return lines


def _footer(results: StudyResults, table: pd.DataFrame) -> list[str]:
    lines = []
    samples = int(table["samples"].iloc[0])
    if results.test_labels is not None:
        seeds = results.config.settings.final.seeds
        compared, classes = int(table["p_holm"].notna().sum()), results.task.exact_strata
        points = f", one is {100 / samples:.2g} points of accuracy" if classes else ""
        lines.append(
            f"{_units(results, samples)}{points}; {_count(seeds, 'seed')} per "
            f"trained row; {_count(compared, 'row')} compared with the default (p adjusted by Holm)."
        )
        lines.append(
            f"Intervals: bootstrap of samples{' within class' if classes else ''} and spread over seeds; those of the "
            "ensemble and the baselines are of one model, and so are their sides of a difference."
        )
        if results.task.chooses:
            lines.append(
                "Thresholds of each row were chosen on its own validation predictions, those of a CV value on other "
                "validation samples than it scores; a row without validation predictions has 0.5."
            )
        lines += baseline_summary.chosen(results)
        lines.append(ledger(results))
        if results.config.settings.final.optimistic:
            columns = [name for name in optimistic.EXPLAINED if name == optimistic.EPOCH or name in table]
            lines += [f"`{name}`: {optimistic.EXPLAINED[name]}." for name in columns]
        if _has_linear_evaluation(results) and "balanced_accuracy" in results.task.metrics:
            lines.append(
                "`balanced_accuracy`, the mean recall of the classes, is what the tables of CoMM call accuracy."
            )
    lines += baseline_summary.left_out(results)
    division = results.config.run.data.resplit
    if division is not None:
        lines.append(
            f"Outer split {division.index} ({division.kind}, seed {division.seed}): training and test samples are "
            "drawn from all labelled samples of the data."
        )
    for reason, count in results.described["dataset"].get("dropped", {}).items():
        lines.append(f"Samples left out: {count} ({reason}).")
    lines += [f"Warning of the data: {line}." for line in results.described["dataset"].get("warnings", [])]
    if results.described["dataset"]["known_issues"]:
        lines.append(f"Known issues of the data: {results.described['dataset']['known_issues']}.")
    method = results.config.run.method
    notice = registry.load(method).checkpoint_notice(results.config.run) if method in registry.TABLE else ""
    lines += [notice] if notice else []
    lines += [f"Versions: {line}." for line in version_warnings(results.described["versions"])]
    return lines


def _has_linear_evaluation(results: StudyResults) -> bool:
    """Whether the method of any row is one of this package whose predictions come from a linear classifier."""
    config = results.config
    methods = {run.method for run in (config.run, *config.rows.values())} & registry.TABLE.keys()
    return any(issubclass(registry.load(name), SelfSupervisedMethod) for name in methods)


def ledger(results: StudyResults) -> str:
    """Returns the sentence on how often the test split had been scored before."""
    before = test_ledger.times_scored(
        results.folder.runs_folder,
        results.described["digests"].get("test", ""),
        before=prediction_table.ledger_name(results.folder),
    )
    if not before:
        return "This is the first study or run in its folder that scored this test split."
    times = "once" if before == 1 else f"{before:,} times"
    return f"This test split had been scored {times} before in this folder: every look weakens the next."


def _course(results: StudyResults) -> list[str]:
    states = {
        "finished": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
        "unfinished": TrialState.RUNNING,
    }
    counts = ", ".join(f"{results.count(state)} {name}" for name, state in states.items())
    lines = [f"{_count(len(results.trials), 'trial')}: {counts}."]
    if results.plan.out_of_time:
        lines.append(failure_reasons.budget_left_trials(results.plan) or "The time budget ended the search.")
    lines.append(_rank_correlation(results))
    seconds = sum(outcome.seconds or 0.0 for outcome in results.outcomes.values())
    lines.append(f"{_duration(seconds)} of training in {_count(len(results.outcomes), 'run')}.")
    broken = [
        f"{name} failed: {outcome.failure}"
        for name, outcome in results.outcomes.items()
        if outcome.state == FAILED and RunName.parse(name).stage != REFITS
    ]
    return lines + broken


def _rank_correlation(results: StudyResults) -> str:
    """Returns the Spearman correlation between values at the first rung and last values of finished trials."""
    pairs = [
        (trial.intermediate_values[rung], float(trial.value))
        for trial in results.trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and (rung := _first_rung(trial))
    ]
    what = f"Rank correlation of the values at {FIRST_RUNG} % of the epochs, the first rung, with the last ones"
    early, late = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(pairs) < _FEW or len(set(early)) < 2 or len(set(late)) < 2:
        return f"{what}: too few finished trials to say ({len(pairs)})."
    correlation = f"{spearmanr(early, late).statistic:.2f}".replace("-", "−")
    return f"{what}: {correlation} (Spearman, {len(pairs)} finished trials; pruned ones are missing)."


def _first_rung(trial: FrozenTrial) -> int:
    """Returns the first step at which a trial could be pruned; 0 if it had none."""
    return min((step for step in trial.intermediate_values if step >= FIRST_RUNG), default=0)


def _other_metrics(results: StudyResults, table: pd.DataFrame) -> list[Section]:
    """Returns the tables of the other metrics: those with published values, else all."""
    names = [name for name in table["metric"].unique() if name != results.declared]
    published = [name for name in names if results.config.settings.final.published.get(name)]
    if results.test_labels is None or not names:
        return []
    lines = {name: table[table["metric"] == name].reset_index(drop=True) for name in published or names}
    below = [Section(name, level=3, table=test_table.columns(part)) for name, part in lines.items()]
    return [Section("Other metrics"), *below]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _duration(seconds: float) -> str:
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} hours"
    return f"{seconds / _MINUTE:.1f} minutes" if seconds >= _MINUTE else f"{seconds:.0f} seconds"
