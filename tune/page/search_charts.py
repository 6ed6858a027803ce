"""Charts of a search: every trial with the noise of one score, learning curves, and the importance of settings."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from tune.page import axes
from tune.page.axes import Axis, Frame, mark
from tune.page.markup import Html, escaped, tag
from tune.results.formatting import shown
from tune.results.study_results import StudyResults

_MOST_CURVES, _MOST_POINTS = 150, 25  # curves of a search, and points of each

_FAR = 0.10  # this share of the worst values may lie beyond the axis ...

_STRETCH = 3.0  # ... if they would make the axis this many times longer


def last_value(trial: FrozenTrial) -> float | None:
    """Returns a trial's value, or the last one before it was pruned; None if it has none that is finite."""
    value = trial.value if trial.state is TrialState.COMPLETE else None
    if value is None and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    return value if value is not None and math.isfinite(value) else None


def history(results: StudyResults) -> Html:
    """Returns value over trial number, with the band of the default with other seeds; empty without values."""
    values = {t.number: value for t in results.trials if (value := last_value(t)) is not None}
    if not values:
        return escaped("")
    band = noise_band(results)
    y, beyond = _y_axis([*values.values(), *(band or ())], results)
    scale, title = axes.metric_scale(results.metric)
    last = max(trial.number for trial in results.trials)
    frame = Frame(
        Axis(-0.02 * last - 0.7, last * 1.02 + 0.7), y, "trial", title, f"{results.metric} of every trial",
        y_scale=scale, x_whole=True, height=320,
    )  # fmt: skip
    parts, legend = _band(results, frame, band)
    for drawn, entries in (_trials(results, frame, values), _best_so_far(results, frame), _special(results, frame)):
        parts += drawn
        legend += entries
    note = f"{beyond} of {len(values)} values are beyond the axis and drawn at its end." if beyond else ""
    return tag("div", frame.draw(parts, legend=legend), tag("p", note, class_="note") if note else "")


def noise_band(results: StudyResults) -> tuple[float, float] | None:
    """Returns the mean of the default's runs minus and plus two standard deviations; None if noise was not measured."""
    if results.noise is None:
        return None
    own = [trial.value for trial in results.scored if trial.number == results.default]
    centre, width = float(np.mean([*own, *results.replicates])), 2 * results.noise.sd
    return centre - width, centre + width


def _y_axis(values: Sequence[float], results: StudyResults) -> tuple[Axis, int]:
    """The axis of values, and how many of the worst are beyond its end."""
    sign = 1 if results.maximize else -1
    ordered = sorted(sign * value for value in values)
    edge = ordered[int(_FAR * len(ordered))]
    if len(ordered) < 10 or ordered[-1] - ordered[0] <= _STRETCH * (ordered[-1] - edge):
        return Axis.around(values, margin=0.06), 0
    kept = [sign * value for value in ordered if value >= edge]
    return Axis.around(kept, margin=0.06), len(ordered) - len(kept)


Drawn = tuple[list[Html], list[tuple[str, str, str]]]


def _band(results: StudyResults, frame: Frame, band: tuple[float, float] | None) -> Drawn:
    if band is None or results.noise is None:
        return [], []
    top, bottom = frame.top(band[1]), frame.top(band[0])
    middle = (top + bottom) / 2
    parts = [
        tag("rect", x=0, y=f"{top}%", width="100%", height=f"{round(bottom - top, 2)}%", class_="band"),
        tag("line", x1=0, x2="100%", y1=f"{middle}%", y2=f"{middle}%", class_="centre"),
    ]
    return parts, [("band", "band", f"default ± 2 standard deviations ({results.noise.count} seeds)")]


def _trials(results: StudyResults, frame: Frame, values: Mapping[int, float]) -> Drawn:
    parts: list[Html] = []
    legend = []
    metric = results.metric.partition("/")[2]
    for state, shape, class_, text in _STATES:
        chosen = [trial for trial in results.trials if trial.state is state and trial.number in values]
        for trial in chosen:
            said = f"trial {trial.number}: {shown(values[trial.number], metric)}"
            tip = said if state is TrialState.COMPLETE else f"{said} ({text})"
            y = frame.top(values[trial.number])
            parts.append(mark(frame.x.at(trial.number), y, shape, class_, tip=tip, radius=_radius(results)))
        if chosen:
            legend.append((class_, shape, text))
    failed = [trial for trial in results.trials if trial.state is TrialState.FAIL and trial.number not in values]
    parts += [mark(frame.x.at(t.number), 100, "triangle", "failed", tip=f"trial {t.number}: failed") for t in failed]
    return parts, [*legend, *([("failed", "triangle", "failed")] if failed else [])]


_STATES = (
    (TrialState.PRUNED, "times", "pruned", "pruned, last value"),
    (TrialState.FAIL, "triangle", "failed", "failed, last value"),
    (TrialState.RUNNING, "circle", "running", "not ended, last value"),
    (TrialState.COMPLETE, "circle", "finished", "finished"),
)


def _radius(results: StudyResults) -> float:
    return 4 if len(results.trials) <= 200 else 2.5


