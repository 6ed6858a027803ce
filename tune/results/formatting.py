"""Formats numbers and tables as text."""

import numpy as np

from m3col.metrics import spec

_MANY = 1000  # with more test samples, percentages have a second decimal

EMPTY = "–"


def is_percent(metric: str) -> bool:
    """Whether tables show 100 times the value of this metric."""
    return spec.of(metric).unit == "%"


def shown(value: float, metric: str, *, samples: int = 0, sign: bool = False) -> str:
    """Formats a score: a percentage with one decimal, or two with many samples; other metrics with three decimals, or
    with four significant digits where they have the unit of the targets."""
    if not np.isfinite(value):
        return EMPTY
    decimals = (2 if samples > _MANY else 1) if is_percent(metric) else 3
    form = f"{'+' if sign else ''}{'.4g' if spec.of(metric).has_unit else f'.{decimals}f'}"
    return f"{100 * value if is_percent(metric) else value:{form}}".replace("-", "−")


def p_value(value: float) -> str:
    """Formats a p-value."""
    if not np.isfinite(value):
        return EMPTY
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def grid(columns: dict[str, list[str]]) -> str:
    """Returns a Markdown table. The first column is left-aligned, the others right-aligned."""
    head = f"| {' | '.join(columns)} |"
    rule = "|---|" + "---:|" * (len(columns) - 1)
    # Names of rows may contain any character; an unescaped | would end the cell.
    columns = {name: [cell.replace("|", "\\|") for cell in cells] for name, cells in columns.items()}
    body = [f"| {' | '.join(cells)} |" for cells in zip(*columns.values(), strict=True)]
    return "\n".join([head, rule, *body])
