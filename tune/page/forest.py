"""Forest plot: the difference of each row with its interval, on one axis with zero."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3col.metrics import spec
from tune.page.axes import Axis, tick_text
from tune.page.markup import Html, escaped, joined, tag
from tune.results import formatting
from tune.results.formatting import shown

_FAR = 4.0  # intervals beyond this multiple of the median distance from zero are cut at the edge, but for strong rows


@dataclass(frozen=True)
class Difference:
    """One line of a forest plot.

    Attributes:
        label: name of the row.
        value: its difference from the reference, as a fraction.
        low: lower end of its interval; NaN without an interval.
        high: upper end of its interval.
        strong: whether the row is printed in bold.
    """

    label: str
    value: float
    low: float
    high: float
    strong: bool = False

    def verdict(self, metric: str) -> str:
        """Returns "better", "worse", "same" if the interval has 0 in it, or "unknown" without an interval."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return "unknown"
        if not (self.low > 0 or self.high < 0):
            return "same"
        return "better" if (self.value > 0) == spec.higher_is_better(metric) else "worse"


def forest(lines: Sequence[Difference], *, metric: str, samples: int = 0, reference: str) -> Html:
    """Returns the plot.

    Args:
        lines: the rows from top to bottom. Rows without a finite difference are left out.
        metric: of the differences.
        samples: number of test samples, which sets the decimals.
        reference: name of the row with which the others are compared.

    Returns:
        The plot as a figure; empty text without rows.
    """
    kept = [line for line in lines if np.isfinite(line.value)]
    if not kept:
        return escaped("")
    axis = _axis(kept)
    scale, unit = (100.0, " (points)") if formatting.is_percent(metric) else (1.0, "")
    ticks = axis.ticks(4)
    texts = [f"+{text}" if tick > 0 else text for tick, text in zip(ticks, tick_text(ticks, scale), strict=True)]
    rows = [_row(line, axis, ticks, metric, samples) for line in kept]
    foot = _foot(axis, ticks, texts, f"{metric} minus that of {reference}{unit}")
    used = {line.verdict(metric) for line in kept}
    key = [tag("li", tag("i", "", class_=f"dot {name}"), text) for name, text in KEY.items() if name in used]
    return tag(
        "figure", tag("div", *rows, foot, class_="forest"), tag("ul", *key, class_="legend"), class_="chart wide"
    )


KEY = {"better": "distinguishably better", "worse": "distinguishably worse", "same": "not distinguishable",
       "unknown": "no interval"}  # fmt: skip


def _axis(lines: Sequence[Difference]) -> Axis:
    """The axis that holds 0 and all intervals but those that are so far away that the others could not be read."""
    reach = [max(abs(x) for x in (line.value, line.low, line.high) if np.isfinite(x)) for line in lines]
    most = _FAR * float(np.median(reach))
    near = [line for line, far in zip(lines, reach, strict=True) if far <= most or line.strong]
    return Axis.around([0.0, *(x for line in near for x in (line.value, line.low, line.high))], margin=0.04)


def _row(line: Difference, axis: Axis, ticks: Sequence[float], metric: str, samples: int) -> Html:
    verdict = line.verdict(metric)
    grid = joined(
        tag("line", x1=f"{axis.at(t)}%", x2=f"{axis.at(t)}%", y1=0, y2="100%", class_="zero" if t == 0 else "grid")
        for t in ticks
    )
    text = shown(line.value, metric, samples=samples, sign=True)
    parts = [grid]
    if np.isfinite(line.low):
        ends = (axis.at(line.low), axis.at(line.high))
        parts.append(tag("line", x1=f"{ends[0]}%", x2=f"{ends[1]}%", y1="50%", y2="50%", class_=f"span {verdict}"))
        low, high = (shown(value, metric, samples=samples, sign=True) for value in (line.low, line.high))
        text += f" ({low} to {high})"
    if axis.low <= line.value <= axis.high:
        parts.append(tag("circle", cx=f"{axis.at(line.value)}%", cy="50%", r=4.5, class_=f"dot {verdict}"))
    else:
        path = "M-7 0L2-6L2 6Z" if line.value < axis.low else "M7 0L-2-6L-2 6Z"
        arrow = tag("path", d=path, class_=f"dot {verdict}")
        parts.append(tag("svg", arrow, x=f"{axis.at(line.value)}%", y="50%", overflow="visible", width=1, height=1))
    plot = tag("svg", *parts, width="100%", height=26, role="img", aria_label=f"{line.label}: {text}")
    name = tag("strong", line.label) if line.strong else tag("span", line.label)
    return tag("div", name, tag("div", plot, class_="fplot"), tag("span", text, class_="num"), class_="frow")


def strips(rows: Sequence[tuple[str, Sequence[float]]], *, metric: str) -> Html:
    """Returns scores as dots on one axis, with a line at the mean of each row.

    Args:
        rows: name and scores of each row; rows without a score are left out.
        metric: of the scores.

    Returns:
        The plot as a figure; empty text without scores.
    """
    kept = [(label, values) for label, values in rows if len(values)]
    if not kept:
        return escaped("")
    axis = Axis.around([value for _, values in kept for value in values])
    scale = 100.0 if formatting.is_percent(metric) else 1.0
    ticks = axis.ticks(4)
    lines = []
    for label, values in kept:
        parts = [tag("line", x1=f"{axis.at(t)}%", x2=f"{axis.at(t)}%", y1=0, y2="100%", class_="grid") for t in ticks]
        parts += [tag("circle", cx=f"{axis.at(value)}%", cy="50%", r=4, class_="split") for value in values]
        mean = axis.at(float(np.mean(values)))
        parts.append(tag("line", x1=f"{mean}%", x2=f"{mean}%", y1="10%", y2="90%", class_="mean"))
        text = f"{shown(float(np.mean(values)), metric)} ({len(values)} split{'' if len(values) == 1 else 's'})"
        plot = tag("svg", *parts, width="100%", height=26, role="img", aria_label=f"{label}: {text}")
        cells = [tag("span", label), tag("div", plot, class_="fplot"), tag("span", text, class_="num")]
        lines.append(tag("div", *cells, class_="frow"))
    foot = _foot(axis, ticks, tick_text(ticks, scale), f"{metric}{' (%)' if scale > 1 else ''}")
    return tag("figure", tag("div", *lines, foot, class_="forest"), class_="chart wide")


def _foot(axis: Axis, ticks: Sequence[float], texts: Sequence[str], title: str) -> Html:
    labels = [tag("span", text, style=f"left:{axis.at(tick)}%") for tick, text in zip(ticks, texts, strict=True)]
    scale = tag("div", *labels, class_="xt")
    return tag("div", tag("span", ""), scale, tag("span", title, class_="xlab"), class_="frow ffoot")