def _best_so_far(results: StudyResults, frame: Frame) -> Drawn:
    finished = [t for t in results.trials if t.state is TrialState.COMPLETE and last_value(t) is not None]
    if not finished:
        return [], []
    best = (np.maximum if results.maximize else np.minimum).accumulate([float(t.value or 0.0) for t in finished])
    xs: list[float] = []
    ys: list[float] = []
    for number, value in enumerate(best):
        x, y = frame.x.at(finished[number].number), frame.top(float(value))
        xs += [x] if not xs else [x, x]
        ys += [y] if not ys else [ys[-1], y]
    xs.append(frame.x.at(max(t.number for t in results.trials)))
    ys.append(ys[-1])
    return [axes.lines([axes.line(xs, ys, "best")])], [("best", "line", "best so far")]


def _special(results: StudyResults, frame: Frame) -> Drawn:
    """Marks confirmed values, the default and the winner."""
    values = {trial.number: trial.value for trial in results.scored}
    metric = results.metric.partition("/")[2]
    parts: list[Html] = []
    legend = []
    decision = results.decision
    if decision is not None and decision.confirmed:
        for number, value in decision.values.items():
            if number in values:
                x, ends = frame.x.at(number), (frame.top(values[number]), frame.top(value))
                tip = f"trial {number}: {shown(value, metric)} in confirmation"
                parts.append(tag("line", x1=f"{x}%", x2=f"{x}%", y1=f"{ends[0]}%", y2=f"{ends[1]}%", class_="link"))
                parts.append(mark(x, ends[1], "circle", "confirmed", tip=tip, radius=5))
        legend.append(("confirmed", "circle", "confirmed, with new seeds"))
    special = [(results.default, "diamond", "default", "default")]
    if decision is not None and decision.winner != results.default:
        special.append((decision.winner, "star", "winner", "winner"))
    for number, shape, class_, text in special:
        if number in values:
            tip = f"{text}, trial {number}: {shown(values[number], metric)} in the search"
            parts.append(mark(frame.x.at(number), frame.top(values[number]), shape, class_, tip=tip))
            legend.append((class_, shape, text))
    return parts, legend


def curves(results: StudyResults) -> Html:
    """Returns the validation score over training of up to 150 trials, winner and default in front."""
    with_values = [trial for trial in results.trials if len(trial.intermediate_values) > 1]
    if not with_values:
        return escaped("")
    winner = None if results.decision is None else results.decision.winner
    first = [trial for trial in with_values if trial.number in (winner, results.default)]
    others = [trial for trial in with_values if trial not in first]
    others = [others[at] for at in axes.thinned(others, _MOST_CURVES)]
    drawn = [*others, *first]
    values = [v for trial in drawn for v in trial.intermediate_values.values() if math.isfinite(v)]
    if not values:
        return escaped("")
    scale, title = axes.metric_scale(results.metric)
    frame = Frame(Axis(0, 100), Axis.around(values), "epochs (% of all)", title, "learning curves", y_scale=scale)
    parts = [axes.lines(_curve(trial, frame, results, winner) for trial in drawn)]
    legend = [("curve", "line", "trials" if len(others) == len(with_values) - len(first) else f"{len(others)} trials")]
    legend += [("curve default", "line", "default")] if any(t.number == results.default for t in first) else []
    legend += [("curve winner", "line", "winner")] if winner not in (None, results.default) else []
    return frame.draw(parts, legend=legend)


def _curve(trial: FrozenTrial, frame: Frame, results: StudyResults, winner: int | None) -> Html:
    steps = [step for step in sorted(trial.intermediate_values) if math.isfinite(trial.intermediate_values[step])]
    steps = [steps[at] for at in axes.thinned(steps, _MOST_POINTS)]
    role = {results.default: "curve default", winner: "curve winner"}
    if winner == results.default:
        role = {winner: "curve default"}
    heights = [frame.top(trial.intermediate_values[step]) for step in steps]
    return axes.line(
        [frame.x.at(s) for s in steps], heights, role.get(trial.number, "curve"), tip=f"trial {trial.number}"
    )


def importance(results: StudyResults) -> Html:
    """Returns the share of variance that each setting explains (fANOVA); empty if it cannot be computed."""
    return bars([(name, share, f"{share:.2f}") for name, share in results.importances.items()])


def bars(rows: Sequence[tuple[str, float, str]], *, most: float | None = None, class_: str | None = None) -> Html:
    """Returns horizontal bars.

    Args:
        rows: name, value of 0 or more, and printed value of each bar.
        most: the value of a bar of full length. Default: the largest one.
        class_: class of the bars in the style sheet.
    """
    if not rows:
        return escaped("")
    full = max(value for _, value, _ in rows) if most is None else most
    lines = []
    for name, value, text in rows:
        share = min(1.0, max(0.0, value) / max(full, 1e-12)) if math.isfinite(value) else 0.0
        bar = tag("span", tag("i", "", style=f"width:{100 * share:.2f}%", class_=class_), class_="bar")
        lines.append(tag("div", tag("span", name), bar, tag("span", text, class_="num"), class_="brow"))
    return tag("div", *lines, class_="bars")
