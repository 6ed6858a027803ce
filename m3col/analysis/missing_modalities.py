"""Scores of the fused prediction where a modality is missing at test time.

Models whose fusion takes any subset of the modalities leave it out (`Method.leaves_out`). Others have an embedding of
zeros in its place, as for samples of a training that lack a modality.

Letters: N samples, C classes.
Paper: Dufumier et al., arXiv 2409.07402, section 3: the fusion takes any subset of the modalities.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from m3col.analysis import subset_scores
from m3col.analysis.context import AnalysisContext, Result
from m3col.data.columns import ModalityData
from m3col.ensemble_member import Member
from m3col.inputs.batches import PartialSource
from m3col.methods.comm import CoMM
from m3col.methods.supervised import FUSED


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    if (reason := subset_scores.obstacle(case)) is not None:
        return reason
    return None if case.predictor.primary == FUSED else "the model has no prediction from all modalities"


def run(case: AnalysisContext) -> Result:
    """Returns the table of `missing` and its figure."""
    table = missing(case)
    chance = case.task.score("balanced_accuracy", case.labels, case.task.constant(case.labels, len(case.labels)))
    figure = subset_scores.bars(
        {"fused prediction": table}, [*table["modalities"]], title="A modality missing at test time", chance=chance
    )
    text = (
        "The fused prediction of the trained model, with nothing fitted again, where a modality is missing: "
        f"{_how(case)}. "
        "A score that falls little does not depend on that modality alone. Whiskers are 95 % intervals over samples. "
        f"{subset_scores.BALANCED_NOTE}"
    )
    return Result(table, {"missing": figure}, text)


def _how(case: AnalysisContext) -> str:
    """What is done about the modality, and whether the training has done it as well."""
    method = case.predictor.members[0].method
    unseen = "which the model has not seen unless training samples lacked it"
    if not method.leaves_out:
        return f"an embedding of zeros is put in its place, {unseen}"
    left_out = "the fusion leaves out its tokens" if method.sequences else "the fusion leaves it out"
    if not isinstance(method, CoMM) or method.settings.terms == "full":
        return f"{left_out}, {unseen}"
    alone = f"{left_out}, and the loss of the training has each modality alone"
    return alone if len(case.modalities) == 2 else f"{alone}, but not several without the others"


def missing(case: AnalysisContext) -> pd.DataFrame:
    """Scores of the fused prediction on test samples with all modalities: of all, without each, and of each alone.

    Columns: modalities ("all", "without <name>" and, with more than two, "<name> alone"), samples, and each of
    `subset_scores.METRICS` with the ends of its interval and `<metric>_loss`, what is lost against all modalities.
    """
    split = case.test.take(case.subsample("missing", subset_scores.complete_rows(case.test)))
    assert split.labels is not None
    rows = []
    for name, subset in _present(case.modalities).items():
        predictions = [outputs(member, split.inputs, subset)[FUSED] for member in case.predictor.members]
        rows.append({"modalities": name, **subset_scores.scores(case, split.labels, np.mean(predictions, axis=0))})
    table = pd.DataFrame(rows)
    for metric in subset_scores.METRICS:
        table[f"{metric}_loss"] = table[metric].iloc[0] - table[metric]
    return table


def _present(modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The modalities that are there, by a name for the table."""
    without = {f"without {name}": tuple(n for n in modalities if n != name) for name in modalities}
    alone: dict[str, tuple[str, ...]] = {f"{name} alone": (name,) for name in modalities}
    return {"all": modalities} | without | (alone if len(modalities) > 2 else {})


def outputs(member: Member, inputs: dict[str, ModalityData], subset: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Predictions [N, C] of each head of one model from the modalities of `subset`, with all others missing."""
    sources = member.sources({name: inputs[name] for name in member.method.modalities})
    for name in sources.keys() - set(subset):
        nowhere = torch.zeros(len(sources[name]), dtype=torch.bool)
        sources[name] = PartialSource(sources[name], nowhere, torch.device("cpu"))
    return member.outputs(sources)
