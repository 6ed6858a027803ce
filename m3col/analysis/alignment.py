"""Alignment and uniformity of embeddings on the unit sphere.

Letters: N samples, P embedding width; u [N, P] rows divided by their L2 norm.
Paper: Wang and Isola, arXiv 2005.10242, section 4.1, with the exponents alpha = 2 and t = 2:

    alignment(u, v) = mean over i of |u_i - v_i|^alpha
    uniformity(u)   = log of the mean over pairs i < j of exp(-t |u_i - u_j|^2)

Both are lower for better embeddings. Alignment is 0 where both rows of every pair are equal, and 2 for unrelated
directions. Uniformity is 0 where all rows are equal, and about -4 where they are spread over a sphere of many
dimensions.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis.context import AnalysisContext, Result
from m3col.plots import fonts, style
from m3col.plots.model_plots import COLOURS, INK

_FEWEST = 2  # samples

_MOST = 1000  # samples, each of which is encoded three times

_BLOCK = 1024  # rows whose distances are computed at once

VIEWS = ("a", "b")

_UNIFORMITY = "uniformity"


def alignment(a: NDArray[np.float64], b: NDArray[np.float64], *, alpha: float = 2.0) -> float:
    """The mean distance of paired rows on the unit sphere, to the power `alpha`.

    Args:
        a: [N, P] embeddings; rows are divided by their L2 norm here.
        b: [N, P] embeddings of the same samples.
        alpha: the exponent.

    Returns:
        L_align of Wang and Isola, section 4.1: 0 at best, 2^alpha at worst.

    Example:
        >>> alignment(np.eye(2), 3 * np.eye(2))
        0.0
        >>> round(alignment(np.eye(2), np.eye(2)[::-1]), 6)
        2.0
    """
    return float(np.mean(np.linalg.norm(_unit(a) - _unit(b), axis=1) ** alpha))


def uniformity(a: NDArray[np.float64], *, t: float = 2.0) -> float:
    """How evenly embeddings are spread over the unit sphere.

    Args:
        a: [N, P] embeddings, N >= 2; rows are divided by their L2 norm here.
        t: the factor of the squared distances.

    Returns:
        L_uniform of Wang and Isola, section 4.1, over all pairs of different rows: 0 at worst.

    Example:
        >>> round(uniformity(np.eye(2)), 6)
        -4.0
    """
    rows = _unit(a)
    count, squares, total = len(rows), (rows**2).sum(axis=1), 0.0  # squares are 1, but 0 for a row of zeros
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        distances = squares[block, None] + squares - 2 * rows[block] @ rows.T
        total += float(np.exp(-t * np.maximum(distances, 0)).sum())
    # Each row is at distance 0 of itself, which is no pair.
    return float(np.log(max(total - count, np.finfo(float).tiny) / (count * (count - 1))))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    if len(case.test) < _FEWEST:
        return f"at least {_FEWEST} test samples are needed, but there is one"
    if len(case.modalities) > 1 or case.predictor.members[0].augments:
        return None
    return "needs pairs to compare: two modalities, or an augmentation, which has two views"


def run(case: AnalysisContext) -> Result:
    """Returns the table of `measures` and its figure."""
    table = measures(case)
    samples = int(table["samples"].iloc[0])
    text = (
        f"Embeddings of {samples:,} test samples on the unit sphere (Wang and Isola 2020): lower is better for both. "
        "Alignment is the mean squared distance of two embeddings of the same sample, 2 for unrelated ones: of two "
        "modalities, or of two augmentations (views) as in training. Uniformity is about -4 where "
        "samples are spread evenly, and 0 where all have the same embedding. Modalities are aligned in what both of "
        "them show; what only one shows cannot be aligned."
    )  # fmt: skip
    without = "" if case.predictor.members[0].augments else " No modality is augmented, so that views are equal."
    return Result(table, {"alignment": _draw(table)}, f"{text}{without}{case.member_note()}")


def measures(case: AnalysisContext) -> pd.DataFrame:
    """Alignment of every two embeddings, of the two views of each, and uniformity of each.

    Columns: measure ("alignment" or "uniformity"), first, second (an embedding, or "view b" of the same; empty for
    uniformity), value, samples, member (the ensemble member that computed the embeddings). Views have rows where a
    modality is augmented.
    """
    at, member = case.subsample("alignment", most=min(case.options.samples, _MOST)), case.predictor.members[0]
    inputs = {name: column for name, column in case.test.take(at).inputs.items() if name in case.modalities}
    embeddings = member.compared(member.sources(inputs))
    rows = [
        {"measure": "alignment", "first": a, "second": b, "value": alignment(embeddings[a], embeddings[b])}
        for a, b in combinations(embeddings, 2)
    ]
    if member.augments:
        seed = case.options.seed
        one, two = (member.compared(member.augmented_sources(inputs, seed=seed, view=view)) for view in VIEWS)
        rows += [
            {"measure": "alignment", "first": f"{name} (view a)", "second": f"{name} (view b)",
             "value": alignment(one[name], two[name])}
            for name in embeddings
        ]  # fmt: skip
    rows += [
        {"measure": _UNIFORMITY, "first": name, "second": "", "value": uniformity(value)}
        for name, value in embeddings.items()
    ]
    return pd.DataFrame([row | {"samples": len(at), "member": 1} for row in rows])


def _draw(table: pd.DataFrame) -> Figure:
    parts = {str(name): rows for name, rows in table.groupby("measure", sort=False)}
    figure = style.figure(9.6, 1.2 + 0.42 * max(len(rows) for rows in parts.values()))
    for number, (measure, rows) in enumerate(parts.items()):
        axes = figure.add_subplot(1, len(parts), number + 1)
        labels = [
            first if not second else f"{first} - {second}"
            for first, second in zip(rows["first"], rows["second"], strict=True)
        ]
        values = rows["value"].to_numpy(float)
        axes.barh(range(len(values)), values, 0.6, color=COLOURS[number])
        for place, value in enumerate(values):
            axes.text(
                value, place, f" {value:.2f} ", va="center", ha="left" if value >= 0 else "right", fontsize=8, color=INK
            )
        style.dress(axes, title=f"{measure.capitalize()} (lower is better)", grid="x")
        axes.set_yticks(range(len(values)), fonts.names(labels, "pair"))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.18)
        axes.locator_params(axis="x", nbins=5)
    return figure
