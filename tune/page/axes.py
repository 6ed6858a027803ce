"""The frame of a chart: axes, ticks and marks at positions in percent, so that text keeps its size at every width."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from m3col.metrics import spec
from tune.page.markup import Html, escaped, joined, tag
from tune.results import formatting

_SHAPES = {
    "times": "M-3.5-3.5L3.5 3.5M-3.5 3.5L3.5-3.5",
    "diamond": "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
    "triangle": "M-5-4.5L5-4.5L0 4.5Z",
    "star": "M0-9L2.4-3L8.6-2.8L3.8 1.1L5.4 7.3L0 3.8L-5.4 7.3L-3.8 1.1L-8.6-2.8L-2.4-3Z",
}


@dataclass(frozen=True)
class Axis:
    """A linear axis.

    Attributes:
        low: its value at 0 %.
        high: its value at 100 %.
    """

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], *, margin: float = 0.05) -> "Axis":
        """Returns the axis that holds all finite values, with a margin as a share of their range."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        pad = (high - low) * margin or abs(high) * margin or margin
        return cls(low - pad, high + pad)

    def at(self, value: float) -> float:
        """Returns the position of a value in percent; a value beyond an end is at that end."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[float]:
        """Returns about `count` round values on the axis; of `whole` ones integers alone."""
        rough = (self.high - self.low) / max(1, count)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        step = max(1.0, float(round(step))) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def tick_text(ticks: Sequence[float], scale: float = 1.0) -> list[str]:
    """Returns the texts of ticks with as many decimals as their distance needs, times `scale` (100 for percent)."""
    values = [scale * value for value in ticks]
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    if max(map(abs, values), default=0.0) >= 1e5 or (values and step < 1e-5):
        return [f"{value:.3g}".replace("-", "−") for value in values]
    decimals = next((d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * 10**d), 6)
    return [f"{value + 0.0:.{decimals}f}".replace("-", "−") for value in values]


def metric_scale(metric: str) -> tuple[float, str]:
    """Returns by how much a chart multiplies the values of a metric, and the axis title with its unit."""
    name = metric.partition("/")[2] or metric
    return (100.0, f"{metric} (%)") if formatting.is_percent(name) else (1.0, metric)


def better_first(metric: str) -> int:
    """Returns 1 if higher values of a metric are better, else -1."""
    return 1 if spec.higher_is_better(metric) else -1


def mark(x: float, y: float, shape: str, class_: str, *, tip: str | None = None, radius: float = 4) -> Html:
    """Returns one mark at a position in percent from the left and from the top.

    Args:
        x: percent from the left.
        y: percent from the top.
        shape: "circle", or one of times, diamond, triangle and star.
        class_: its class in the style sheet.
        tip: text that appears under the pointer.
        radius: of a circle, in pixels.
    """
    if shape == "circle":
        return tag("circle", cx=f"{x}%", cy=f"{y}%", r=radius, class_=class_, data_tip=tip)
    path = tag("path", d=_SHAPES[shape], class_=class_, data_tip=tip)
    return tag("svg", path, x=f"{x}%", y=f"{y}%", overflow="visible", width=1, height=1)


def line(xs: Sequence[float], ys: Sequence[float], class_: str, *, tip: str | None = None) -> Html:
    """Returns a line through points in percent; draw it inside of `lines`."""
    points = " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))
    return tag("polyline", points=points, class_=class_, vector_effect="non-scaling-stroke", data_tip=tip)


def lines(parts: Iterable[Html]) -> Html:
    """Returns lines on a canvas of 100 times 100 that is stretched to the frame."""
    return tag("svg", *parts, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%")


def thinned(values: Sized, most: int) -> list[int]:
    """Returns at most `most` positions of a sequence, evenly spread, with its first and last one."""
    if len(values) <= most:
        return list(range(len(values)))
    return sorted({int(at) for at in np.linspace(0, len(values) - 1, most).round()})


@dataclass(frozen=True)
class Frame:
    """What surrounds a plot.

    Attributes:
        x: the horizontal axis.
        y: the vertical axis.
        x_title: below the horizontal axis.
        y_title: above the vertical axis.
        name: what the chart shows, for readers who cannot see it.
        y_scale: factor of the texts on the vertical axis, such as 100 for percent.
        x_whole: whether the horizontal axis has whole numbers only.
        height: in pixels.
        wide: whether it takes the whole width of the page.
    """

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    name: str
    y_scale: float = 1.0
    x_whole: bool = False
    height: int = 280
    wide: bool = True

    def top(self, value: float) -> float:
        """Returns the position of a value in percent from the top."""
        return round(100 - self.y.at(value), 2)

    def draw(self, parts: Iterable[Html], *, legend: Sequence[tuple[str, str, str]] = ()) -> Html:
        """Returns the figure.

        Args:
            parts: marks and lines, the first one at the back.
            legend: class, shape ("line", "band" or one of `mark`) and text of each entry.
        """
        x_ticks, y_ticks = self.x.ticks(whole=self.x_whole), self.y.ticks(4)
        grid = [
            tag("line", x1=0, x2="100%", y1=f"{self.top(y)}%", y2=f"{self.top(y)}%", class_="grid") for y in y_ticks
        ]
        plot = tag("svg", *grid, *parts, width="100%", height="100%", role="img", aria_label=self.name)
        y_texts = _ticks(y_ticks, tick_text(y_ticks, self.y_scale), lambda y: f"top:{self.top(y)}%")
        x_texts = _ticks(x_ticks, tick_text(x_ticks), lambda x: f"left:{self.x.at(x)}%")
        body = tag(
            "div", tag("div", y_texts, class_="yt"), tag("div", plot, class_="plot"), tag("div", x_texts, class_="xt"),
            class_="frame", style=f"--h:{self.height}px",
        )  # fmt: skip
        return tag(
            "figure", tag("div", self.y_title, class_="ylab"), body, tag("div", self.x_title, class_="xlab"),
            _legend(legend), class_="chart wide" if self.wide else "chart",
        )  # fmt: skip


def _ticks(values: Sequence[float], texts: Sequence[str], place: Callable[[float], str]) -> Html:
    return joined(tag("span", text, style=place(value)) for value, text in zip(values, texts, strict=True))


def _legend(entries: Sequence[tuple[str, str, str]]) -> Html:
    if not entries:
        return escaped("")
    items = []
    for class_, shape, text in entries:
        if shape == "line":
            key = tag("line", x1=1, x2=19, y1=8, y2=8, class_=class_)
        elif shape == "band":
            key = tag("rect", x=1, y=2, width=18, height=12, class_=class_)
        else:
            key = tag("svg", mark(0, 0, shape, class_), x=10, y=8, overflow="visible", width=1, height=1)
        items.append(tag("li", tag("svg", key, width=20, height=16, aria_hidden="true"), text))
    return tag("ul", *items, class_="legend")
