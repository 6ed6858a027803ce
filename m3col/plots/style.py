"""One style for all figures. They are drawn without pyplot, because its global state is not thread-safe."""

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT, GRID = "#22303c", "#8a97a3", "#e6eaee"

COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#862e9c", "#0b7285", "#a61e4d")


def figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    empty = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(empty)
    return empty


def dress(axes: Any, *, title: str, x: str = "", y: str = "", grid: str | None = "both") -> None:
    """Sets title and axis labels, and draws grid lines along `grid` ("x", "y" or "both"; None for none)."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    tidy(axes, grid=grid)


def tidy(axes: Any, *, grid: str | None = "both") -> None:
    """Styles ticks, frame and grid lines of axes that already have title and labels."""
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.grid(visible=False)
    if grid is not None:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def bare(axes: Any) -> None:
    """Removes ticks and frame, for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
