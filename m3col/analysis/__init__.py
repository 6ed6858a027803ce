"""Analyses of a trained model: figures and tables computed from its checkpoint and a labelled test split.

Paper: Kumar et al., arXiv 2409.17777, section 4.2 and appendices A.5 to A.7. A new analysis is one entry in `TABLE`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from m3col.analysis import (
    alignment,
    confidence,
    heatmaps,
    linear_subsets,
    missing_modalities,
    modality_errors,
    robustness,
    umap_plot,
)
from m3col.analysis.context import AnalysisContext, Options, Result
from m3col.data.columns import Kind


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        name: as in `--only` and in the names of its files.
        description: the heading on the page.
        needs: kinds of modality that the model must have; () for any.
        obstacle: returns why the analysis does not apply to a model, or None where it applies.
        run: computes the analysis. Raises InputError where an input is missing or unreadable.
    """

    name: str
    description: str
    needs: tuple[Kind, ...]
    obstacle: Callable[[AnalysisContext], str | None]
    run: Callable[[AnalysisContext], Result]


TABLE: dict[str, Analysis] = {
    entry.name: entry
    for entry in (
        Analysis(
            "errors", "Unimodal heads against the fused prediction", (), modality_errors.obstacle, modality_errors.run
        ),
        Analysis("robustness", "One modality replaced by noise", (), robustness.obstacle, robustness.run),
        Analysis("confidence", "Confidence on random inputs", (), confidence.obstacle, confidence.run),
        Analysis(
            "linear", "Linear evaluation of each modality and of all", (), linear_subsets.obstacle, linear_subsets.run
        ),
        Analysis("missing", "A modality missing at test time", (), missing_modalities.obstacle, missing_modalities.run),
        Analysis("alignment", "Alignment and uniformity of embeddings", (), alignment.obstacle, alignment.run),
        Analysis("umap", "The space of embeddings", (), umap_plot.obstacle, umap_plot.run),
        Analysis("heatmaps", "Words in images", ("image", "text"), heatmaps.obstacle, heatmaps.run),
    )
}


def names() -> tuple[str, ...]:
    """The names of all analyses."""
    return tuple(TABLE)


__all__ = ["TABLE", "Analysis", "AnalysisContext", "Options", "Result", "names"]
