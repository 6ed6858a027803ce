"""Charts of predictions: reliability, confusion of classes, scores of labels, predicted over true numbers.

Letters: N samples, C classes or labels, K targets, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune.page import search_charts
from tune.page.axes import Axis, Frame, line, lines, mark, thinned
from tune.page.markup import Html, escaped, joined, tag
from tune.page.tables import plain

_BINS = 10

_MOST_CELLS = 20  # with more classes a confusion matrix lists its largest entries instead

_MOST_LISTED = 12

_MOST_LABELS = 40

_MOST_TARGETS, _MOST_POINTS = 6, 800


@dataclass(frozen=True)
class Reliability:
    """How often predictions are right, by confidence.

    Attributes:
        confidence: [B] mean confidence of each filled bin.
        rate: [B] share that is right, or frequency of the class.
        count: [B] number of predictions.
        error: the expected calibration error: mean gap of the two, weighted by count.
    """

    confidence: NDArray[np.float64]
    rate: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def reliability(confidence: ArrayLike, right: ArrayLike) -> Reliability:
    """Returns the reliability in ten bins of equal width (Guo et al. 2017, equation 3).

    Args:
        confidence: [N] probabilities.
        right: [N] of 0 and 1: whether the event of that probability happened.
    """
    p, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bin_of = np.minimum((p * _BINS).astype(int), _BINS - 1)
    count = np.bincount(bin_of, minlength=_BINS)
    filled = count > 0
    mean = np.bincount(bin_of, p, minlength=_BINS)[filled] / count[filled]
    rate = np.bincount(bin_of, hit, minlength=_BINS)[filled] / count[filled]
    error = float((np.abs(mean - rate) * count[filled]).sum() / max(1, count.sum()))
    return Reliability(mean, rate, count[filled], error)


def of_classes(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Reliability, str]:
    """Returns the reliability of class probabilities, and the name of what is probable.

    Of two classes it is the probability of class 1, of more the largest one.

    Args:
        labels: [N] numbers of the classes.
        probabilities: [N, C].
    """
    truth, predicted = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if predicted.shape[1] == 2:
        return reliability(predicted[:, 1], truth == 1), "probability of class 1"
    return reliability(predicted.max(axis=1), predicted.argmax(axis=1) == truth), "confidence"


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927): also of 0 and 1, and of few samples, it has a width.

    Args:
        rate: the share, 0 to 1.
        count: number of samples, at least 1.

    Example:
        >>> [round(end, 3) for end in wilson(1.0, 1)]
        [0.207, 1.0]
    """
    square = 1.96**2
    middle = (rate + square / (2 * count)) / (1 + square / count)
    half = 1.96 * float(np.sqrt(rate * (1 - rate) / count + square / (4 * count**2))) / (1 + square / count)
    return middle - half, middle + half


def reliability_chart(found: Reliability, what: str, *, happened: str = "how often it is right") -> Html:
    """Returns the reliability diagram with the 95 % interval of each bin by its count.

    Args:
        found: the bins.
        what: name of the horizontal axis, the probability.
        happened: name of the vertical axis, the share of the event of that probability.
    """
    frame = Frame(Axis(0, 1), Axis(0, 1), what, happened, "reliability diagram", wide=False)
    most = found.count.max()
    parts = [lines([line([0, 100], [100, 0], "diagonal")])]
    for p, rate, count in zip(found.confidence, found.rate, found.count, strict=True):
        x, (low, high) = frame.x.at(float(p)), wilson(float(rate), int(count))
        height = round(22 * float(count) / float(most), 2)
        left = min(90.0, np.floor(float(p) * _BINS) * 10)
        tip = f"{count:,} predictions of {p:.2f} on average; {happened}: {100 * rate:.0f} %"
        parts += [
            tag("rect", x=f"{left + 1}%", y=f"{100 - height}%", width="8%", height=f"{height}%", class_="count-bar",
                data_tip=f"{count:,} predictions"),
            tag("line", x1=f"{x}%", x2=f"{x}%", y1=f"{frame.top(low)}%", y2=f"{frame.top(high)}%",
                class_="errorbar"),
            mark(x, frame.top(float(rate)), "circle", "finished", tip=tip),
        ]  # fmt: skip
    legend = [
        ("finished", "circle", "model, 95 % by count"), ("diagonal", "line", "perfectly calibrated"),
        ("count-bar", "band", "number of predictions"),
    ]  # fmt: skip
    return frame.draw(parts, legend=legend)


