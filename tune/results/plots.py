"""Draws plots of a search: history with noise, importance, slices, parallel coordinates."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from m3col.plots import fonts, style
from tune.results.study_results import StudyResults
from tune.results.summary import rounded

BLUE, ORANGE, GREEN = style.COLOURS[:3]

GREY, INK = style.FAINT, style.INK

_MAP = LinearSegmentedColormap.from_list("blues", ["#c3d0df", "#6f9bd1", "#1d3f78"])

_PER_LINE = 4  # panels per line

_NARROW = 50  # below this ratio of its ends, a log axis has labels between the powers of ten

_TRIED = (TrialState.COMPLETE, TrialState.PRUNED)


def _short(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ")


def _choice(value: Any) -> str:
    return fonts.literal(rounded(value))


def _title(results: StudyResults, what: str) -> str:
    return f"{fonts.literal(results.described['name'])}: {what}"


def _value(trial: FrozenTrial) -> float | None:
    """A trial's value, or the last one before it was pruned."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _points(results: StudyResults, state: TrialState) -> list[tuple[FrozenTrial, float]]:
    """Returns the trials in a state that have a finite value."""
    pairs = [(trial, _value(trial)) for trial in results.trials if trial.state is state]
    return [(trial, value) for trial, value in pairs if value is not None and math.isfinite(value)]


def history(results: StudyResults) -> Figure | None:
    """Draws value over trial number, with the best so far and the band of the default with other seeds."""
    finished, pruned = (_points(results, state) for state in _TRIED)
    if not finished and not pruned:
        return None
    figure = style.figure(9, 4.8)
    axes = figure.add_subplot()
    style.tidy(axes, grid="y")
    _band(results, axes)
    _scatter(axes, pruned, marker="x", color=GREY, s=36, label="pruned (last value)")
    _scatter(axes, finished, marker="o", color=BLUE, s=34, label="finished")
    if finished:
        numbers = [trial.number for trial, _ in finished]
        best = (np.maximum if results.maximize else np.minimum).accumulate([value for _, value in finished])
        numbers, steps = [*numbers, max(t.number for t in results.trials)], [*best, best[-1]]
        axes.step(numbers, steps, where="post", color=BLUE, linewidth=1.4, alpha=0.7, label="best so far")
    failed = [trial.number for trial in results.trials if trial.state is TrialState.FAIL]
    if failed:
        low = axes.get_ylim()[0]
        axes.scatter(failed, [low] * len(failed), marker="v", color=ORANGE, s=30, clip_on=False, label="failed")
    _special(results, axes, finished)
    axes.set_xlabel("trial", color=INK)
    axes.set_ylabel(results.metric, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(_title(results, "every trial, and the noise of one score"), loc="left", color=INK, fontsize=12)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[FrozenTrial, float]], **style_options: Any) -> None:
    if points:
        axes.scatter([trial.number for trial, _ in points], [value for _, value in points], zorder=3, **style_options)


def _band(results: StudyResults, axes: Axes) -> None:
    """Draws two standard deviations around the mean of the default's runs, and the replicates left of trial 0."""
    if results.noise is None:
        return
    own = [trial.value for trial in results.scored if trial.number == results.default]
    centre, width = float(np.mean([*own, *results.replicates])), 2 * results.noise.sd
    label = f"default ± 2 sd ({results.noise.count} seeds)"
    axes.axhspan(centre - width, centre + width, color=ORANGE, alpha=0.13, linewidth=0, label=label)
    axes.axhline(centre, color=ORANGE, linewidth=0.8, alpha=0.6)
    axes.scatter([-0.8] * len(results.replicates), results.replicates, marker="_", color=ORANGE, s=60, zorder=3,
                 label="replicates of the default")  # fmt: skip


