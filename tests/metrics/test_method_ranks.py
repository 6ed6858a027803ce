"""Ranks of methods over data sets: Friedman and Nemenyi again with plain loops, and against published numbers."""

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from m3col.errors import InputError
from m3col.metrics import ranks
from m3col.plots import rank_plots

# Demsar (2006), table 6: AUC of C4.5 and three variants on 14 data sets.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip


def slow_ranks(row: tuple[float, ...]) -> list[float]:
    found = []
    for score in row:
        better = sum(other > score for other in row)
        tied = sum(other == score for other in row)
        found.append(better + (tied + 1) / 2)
    return found


def slow_friedman(table: list[list[float]]) -> float:
    """Friedman's statistic with the usual divisor for ties: 1 - sum (t^3 - t) / (D M (M^2 - 1))."""
    count, methods = len(table), len(table[0])
    total = 0.0
    for m in range(methods):
        total += (sum(row[m] for row in table) / count) ** 2
    statistic = 12 * count / (methods * (methods + 1)) * (total - methods * (methods + 1) ** 2 / 4)
    ties = 0.0
    for row in table:
        for value in set(row):
            times = row.count(value)
            ties += times**3 - times
    return statistic / (1 - ties / (count * methods * (methods**2 - 1)))


def test_ranks_and_statistic_equal_plain_loops_and_scipy() -> None:
    table = [slow_ranks(row) for row in DEMSAR]
    assert ranks.ranks(DEMSAR).tolist() == table
    assert ranks.ranks(-np.asarray(DEMSAR), higher_is_better=False).tolist() == table
    got = ranks.compare(DEMSAR, ["C4.5", "m", "cf", "m,cf"])
    assert got.statistic == pytest.approx(slow_friedman(table), abs=1e-9)
    assert got.statistic == pytest.approx(friedmanchisquare(*np.asarray(DEMSAR).T).statistic, abs=1e-9)
    assert got.mean_ranks == pytest.approx([sum(row[m] for row in table) / 14 for m in range(4)])
    count, methods = 14, 4
    assert got.f_statistic == pytest.approx((count - 1) * got.statistic / (count * (methods - 1) - got.statistic))


def test_published_numbers() -> None:
    got = ranks.compare(DEMSAR, ["C4.5", "m", "cf", "m,cf"])
    # He prints mean ranks 3.143, 2.000, 2.893, 1.964 and a critical difference of 1.25 (alpha 0.05), 1.12 (0.10).
    assert got.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert got.critical_difference == pytest.approx(1.25, abs=0.005)
    assert ranks.critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)
    assert got.p_value < 0.05
    # His table 5 of q_0.05.
    for methods, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        expected = q * math.sqrt(methods * (methods + 1) / 6)
        assert ranks.critical_difference(methods, 1) == pytest.approx(expected, rel=1e-3)


def test_groups_are_the_largest_ones_without_a_distinguishable_pair() -> None:
    got = ranks.RankComparison(("d", "a", "c", "b"), (4.0, 1.0, 2.6, 1.5), 1.0, 1.0, 0.01, 1.2, 0.05, 9)
    assert got.groups() == [("a", "b"), ("b", "c")]
    near = ranks.RankComparison(("a", "b", "c"), (1.0, 1.2, 1.4), 1.0, 1.0, 0.5, 1.2, 0.05, 9)
    assert near.groups() == [("a", "b", "c")]  # and not what is in it
    assert ranks.RankComparison(("a", "b"), (1.0, 2.0), 1.0, 1.0, 0.01, 0.5, 0.05, 9).groups() == []


def test_ties_everywhere_and_equal_ranks_everywhere() -> None:
    tied = ranks.compare([[1, 1, 1], [2, 2, 2]], "abc")
    assert math.isnan(tied.statistic) and tied.p_value == 1.0
    same = ranks.compare([[3, 2, 1]] * 4, "abc")
    assert same.f_statistic == math.inf and same.p_value == 0.0


def test_every_fault_of_the_arguments_is_reported() -> None:
    with pytest.raises(InputError) as raised:
        ranks.compare([[1.0, math.nan], [1.0, 2.0]], ["a"], alpha=2)
    assert len(raised.value.faults) == 3
    with pytest.raises(InputError, match=r"data sets >= 2"):
        ranks.compare([[1.0, 2.0]], ["a", "b"])


def test_the_figure_names_every_method_and_joins_the_groups() -> None:
    got = ranks.RankComparison(("d$_1", "a", "c", "b"), (4.0, 1.0, 2.6, 1.5), 1.0, 1.0, 0.01, 1.2, 0.05, 9)
    figure = rank_plots.critical_difference(got)
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(f"{rank:.2f}" in texts for rank in got.mean_ranks) and "critical difference 1.20" in texts
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 3.5]
    assert len(thick) == len(got.groups())
    figure.savefig("/dev/null", format="png")
