"""The figure of mean ranks with the critical difference (Demsar 2006, figure 1)."""

from matplotlib.figure import Figure

from m3col.metrics.ranks import RankComparison
from m3col.plots import fonts, style

_ROW = 0.28  # inches between two names


def critical_difference(comparison: RankComparison, *, title: str = "Mean ranks") -> Figure:
    """Draws the methods on an axis of mean ranks; a bar joins those that are not distinguishable.

    The best rank is on the left. The span above the axis is as long as the critical difference.

    Args:
        comparison: the methods.
        title: above the figure.

    Returns:
        The figure.
    """
    order = sorted(range(len(comparison.methods)), key=lambda m: comparison.mean_ranks[m])
    names = [comparison.methods[m] for m in order]
    ranks = dict(zip(names, (comparison.mean_ranks[m] for m in order), strict=True))
    groups, count = comparison.groups(), len(names)
    half = (count + 1) // 2  # the better half is named on the left
    bars, rows = 0.35 * (len(groups) + 1), max(half, count - half)
    figure = style.figure(7.0, 1.4 + _ROW * rows + 0.12 * len(groups))
    axes = figure.add_subplot()
    span = count - 1
    axes.set_xlim(1 - 0.55 * span, count + 0.55 * span)
    axes.set_ylim(-bars - rows - 0.3, 1.6)
    axes.plot([1, count], [0, 0], color=style.INK, linewidth=1.2)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.18], color=style.INK, linewidth=1.0)
        axes.text(rank, 0.28, str(rank), ha="center", va="bottom", fontsize=9, color=style.INK)
    shown = min(comparison.critical_difference, span)
    axes.plot([1, 1 + shown], [1.15, 1.15], color=style.COLOURS[1], linewidth=2.0)
    label = f"critical difference {comparison.critical_difference:.2f}"
    axes.text(1, 1.25, label, ha="left", va="bottom", fontsize=9, color=style.COLOURS[1])
    for place, name in enumerate(names):
        is_left = place < half
        y = -bars - (place if is_left else count - 1 - place) - 0.5
        x = 1 - 0.08 * span if is_left else count + 0.08 * span
        axes.plot([ranks[name], ranks[name], x], [0, y, y], color=style.FAINT, linewidth=0.9)
        text = f"{fonts.literal(name)}  {ranks[name]:.2f}" if is_left else f"{ranks[name]:.2f}  {fonts.literal(name)}"
        axes.text(x, y, f" {text} ", ha="right" if is_left else "left", va="center", fontsize=9, color=style.INK)
    for number, group in enumerate(groups):
        y = -0.35 * (number + 1)
        ends = [ranks[group[0]] - 0.02 * span, ranks[group[-1]] + 0.02 * span]
        axes.plot(ends, [y, y], color=style.INK, linewidth=3.5, solid_capstyle="butt")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=style.INK)
    style.bare(axes)
    return figure
