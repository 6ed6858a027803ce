"""UMAP projections of the embeddings of each modality, and of those that the fused prediction is made from.

Letters: N samples, D embedding width, M modalities.
Paper: Kumar et al., arXiv 2409.17777, appendix A.6 and Fig. 7.
Differs: shows the ten most frequent classes of the test split instead of ten random ones.
"""

import importlib.util
import warnings
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis.context import AnalysisContext, Result
from m3col.data.checks import naming
from m3col.data.columns import IntArray
from m3col.errors import InputError
from m3col.plots import fonts, style
from m3col.plots.model_plots import INK

CLASSES = 10

FEWEST = 8  # samples; with fewer a projection shows nothing

JOINT = "joint"

_MARKERS = "os^Dv"  # in addition to colours, for readers who cannot distinguish all colours

_NEIGHBOURS = 15

_COLUMNS = 3

MISSING = "the package umap-learn is not installed; pip install 'm3col[analysis]'"


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why this analysis does not apply, or None where it applies."""
    if not installed():
        return MISSING
    count = len(chosen(case))
    return None if count >= FEWEST else f"at least {FEWEST} test samples are needed, but there are {count}"


def installed() -> bool:
    return importlib.util.find_spec("umap") is not None


def chosen(case: AnalysisContext) -> IntArray:
    """Positions of at most `options.samples` test samples of the ten most frequent classes."""
    among = np.flatnonzero(np.isin(case.labels, case.frequent(CLASSES)))
    return case.subsample("umap", among)


def run(case: AnalysisContext) -> Result:
    """Draws one panel per embedding. The table has one row per embedding and sample.

    Columns: embedding (a modality, or "joint" for that of all: their embeddings side by side, or what a model that
    fuses tokens gives for all of them), sample, class, x, y, member (the ensemble member that computed the
    embeddings). Raises InputError where umap-learn is not installed.
    """
    at = chosen(case)
    inputs = case.test.take(at).inputs
    embeddings = case.predictor.embeddings(inputs)
    embeddings = {naming.apart(name, [JOINT]): value for name, value in embeddings.items()}
    if len(embeddings) > 1:
        member = case.predictor.members[0]
        sources = member.sources({name: inputs[name] for name in case.modalities})
        (embeddings[JOINT],) = member.subset_features(sources, [case.modalities])
    projections = {name: project(value, case.options.seed) for name, value in embeddings.items()}
    names = np.asarray(case.dataset.classes)[case.labels[at]]
    table = pd.concat(
        [
            pd.DataFrame({"embedding": name, "sample": case.test.ids[at], "class": names, "x": xy[:, 0], "y": xy[:, 1],
                          "member": 1})
            for name, xy in projections.items()
        ],
        ignore_index=True,
    )  # fmt: skip
    text = (
        f"Embeddings of {len(at)} test samples of the {len(set(names))} most frequent classes, laid out in the plane "
        "so that neighbours stay neighbours (UMAP, by angle; Fig. 7 of the paper). Classes that form islands of their "
        f"own can be told apart by that embedding; distances between islands mean little.{case.member_note()}"
    )
    return Result(table, {"umap": _draw(table, case)}, text)


def project(embeddings: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """UMAP projection [N, 2] of embeddings [N, D] by cosine distance, the measure of the contrastive losses.

    Raises InputError where umap-learn is not installed.
    """
    try:
        from umap import UMAP  # its import compiles code, which takes seconds
    except ImportError:
        raise InputError([f"umap: {MISSING}"]) from None
    few = len(embeddings) <= 2 * _NEIGHBOURS
    reducer = UMAP(
        n_neighbors=min(_NEIGHBOURS, len(embeddings) - 1), min_dist=0.1, metric="cosine", random_state=seed % 2**32,
        n_jobs=1, init="random" if few else "spectral",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about disconnected graphs: well separated classes cause them
        return np.asarray(reducer.fit_transform(embeddings.astype(np.float32)), dtype=np.float64)


def _draw(table: pd.DataFrame, case: AnalysisContext) -> Figure:
    names = [case.dataset.classes[k] for k in case.frequent(CLASSES)]
    shown = fonts.names(names)
    panels = list(dict.fromkeys(table["embedding"]))
    titles = fonts.names(panels, "modality")
    columns = min(len(panels), _COLUMNS)
    lines = -(-len(panels) // columns)
    figure = style.figure(3.6 * columns, 3.5 * lines + 0.8)
    grid: Any = figure.subplots(lines, columns, squeeze=False)
    size = float(np.clip(4000 / max(len(table) / len(panels), 1), 4, 30))
    for number, axes in enumerate(grid.flat):
        style.bare(axes)
        if number >= len(panels):
            continue
        panel_rows = table[table["embedding"] == panels[number]]
        for k, name in enumerate(names):
            points = panel_rows[panel_rows["class"] == name]
            axes.scatter(points["x"], points["y"], s=size, color=colormaps["tab10"](k), alpha=0.75, linewidths=0,
                         marker=_MARKERS[k % len(_MARKERS)], label=shown[k])  # fmt: skip
        axes.set_title(titles[number], loc="left", fontsize=11, fontweight="bold", color=INK)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    longest = max(map(len, shown))
    fitting = max(1, int(3.6 * columns / (0.45 + 0.085 * longest)))
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=min(fitting, 5, len(names)), frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    handle: Any
    for handle in legend.legend_handles:
        handle.set_sizes([40])
        handle.set_alpha(1)
    return figure