def _special(results: StudyResults, axes: Axes, finished: Sequence[tuple[FrozenTrial, float]]) -> None:
    """Marks default and winner, and draws the confirmed values."""
    values = {trial.number: value for trial, value in finished}
    if results.default in values:
        axes.scatter([results.default], [values[results.default]], marker="D", color=ORANGE, s=60, zorder=4,
                     label="default")  # fmt: skip
    decision = results.decision
    if decision is None:
        return
    if decision.confirmed:
        kept = {number: value for number, value in decision.values.items() if number in values}
        for number, value in kept.items():
            axes.plot([number, number], [values[number], value], color=GREEN, linewidth=1, zorder=2)
        axes.scatter(list(kept), list(kept.values()), marker="o", s=60, facecolor="white", edgecolor=GREEN,
                     linewidth=1.6, zorder=4, label="confirmed")  # fmt: skip
    if decision.winner in values:
        axes.scatter([decision.winner], [values[decision.winner]], marker="*", color=GREEN, s=190, zorder=5,
                     edgecolor="white", linewidth=0.7, label="winner")  # fmt: skip


def importance(results: StudyResults) -> Figure | None:
    """Draws the share of variance that each parameter explains (fANOVA); None if it cannot be computed."""
    shares = results.importances
    if not shares:
        return None
    figure = style.figure(8, 1.6 + 0.42 * len(shares))
    axes = figure.add_subplot()
    style.tidy(axes, grid="y")
    axes.grid(visible=False)
    names = list(shares)[::-1]
    values = [shares[name] for name in names]
    axes.barh(names, values, color=BLUE, height=0.62)
    for row, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (value, row), xytext=(5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xlim(0, max(1e-9, max(values)) * 1.12)
    count = len(_points(results, TrialState.COMPLETE))
    axes.set_xlabel(f"share of the variance of {results.metric} (fANOVA, {count} finished trials)", color=INK)
    axes.set_title(_title(results, "which settings mattered"), loc="left", color=INK, fontsize=12)
    return figure


def slices(results: StudyResults) -> Figure | None:
    """Draws value over each parameter; later trials are darker."""
    finished, pruned = (_points(results, state) for state in _TRIED)
    space = results.config.space
    if not finished or not space:
        return None
    columns = min(_PER_LINE, len(space))
    lines = math.ceil(len(space) / columns)
    figure = style.figure(max(5.0, 3.1 * columns + 1.2), 3.1 * lines + 0.5)
    colours = Normalize(0, max(1, max(trial.number for trial in results.trials)))
    panels = []
    for index, (path, distribution) in enumerate(space.items()):
        axes = figure.add_subplot(lines, columns, index + 1)
        panels.append(axes)
        style.tidy(axes, grid="y")
        position = _axis(axes, distribution)
        axes.scatter(
            [position(t.params[path]) for t, _ in pruned], [v for _, v in pruned], marker="x", s=22, color=GREY
        )
        positions = [position(t.params[path]) for t, _ in finished]
        axes.scatter(positions, [v for _, v in finished], s=34, c=[t.number for t, _ in finished], cmap=_MAP,
                     norm=colours, edgecolor=INK, linewidth=0.4, zorder=3)  # fmt: skip
        for number, marker, colour, size in _marked(results):
            for trial, value in finished:
                if trial.number == number:
                    axes.scatter([position(trial.params[path])], [value], marker=marker, s=size, color=colour, zorder=4,
                                 edgecolor="white", linewidth=0.7)  # fmt: skip
        axes.set_xlabel(path, color=INK, fontsize=9)
        if index % columns == 0:
            axes.set_ylabel(results.metric, color=INK)
        else:
            axes.tick_params(labelleft=False)
    for axes in panels[1:]:
        axes.sharey(panels[0])
    figure.colorbar(ScalarMappable(colours, _MAP), ax=panels, label="trial", pad=0.01, shrink=0.9)
    marks = "star: winner, diamond: default, x: pruned"
    figure.suptitle(_title(results, f"each setting by itself ({marks})"), x=0.01, ha="left", color=INK, fontsize=12)
    return figure


def _marked(results: StudyResults) -> list[tuple[int, str, str, int]]:
    marks = [(results.default, "D", ORANGE, 46)]
    if results.decision is not None:
        marks.append((results.decision.winner, "*", GREEN, 150))
    return marks


def _axis(axes: Axes, distribution: BaseDistribution) -> Callable[[Any], Any]:
    """Sets up the x axis for a parameter. Returns a function from values to positions on it."""
    if isinstance(distribution, CategoricalDistribution):
        axes.set_xticks(range(len(distribution.choices)), [_choice(value) for value in distribution.choices])
        axes.set_xlim(-0.5, len(distribution.choices) - 0.5)
        return distribution.choices.index
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.log:
        axes.set_xscale("log")
        narrow = distribution.high / distribution.low < _NARROW
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    low, high = _scaled(distribution)
    margin = 0.04 * (high - low)
    back: Callable[[float], float] = math.exp if distribution.log else float
    axes.set_xlim(back(low - margin), back(high + margin))
    return lambda value: value


def parallel_coordinates(results: StudyResults) -> Figure | None:
    """Draws one line per finished trial through all parameters to its value; highlights winner and default."""
    finished = _points(results, TrialState.COMPLETE)
    space = results.config.space
    if not finished or not space:
        return None
    values = [value for _, value in finished]
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    colours = Normalize(low, low + spread)
    figure = style.figure(max(7.0, 1.7 * (len(space) + 1) + 2.0), 4.8)
    axes = figure.add_subplot()
    axes.set_xlim(-0.15, len(space) + 0.3)
    axes.set_ylim(-0.04, 1.04)
    winner = results.decision.winner if results.decision is not None else None
    sign = 1 if results.maximize else -1
    for trial, value in sorted(finished, key=lambda item: sign * item[1]):
        heights = [_height(distribution, trial.params[path]) for path, distribution in space.items()]
        line_style: dict[str, Any] = {"color": _MAP(colours(value)), "alpha": 0.8, "linewidth": 1.3}
        if trial.number == results.default:
            line_style = {"color": ORANGE, "linewidth": 2.4, "linestyle": "--", "label": "default", "zorder": 4}
        if trial.number == winner:
            line_style = {"color": GREEN, "linewidth": 2.8, "label": f"winner (trial {trial.number})", "zorder": 5}
        axes.plot(range(len(space) + 1), [*heights, (value - low) / spread], **line_style)
    for index, distribution in enumerate(space.values()):
        _ruler(axes, index, _ticks(distribution))
    _ruler(axes, len(space), [((v - low) / spread, f"{v:.3f}") for v in np.linspace(low, high, 5 if high > low else 1)])
    axes.xaxis.set_major_locator(FixedLocator(range(len(space) + 1)))
    axes.set_xticklabels([*map(_short, space), results.metric], color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, labelleft=False, bottom=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    axes.set_title(_title(results, "all settings of the finished trials"), loc="left", color=INK, fontsize=12)
    return figure


def _height(distribution: BaseDistribution, value: Any) -> float:
    """Returns the position of a value in its range, 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _scaled(distribution)
    return ((math.log(value) if distribution.log else value) - low) / ((high - low) or 1.0)


def _scaled(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Returns the ends of a range; of a log range their logarithms."""
    scale: Callable[[float], float] = math.log if distribution.log else float
    return scale(distribution.low), scale(distribution.high)


def _ticks(distribution: BaseDistribution) -> list[tuple[float, str]]:
    if isinstance(distribution, CategoricalDistribution):
        return [(_height(distribution, value), _choice(value)) for value in distribution.choices]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    if distribution.log:
        return [(share, f"{low * (high / low) ** share:.2g}") for share in shares]
    return [(share, f"{low + share * (high - low):.3g}") for share in shares]


def _ruler(axes: Axes, x: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=INK, linewidth=1, zorder=6)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    for height, text in ticks:
        axes.annotate(text, (x, height), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
                      color=INK, zorder=7, bbox=box)  # fmt: skip
