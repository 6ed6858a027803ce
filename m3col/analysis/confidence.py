"""The confidence of a model on test samples and on random inputs.

Paper: Kumar et al., arXiv 2409.17777, section 4.2 and Fig. 5; for what differs see m3col.analysis.modality_noise.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis import modality_noise, robustness
from m3col.analysis.context import AnalysisContext, Result
from m3col.methods.supervised import FUSED
from m3col.plots import style
from m3col.plots.model_plots import COLOURS, FAINT, INK

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 25
_NAMES = {"test": "test samples", "random": "random inputs"}


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    return case.fusion_obstacle()


def run(case: AnalysisContext) -> Result:
    """Returns the quantiles of both distributions of confidence, and their histograms."""
    distributions = confidences(case)
    text = (
        "The probability of the most probable class by the fused head, on test samples and on inputs of which all "
        "modalities are Gaussian noise with the statistics of the training split (Fig. 5 of the paper). "
        "A model that knows what it does not know keeps the second one to the left, near the dotted line of guessing."
        f"{modality_noise.difference(case)}"
    )
    return Result(quantiles(distributions), {"confidence": _draw(distributions, case.task.width)}, text)


def confidences(case: AnalysisContext) -> dict[str, NDArray[np.float64]]:
    """The fused head's largest probability [N] of each test sample ("test") and of as many random inputs ("random")."""
    at = case.subsample("confidence")
    members = robustness.noisy_members(case, at)
    votes = robustness.mean_votes(members, case.modalities, modality_noise.Draw(case.options.seed, 0))
    return {"test": case.votes[FUSED][at].max(axis=1), "random": votes[FUSED].max(axis=1)}


def quantiles(distributions: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """One row for test samples and one for random inputs: inputs, samples, mean, q05, q25, q50, q75, q95."""
    return pd.DataFrame(
        {"inputs": name, "samples": len(value), "mean": float(value.mean())}
        | {f"q{round(100 * q):02d}": float(np.quantile(value, q)) for q in QUANTILES}
        for name, value in distributions.items()
    )


def _draw(distributions: dict[str, NDArray[np.float64]], classes: int) -> Figure:
    figure = style.figure(6.2, 3.8)
    axes: Any = figure.add_subplot()
    edges = np.linspace(0, 1, _BINS + 1)
    for colour, (name, value) in zip(COLOURS, distributions.items(), strict=False):
        weights = np.full(len(value), 100 / len(value))
        axes.hist(value, edges, weights=weights, color=colour, alpha=0.35)
        axes.hist(value, edges, weights=weights, color=colour, histtype="step", linewidth=1.8,
                  label=f"{_NAMES[name]} (median {np.median(value):.2f})")  # fmt: skip
    axes.axvline(1 / classes, color=FAINT, linestyle=":", linewidth=1.5, label=f"guessing among {classes} classes")
    title = "Confidence on test samples and on noise"
    style.dress(axes, title=title, x="largest probability of the fused head", y="inputs, %", grid="y")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    return figure
