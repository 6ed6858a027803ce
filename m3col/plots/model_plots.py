"""Figures of a trained model, from plain arrays: learning curves, confusion matrix, reliability diagram."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from m3col.plots import fonts, style
from m3col.plots.style import COLOURS, FAINT, INK, dress

_DPI = 130

_BINS = 10

_MOST_NUMBERS = 12  # with more classes the cells of a confusion matrix are too small for their counts


def save(figure: Figure, path: Path) -> None:
    fonts.settle(figure)
    figure.savefig(path, dpi=_DPI, facecolor="white", bbox_inches="tight")


def learning_curves(
    histories: Sequence[pd.DataFrame], *, metric: str | None = None, switch_epoch: int | None = None
) -> Figure:
    """Draws losses and one metric over epochs: a strong line for the mean over seeds, a faint one for each seed.

    Args:
        histories: one table per seed, with the columns epoch, train/loss and val/....
        metric: such as `val/auroc`; None for the losses alone.
        switch_epoch: the last epoch before the loss switches, marked by a line.
    """
    together = pd.concat(histories)
    columns = set(together.columns)
    panels: list[tuple[str, list[str]]] = [("Loss", [name for name in ("train/loss", "val/loss") if name in columns])]
    if metric is not None and metric in columns:
        name = metric.partition("/")[2]
        panels.append((name.replace("_", " "), [name for name in (f"train/{name}", metric) if name in columns]))
    figure = style.figure(5.2 * len(panels), 3.6)
    for number, (title, names) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for name in names:
            split = name.partition("/")[0]
            colour = COLOURS[split != "train"]
            for history in histories if len(histories) > 1 else ():
                axes.plot(history["epoch"], history[name], color=colour, linewidth=0.8, alpha=0.3)
            mean = together.groupby("epoch")[name].mean()
            axes.plot(mean.index, mean, color=colour, linewidth=2, label=_SPLITS[split])
        if switch_epoch:
            axes.axvline(switch_epoch + 0.5, color=FAINT, linestyle=":", linewidth=1.2, label="loss switches")
        dress(axes, title=title, x="epoch", y=title.lower())
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


_SPLITS = {"train": "training", "val": "validation"}


def confusion_matrix(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> Figure:
    """Draws the confusion matrix: true class by row, predicted class by column.

    The shade of a cell is its share of the row. Its number is the count of samples.
    """
    truth = np.asarray(labels, dtype=np.int64)
    guess = np.asarray(probabilities).argmax(axis=1)
    count, shown = len(classes), fonts.names(classes)
    table = np.bincount(truth * count + guess, minlength=count * count).reshape(count, count)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(3.4 + 0.42 * count, 9.0)
    figure = style.figure(side + 0.6, side)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    dress(axes, title=f"Accuracy {(truth == guess).mean():.1%} on {len(truth)} samples", x="predicted", y="true")
    axes.grid(visible=False)
    axes.set_xticks(range(count), shown, rotation=45 if max(map(len, shown)) > 4 else 0, ha="center")
    axes.set_yticks(range(count), shown)
    if count <= _MOST_NUMBERS:
        for row in range(count):
            for column in range(count):
                colour = "white" if share[row, column] > 0.55 else INK if table[row, column] else FAINT
                axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda value, position: f"{value:.0%}")
    bar.set_label("share of the true class", color=INK)
    bar.outline.set_visible(False)
    return figure


def reliability(labels: ArrayLike, probabilities: ArrayLike) -> Figure:
    """Draws a reliability diagram in ten bins of confidence, above a histogram of the confidence.

    With two classes it shows the frequency of class 1 over its probability. With more it shows the accuracy over the
    largest probability. The title has the expected calibration error: the mean gap, weighted by samples per bin.
    """
    truth, predicted = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    binary = predicted.shape[1] == 2
    confidence = predicted[:, 1] if binary else predicted.max(axis=1)
    right = (truth == 1) if binary else (predicted.argmax(axis=1) == truth)
    bin_of = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bin_of, minlength=_BINS)
    filled = counts > 0
    means = np.bincount(bin_of, confidence, minlength=_BINS)[filled] / counts[filled]
    rates = np.bincount(bin_of, right, minlength=_BINS)[filled] / counts[filled]
    error = float((np.abs(means - rates) * counts[filled]).sum() / counts.sum())

    figure = style.figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    spread = 1.96 * np.sqrt(rates * (1 - rates) / counts[filled])
    upper.errorbar(means, rates, yerr=spread, color=COLOURS[0], linewidth=2, elinewidth=1, marker="o", markersize=5,
                   label="model, 95 % by count")  # fmt: skip
    title = f"Reliability (calibration error {error:.3f})"
    dress(upper, title=title, x="", y="frequency of class 1" if binary else "accuracy")
    upper.set_ylim(-0.02, 1.02)
    upper.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    lower.bar((np.arange(_BINS) + 0.5) / _BINS, counts, width=0.9 / _BINS, color=COLOURS[0], alpha=0.75)
    dress(lower, title="", x="probability of class 1" if binary else "confidence", y="samples")
    lower.set_xlim(0, 1)
    return figure
