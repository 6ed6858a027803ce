"""Test predictions of the linear evaluations of published code, from the embeddings of a trained model."""

from collections.abc import Mapping

import numpy as np

from m3col.data.dataset import Split
from m3col.evaluation.published_probes import Samples
from m3col.inputs.base import Source
from m3col.training.fold_trainer import FoldTrainer


def predict(trainer: FoldTrainer, validation: Split | None, test: Mapping[str, Source]) -> dict[str, list[np.ndarray]]:
    """Fits the published linear evaluations of the task to embeddings, and predicts the test inputs.

    All ranks must call it; rank 0 fits.

    Args:
        trainer: a trained model of a method without labels.
        validation: the validation split of the data set; None: there is none.
        test: what `FoldTrainer.prepare` returned for the test inputs, N samples. No labels are needed.

    Returns:
        By name of the protocol the outputs [N, C] of its candidates; the best one on the test split is its result.
        Empty on other ranks, and where embeddings are not finite.
    """
    fitted, applied, chosen = Samples(trainer.features(), trainer.labels), trainer.features(test), None
    if validation is not None and validation.labels is not None:
        inputs = trainer.prepare(validation.inputs, validation.present)
        chosen = Samples(trainer.features(inputs), validation.labels)
    finite = all(np.isfinite(samples.x).all() for samples in (fitted, chosen) if samples is not None)
    if not trainer.ranks.is_rank_zero or not finite:
        return {}
    probes = trainer.task.published_probes(fitted, chosen)
    return {name: [model.outputs(applied) for model in models] for name, models in probes.items()}
