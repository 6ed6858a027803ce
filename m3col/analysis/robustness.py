"""Accuracy with one modality replaced by noise.

Letters: N samples, C classes, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, section 4.2 and Table 5; for what differs see m3col.analysis.modality_noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from m3col.analysis import modality_noise
from m3col.analysis.context import AnalysisContext, Result
from m3col.data.checks import naming
from m3col.data.columns import IntArray, ModalityData
from m3col.ensemble_member import Member
from m3col.inputs.base import Source
from m3col.methods.supervised import FUSED
from m3col.plots import fonts, style
from m3col.plots.model_plots import COLOURS, FAINT, INK

CLEAN = "none"


@dataclass(frozen=True)
class NoisyMember:
    """One ensemble member with samples of which any modality can be replaced by noise.

    The embeddings of the original samples are computed once, in `clean`.
    """

    member: Member
    sources: Mapping[str, Source]
    moments: Mapping[str, modality_noise.Moments]
    clean: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, member: Member, inputs: Mapping[str, ModalityData], training: Mapping[str, ModalityData]
    ) -> "NoisyMember":
        """Prepares the samples `inputs`; the noise has the mean and standard deviation of `training`."""
        sources = member.sources(inputs)
        return cls(member, sources, modality_noise.moments(member, training), member.encode(sources))

    def votes(self, modalities: tuple[str, ...], draw: modality_noise.Draw) -> dict[str, NDArray[np.float64]]:
        """Probabilities [N, C] of each head with these modalities replaced by noise."""
        noisy = {
            name: modality_noise.replaced(self.sources[name], name, self.moments[name], draw, self.member.dtype)
            for name in modalities
        }
        embeddings = dict(self.clean) | (self.member.encode(noisy) if noisy else {})
        return self.member.classify(embeddings)


def noisy_members(case: AnalysisContext, at: IntArray) -> list[NoisyMember]:
    """Prepares the test samples at `at` for each member.

    The statistics of the noise come from at most `options.samples` training samples.
    """
    inputs = case.test.take(at).inputs
    count, most = len(case.dataset.train), case.options.samples
    training = case.dataset.train
    if count > most:
        training = training.take(case.subsample("training", np.arange(count)))
    return [
        NoisyMember.of(
            member, {m: inputs[m] for m in case.modalities}, {m: training.inputs[m] for m in case.modalities}
        )
        for member in case.predictor.members
    ]


def mean_votes(
    members: list[NoisyMember], modalities: tuple[str, ...], draw: modality_noise.Draw
) -> dict[str, NDArray[np.float64]]:
    """Probabilities [N, C] of each head, averaged over the members."""
    by_member = [member.votes(modalities, draw) for member in members]
    return {name: np.mean([votes[name] for votes in by_member], axis=0) for name in by_member[0]}


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    return case.fusion_obstacle()


def run(case: AnalysisContext) -> Result:
    """Returns the table of `accuracies` and its figure."""
    table = accuracies(case)
    repeats = case.options.repeats
    text = (
        "Accuracy on the test split as it is, and with one modality replaced by Gaussian noise that has the mean and "
        f"standard deviation of the training split (Table 5 of the paper; bars are the mean of {repeats} draws, "
        "whiskers their standard deviation). A fused bar that falls little does not depend on that modality alone; the "
        f"dashed line is what guessing the most frequent class would reach.{modality_noise.difference(case)}"
    )
    return Result(table, {"robustness": _draw(table, case)}, text)


def accuracies(case: AnalysisContext) -> pd.DataFrame:
    """Accuracy of each head with each modality replaced by noise; one row per replaced modality and head.

    Columns: replaced ("none" for the original samples), head, accuracy (mean over noise draws), sd (standard deviation
    over draws; 0 for "none"), draws, samples.
    """
    at = case.subsample("robustness")
    labels, members = case.labels[at], noisy_members(case, at)
    rows = []
    shown = {None: CLEAN} | {name: naming.apart(name, [CLEAN]) for name in case.modalities}
    for replaced in shown:
        draws = 1 if replaced is None else case.options.repeats
        scores: dict[str, list[float]] = {}
        for repeat in range(draws):
            names = () if replaced is None else (replaced,)
            for head, votes in mean_votes(members, names, modality_noise.Draw(case.options.seed, repeat)).items():
                scores.setdefault(head, []).append(float((case.task.decide(votes) == labels).mean()))
        rows += [
            {"replaced": shown[replaced], "head": head, "accuracy": float(np.mean(scores[head])),
             "sd": float(np.std(scores[head], ddof=1)) if draws > 1 else 0.0, "draws": draws, "samples": len(at)}
            for head in (FUSED, *case.heads)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _draw(table: pd.DataFrame, case: AnalysisContext) -> Figure:
    heads = list(dict.fromkeys(table["head"]))
    groups = list(dict.fromkeys(table["replaced"]))
    figure = style.figure(2.2 + max(1.3, 0.45 * len(heads)) * len(groups), 4.0)
    axes: Any = figure.add_subplot()
    width = 0.8 / len(heads)
    labels = fonts.names(heads, "head")
    for number, head in enumerate(heads):
        bars = table[table["head"] == head].set_index("replaced").loc[groups]
        x = np.arange(len(groups)) + (number - (len(heads) - 1) / 2) * width
        axes.bar(x, bars["accuracy"], width * 0.92, color=COLOURS[number % len(COLOURS)], label=labels[number])
        drawn = (bars["draws"] > 1).to_numpy()
        axes.errorbar(x[drawn], bars["accuracy"][drawn], bars["sd"][drawn], fmt="none", ecolor=INK, elinewidth=1,
                      capsize=2)  # fmt: skip
        for centre, value, spread in zip(x, bars["accuracy"], bars["sd"], strict=True):
            axes.text(centre, value + spread + 0.012, f"{100 * value:.0f}", ha="center", va="bottom", fontsize=8,
                      color=INK, zorder=4,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85})  # fmt: skip
    frequent = case.task.score("accuracy", case.labels, case.task.constant(case.labels, len(case.labels)))
    axes.axhline(frequent, color=FAINT, linestyle="--", linewidth=1.2, label="most frequent class")
    style.dress(axes, title="Accuracy with one modality as noise", y="accuracy on test, %", grid="y")
    modalities = fonts.names(groups, "modality")
    axes.set_xticks(
        range(len(groups)),
        ["as it is" if name == CLEAN else f"{shown}\nis noise" for name, shown in zip(groups, modalities, strict=True)],
    )
    axes.set_ylim(0, 1.08)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{value:.0f}" for value in np.linspace(0, 100, 6)])
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
