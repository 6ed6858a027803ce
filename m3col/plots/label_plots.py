"""Figures of models of several labels per sample and of numbers, from plain arrays.

Letters: N samples, C labels, K targets.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from m3col.plots import fonts, style
from m3col.plots.style import COLOURS, FAINT, dress

_MOST_TARGETS = 6  # panels of one figure

_MOST_LABELS = 40  # bars of one figure


def predicted_against_true(targets: ArrayLike, predictions: ArrayLike, names: Sequence[str]) -> Figure:
    """A panel for each of the first six targets: predicted over true value, and the diagonal of exact predictions.

    Args:
        targets: [N, K].
        predictions: [N, K].
        names: of the K targets.
    """
    truth, predicted = np.asarray(targets), np.asarray(predictions)
    shown = fonts.names(names)[:_MOST_TARGETS]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = style.figure(3.8 * columns, 3.6 * lines)
    for at, name in enumerate(shown):
        axes = figure.add_subplot(lines, columns, at + 1)
        axes.scatter(truth[:, at], predicted[:, at], s=14, color=COLOURS[0], alpha=0.6, linewidth=0)
        ends = [min(truth[:, at].min(), predicted[:, at].min()), max(truth[:, at].max(), predicted[:, at].max())]
        axes.plot(ends, ends, color=FAINT, linestyle=":", linewidth=1.5)
        dress(axes, title=name, x="true value", y="predicted value" if at % columns == 0 else "")
    return figure


def label_scores(labels: ArrayLike, decided: ArrayLike, names: Sequence[str]) -> Figure:
    """A bar with the F1 of each of the 40 most frequent labels, the most frequent one on top.

    Args:
        labels: [N, C] of 0 and 1.
        decided: [N, C] of 0 and 1: the predictions.
        names: of the C labels.
    """
    truth, guess = np.asarray(labels), np.asarray(decided)
    support, both = truth.sum(axis=0), (truth * guess).sum(axis=0)
    scores = 2 * both / np.maximum(support + guess.sum(axis=0), 1)
    order = np.argsort(-support, kind="stable")[:_MOST_LABELS]
    shown = [f"{name} ({count})" for name, count in zip(fonts.names(names), support, strict=True)]
    figure = style.figure(6.0, 1.2 + 0.3 * len(order))
    axes = figure.add_subplot()
    places = np.arange(len(order))[::-1]
    axes.barh(places, 100 * scores[order], color=COLOURS[0], height=0.7)
    axes.set_yticks(places, [shown[at] for at in order])
    axes.set_xlim(0, 100)
    dress(axes, title="F1 of each label (samples that have it)", x="F1, %", grid="x")
    return figure
