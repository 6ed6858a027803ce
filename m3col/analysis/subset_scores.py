"""What analyses of subsets of the modalities share: the training fold of a model, scores with intervals, bars.

Letters: N samples, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis.context import AnalysisContext
from m3col.data import splits
from m3col.data.columns import IntArray
from m3col.data.dataset import Split
from m3col.metrics import intervals
from m3col.plots import fonts, style
from m3col.plots.model_plots import COLOURS, FAINT, INK

METRICS = ("accuracy", "balanced_accuracy")

BALANCED_NOTE = "Balanced accuracy, the mean recall of the classes, is what the tables of CoMM's paper call accuracy."

_DRAWS = 1000  # of the bootstrap


def obstacle(case: AnalysisContext) -> str | None:
    """Why there are no subsets to compare: the model has one modality, or no test sample has all; None where not."""
    if len(case.modalities) < 2:
        return "needs two or more modalities, but the model has one"
    return None if len(complete_rows(case.test)) else "needs a test sample that has all modalities, but there is none"


def subsets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each modality alone, all but one where there are more than two, and all, by a name for tables."""
    chosen: dict[str, tuple[str, ...]] = {f"{name} alone": (name,) for name in modalities}
    if len(modalities) > 2:
        chosen |= {f"without {name}": tuple(n for n in modalities if n != name) for name in modalities}
    return chosen | {"all": tuple(modalities)}


def fold_faults(case: AnalysisContext) -> list[str]:
    """Why the training fold cannot be drawn again, as lines: the data set is not that of the training."""
    if _uses_whole_split(case):
        return []
    validation, dataset = case.predictor.members[0].method.config.validation, case.dataset
    faults = splits.faults(
        dataset, kind=validation.kind or splits.default_kind(dataset), folds=validation.folds,
        fraction=validation.fraction, task=case.task,
    )  # fmt: skip
    samples = case.predictor.members[0].samples
    if faults or samples is None or samples == (drawn := len(_drawn(case)[0])):
        return faults
    return [
        f"the model was trained on {samples:,} samples, but {dataset.name} has {len(dataset.train):,} for training, of "
        f"which its fold has {drawn:,}"
    ]


def folds(case: AnalysisContext) -> tuple[Split, Split | None]:
    """The samples that the first member was trained on, and those that it was not trained on and can be validated by.

    A model that was trained on the whole training split, such as the refits of a search, is validated by the validation
    split of the data set. The fold of another one is drawn again from the config of its training. None: there are no
    such samples, or it is not known that the model was not trained on them, because its checkpoint is of an older
    version, which does not say how many samples there were.
    """
    dataset = case.dataset
    if _uses_whole_split(case):
        train, held_out = dataset.train, dataset.validation
    else:
        train, held_out = _drawn(case)
        if case.predictor.members[0].samples is None and held_out is not dataset.validation:
            held_out = None
    return train, None if held_out is None or held_out.labels is None else held_out


def _uses_whole_split(case: AnalysisContext) -> bool:
    """Whether the first member is known to be trained on all samples of the training split."""
    return case.predictor.members[0].samples == len(case.dataset.train)


def _drawn(case: AnalysisContext) -> tuple[Split, Split | None]:
    """The training and validation samples that the config of the first member draws."""
    validation, dataset = case.predictor.members[0].method.config.validation, case.dataset
    kind = validation.kind or splits.default_kind(dataset)
    if kind in ("given", "none"):
        return dataset.train, dataset.validation
    fold = splits.draw(
        dataset, kind=kind, folds=validation.folds, fraction=validation.fraction, seed=validation.seed, task=case.task
    )[0]
    return dataset.train.take(fold.train), dataset.train.take(fold.validation)


def complete(split: Split) -> Split:
    """The samples that have all modalities."""
    return split.take(complete_rows(split))


def complete_rows(split: Split) -> IntArray:
    """The positions of the samples that have all modalities."""
    return np.flatnonzero(np.logical_and.reduce([*split.present.values()]))


def scores(case: AnalysisContext, labels: NDArray[Any], predictions: NDArray[np.float64]) -> dict[str, float]:
    """Each of `METRICS` of predictions [N, C], with its 95 % interval over bootstrap draws of the samples.

    Returns:
        By name: `<metric>`, `<metric>_low`, `<metric>_high`; the interval of a single sample is NaN. And `samples`, N.
    """
    row: dict[str, float] = {"samples": len(labels)}
    enough = len(labels) > 1
    counts = intervals.bootstrap_counts(labels, draws=_DRAWS, seed=case.options.seed) if enough else None
    for metric in METRICS:
        row |= {metric: case.task.score(metric, labels, predictions), f"{metric}_low": np.nan, f"{metric}_high": np.nan}
        if counts is not None:
            boots = case.task.bootstrap_scores(metric, labels, predictions, counts)
            interval = intervals.interval([row[metric]], boots[None], len(labels))
            row |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    return row


def bars(groups: Mapping[str, pd.DataFrame], names: Sequence[str], *, title: str, chance: float) -> Figure:
    """Draws balanced accuracies as horizontal bars.

    Args:
        groups: rows of `scores` by the name of their colour, such as a split; rows are in the order of `names`.
        names: what each bar is about, from top to bottom.
        title: of the figure.
        chance: balanced accuracy of a constant prediction.
    """
    shown, count = fonts.names(names, "row"), len(groups)
    figure = style.figure(7.6 + 0.05 * max(map(len, shown)), 1.3 + len(names) * (0.28 + 0.24 * count))
    axes: Any = figure.add_subplot()
    height = 0.78 / count
    for number, (group, rows) in enumerate(groups.items()):
        y = np.arange(len(names)) + (number - (count - 1) / 2) * height
        values = rows["balanced_accuracy"].to_numpy(float)
        ends = np.stack([values - rows["balanced_accuracy_low"], rows["balanced_accuracy_high"] - values])
        axes.barh(y, values, height * 0.9, color=COLOURS[number % len(COLOURS)], label=group)
        axes.errorbar(
            values, y, xerr=np.nan_to_num(np.maximum(ends, 0)), fmt="none", ecolor=INK, elinewidth=1, capsize=2
        )
        for place, value, high in zip(y, values, values + np.nan_to_num(ends[1]), strict=True):
            axes.text(max(value, high) + 0.012, place, f"{100 * value:.0f}", va="center", fontsize=8, color=INK)
    axes.axvline(chance, color=FAINT, linestyle="--", linewidth=1.2, label="one class for all")
    style.dress(axes, title=title, x="balanced accuracy, %", grid="x")
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{value:.0f}" for value in np.linspace(0, 100, 6)])
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
