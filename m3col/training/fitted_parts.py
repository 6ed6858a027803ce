"""What is fitted after an epoch and not trained by the optimizer: linear classifiers, and weights of heads.

Rank 0 fits, and all ranks get the same result.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from m3col import randomness
from m3col.config.schema import RunConfig
from m3col.data import splits
from m3col.data.dataset import Split
from m3col.distributed import RankContext
from m3col.errors import InputError, TrainingFailed
from m3col.inputs.base import Source
from m3col.methods.base import Method
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.methods.settings import stack_share
from m3col.methods.supervised import SupervisedMethod
from m3col.tasks.base import Task


class Trainer(Protocol):
    """What is needed of `m3col.training.fold_trainer.FoldTrainer`, which imports this module."""

    config: RunConfig
    fold: int
    seed: int
    ranks: RankContext
    task: Task
    device: torch.device
    dtype: torch.dtype
    method: Method
    held_out: Split | None
    held_out_inputs: dict[str, Source]

    @property
    def labels(self) -> NDArray[Any]: ...

    def features(self) -> np.ndarray: ...

    def head_outputs(self, inputs: Mapping[str, Source]) -> np.ndarray: ...


def divided(config: RunConfig, train: Split, task: Task, *, fold: int) -> tuple[Split, Split | None]:
    """The samples of a training fold that train the network, and those that fit the weights of its heads.

    Args:
        config: the config of the run.
        train: the samples of the training fold.
        task: defines the strata.
        fold: number of the fold, which keys the draw.

    Returns:
        All samples and None where the method has no such weights.

    Raises:
        InputError: a class has too few samples for both parts.
    """
    share = stack_share(config)
    if share is None:
        return train, None
    faults = splits.held_out_faults(train, task, where="objective.stack_share")
    if faults:
        raise InputError(faults)
    seed = randomness.torch_seed(seed=config.train.seed, fold=fold, epoch=0, purpose="stacking")
    part = splits.held_out(train, share, seed=seed, task=task)
    kept = train.take(part.train)
    if not all(splits.stratum_counts(kept, task)):
        raise InputError(
            ["objective.stack_share: the groups of the data cannot be divided so that the network sees every class; "
             "take objective.decision: fused"]
        )  # fmt: skip
    return kept, train.take(part.validation)


def fit(trainer: Trainer) -> None:
    """Fits what the method has of such parts, to the present weights of its network.

    Raises:
        TrainingFailed: embeddings or outputs are not finite.
    """
    if isinstance(trainer.method, SelfSupervisedMethod):
        _fit_linear(trainer, trainer.method)
    elif isinstance(trainer.method, SupervisedMethod) and trainer.held_out is not None:
        _fit_stacker(trainer, trainer.method, trainer.held_out)


def _fit_linear(trainer: Trainer, method: SelfSupervisedMethod) -> None:
    """Fits the linear classifier of a method without labels to its embeddings of the training fold."""
    features = trainer.features()
    if not np.isfinite(features).all():  # on all ranks
        raise TrainingFailed(f"embeddings of the training samples are not finite (fold {trainer.fold})")
    seed = randomness.torch_seed(seed=trainer.seed, fold=trainer.fold, epoch=0, purpose="evaluation")
    fitted = None
    if trainer.ranks.is_rank_zero:
        weight = trainer.task.class_weights(trainer.config.objective.class_weight, trainer.labels)
        fitted = trainer.task.linear_model(features, trainer.labels, weight=weight, seed=seed)
    fitted = trainer.ranks.broadcast(fitted)
    assert fitted is not None
    place: dict[str, Any] = {"dtype": trainer.dtype, "device": trainer.device}
    method.set_evaluation(torch.as_tensor(fitted.weight, **place), torch.as_tensor(fitted.bias, **place))


def _fit_stacker(trainer: Trainer, method: SupervisedMethod, held_out: Split) -> None:
    """Fits the weights of the heads to the samples of the training fold that the network was not trained on."""
    heads = trainer.head_outputs(trainer.held_out_inputs)
    if not np.isfinite(heads).all():  # on all ranks
        raise TrainingFailed(f"outputs of the held-out samples are not finite (fold {trainer.fold})")
    fitted, labels = None, held_out.labels
    assert labels is not None and method.stacker is not None
    if trainer.ranks.is_rank_zero:
        weight = trainer.task.class_weights(trainer.config.objective.class_weight, trainer.labels)
        fitted = trainer.task.stacked(heads, labels, weight=weight)
    fitted = trainer.ranks.broadcast(fitted)
    assert fitted is not None
    method.stacker.store(fitted)
