"""Looking at a trained model: figures and tables of what it has learnt, from its checkpoint and a data set.

Paper: Kumar et al., arXiv 2409.17777, section 4.2 and appendices A.5 to A.7. A new analysis is one entry in `TABLE`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from m3col.analysis import confidence, heatmaps, modality_errors, robustness, umap_plot
from m3col.analysis.context import AnalysisContext, Options, Result
from m3col.data.columns import Kind


@dataclass(frozen=True)
class Analysis:
    """`needs`: kinds of modality that have to be there, () for any; `obstacle`: why it does not apply, None where it
    does; `run`: InputError where something is missing or unreadable."""

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
        Analysis("umap", "The space of embeddings", (), umap_plot.obstacle, umap_plot.run),
        Analysis("heatmaps", "Words in images", ("image", "text"), heatmaps.obstacle, heatmaps.run),
    )
}


def names() -> tuple[str, ...]:
    """The names of all analyses."""
    return tuple(TABLE)


__all__ = ["TABLE", "Analysis", "Case", "Options", "Result", "names"]