def confusion(labels: ArrayLike, decided: ArrayLike, classes: Sequence[str]) -> Html:
    """Returns the confusion matrix: true class by row, predicted class by column, shaded by share of the row.

    With more than 20 classes it lists the most frequent confusions.

    Args:
        labels: [N] numbers of the true classes.
        decided: [N] numbers of the predicted classes.
        classes: names of the C classes.
    """
    count = len(classes)
    counts = np.bincount(np.asarray(labels) * count + np.asarray(decided), minlength=count * count)
    counts = counts.reshape(count, count)
    totals = np.maximum(counts.sum(axis=1), 1)
    if count > _MOST_CELLS:
        return _confused(counts, totals, classes)
    head = [tag("th", "true ↓ predicted →", scope="col"), *(tag("th", name, scope="col") for name in classes)]
    rows = []
    for at, name in enumerate(classes):
        cells = [
            tag("td", f"{n:,}", style=f"--s:{n / totals[at]:.3f}", data_tip=f"{100 * n / totals[at]:.1f} % of {name}")
            for n in counts[at]
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    grid = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="confusion")
    return tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label="confusion matrix")


def _confused(counts: NDArray[np.int64], totals: NDArray[np.int64], classes: Sequence[str]) -> Html:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_LISTED]
    pairs = [divmod(int(at), len(classes)) for at in order if wrong.flat[at] > 0]
    rows = [(classes[a], classes[b], f"{wrong[a, b]:,}", f"{100 * wrong[a, b] / totals[a]:.0f} %") for a, b in pairs]
    text = f"{len(classes)} classes; the most frequent confusions:"
    return joined(
        [tag("p", text), plain(["true class", "predicted as", "samples", "share of the class"], rows)]
        if rows
        else [tag("p", "No sample was confused.")]
    )


def label_scores(labels: ArrayLike, decided: ArrayLike, names: Sequence[str]) -> Html:
    """Returns a bar with the F1 of each of the 40 most frequent labels.

    Args:
        labels: [N, C] of 0 and 1.
        decided: [N, C] of 0 and 1: the predictions.
        names: of the C labels.
    """
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(decided, dtype=np.int64)
    support, both = truth.sum(axis=0), (truth * guess).sum(axis=0)
    scores = 2 * both / np.maximum(support + guess.sum(axis=0), 1)
    order = np.argsort(-support, kind="stable")[:_MOST_LABELS]
    rows = [(f"{names[at]} ({support[at]:,})", float(scores[at]), f"{100 * scores[at]:.0f} %") for at in order]
    return search_charts.bars(rows, most=1.0)


def predicted_against_true(targets: ArrayLike, predictions: ArrayLike, names: Sequence[str]) -> Html:
    """Returns a chart for each of the first six targets: predicted over true value, of up to 800 samples.

    Args:
        targets: [N, K].
        predictions: [N, K].
        names: of the K targets.
    """
    truth, guess = np.asarray(targets, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    chosen = thinned(range(len(truth)), _MOST_POINTS)
    charts = []
    for at, name in enumerate(names[:_MOST_TARGETS]):
        xs, ys = truth[chosen, at], guess[chosen, at]
        axis = Axis.around([*xs, *ys])
        frame = Frame(axis, axis, f"true {name}", f"predicted {name}", f"predicted over true {name}", wide=False)
        parts = [lines([line([0, 100], [100, 0], "diagonal")])]
        parts += [
            mark(frame.x.at(x), frame.top(y), "circle", "finished", tip=f"true {x:.4g}, predicted {y:.4g}", radius=2.5)
            for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
        ]
        charts.append(frame.draw(parts))
    return tag("div", *charts, class_="pair") if charts else escaped("")
