"""Scores of the fused prediction where a modality is missing at test time.

Models with a fusion transformer leave out the tokens of the modality. Others have an embedding of zeros in its place,
as for samples of a training that lack a modality.

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
from m3col.methods.supervised import FUSED


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why the analysis does not apply to a model, or None where it applies."""
    if (reason := subset_scores.one_modality(case)) is not None:
        return reason
    return None if case.predictor.primary == FUSED else "the model has no prediction from all modalities"


def run(case: AnalysisContext) -> Result:
    """Returns the table of `missing` and its figure."""
    table = missing(case)
    chance = case.task.score("balanced_accuracy", case.labels, case.task.constant(case.labels, len(case.labels)))
    figure = subset_scores.bars(
        {"fused prediction": table}, [*table["modalities"]], title="A modality missing at test time", chance=chance
    )
    masks = case.predictor.members[0].method.sequences
    how = (
        "the fusion leaves out its tokens, which the training of comm does as well"
        if masks
        else "an embedding of zeros is put in its place, which the model has not seen unless training samples lacked it"
    )
    text = (
        f"The fused prediction of the trained model, with nothing fitted again, where a modality is missing: {how}. "
        "A score that falls little does not depend on that modality alone. Whiskers are 95 % intervals over samples. "
        f"{subset_scores.BALANCED_NOTE}"
    )
    return Result(table, {"missing": figure}, text)


def missing(case: AnalysisContext) -> pd.DataFrame:
    """Scores of the fused prediction on test samples: of all modalities, without each, and of each alone.

    Columns: modalities ("all", "without <name>" and, with more than two, "<name> alone"), samples, and each of
    `subset_scores.METRICS` with the ends of its interval and `<metric>_loss`, what is lost against all modalities.
    """
    at = case.subsample("missing")
    split = subset_scores.complete(case.test.take(at))
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
