"""Methods that learn embeddings, most of them without labels. A linear classifier on these makes the predictions.

Letters: N samples in the global batch, n of them on this rank, F columns of the embedding that is evaluated, C outputs
of the task, P output width of the projector.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.inputs.base import Input
from m3col.methods.base import Method
from m3col.methods.settings import SelfSupervisedSettings
from m3col.methods.supervised import FUSED
from m3col.tasks.base import Task

_ROWS = 1024  # whose similarities are computed at once


class SelfSupervisedMethod(Method):
    """A method whose predictions come from a linear classifier on its embeddings; most of them learn without labels.

    A subclass implements `losses`, and `columns` and `joined` where other rows than the embeddings of all modalities
    side by side are evaluated. The linear classifier is not trained by the optimizer: the training loop fits it to
    `features` of the training fold at the epochs of `evaluation_epochs` and stores it here, so that a checkpoint
    predicts without anything else.

    Attributes:
        uses_labels: whether the loss needs labels; then it is trained on labelled samples alone.
    """

    Settings: ClassVar[type[ObjectiveConfig]] = SelfSupervisedSettings
    primary_output: ClassVar[str | None] = FUSED
    augments_clean: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False

    settings: SelfSupervisedSettings
    evaluation_weight: Tensor
    evaluation_bias: Tensor

    @property
    def columns(self) -> int:
        """F, the columns of `features`."""
        return len(self.modalities) * self.config.model.embedding_dim

    def add_parts(self, task: Task | None) -> None:
        """Adds the linear classifier, whose outputs are 0 until it is fitted."""
        super().add_parts(task)
        self._outputs = 0 if task is None else task.width
        self.register_buffer("evaluation_weight", torch.zeros(self._outputs, self.columns))
        self.register_buffer("evaluation_bias", torch.zeros(self._outputs))

    @classmethod
    def evaluation_epochs(cls, config: RunConfig) -> frozenset[int]:
        settings = config.objective
        assert isinstance(settings, SelfSupervisedSettings)
        count, epochs = settings.evaluations, config.train.epochs
        return frozenset(-(-epochs * number // count) for number in range(1, count + 1))

    @classmethod
    def output_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return (FUSED,)

    def features(self, inputs: Mapping[str, Input]) -> Tensor:
        """The rows [n, F] that are evaluated."""
        return self.joined(self.encode(inputs))

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """The rows [n, F] that are evaluated, from the embeddings [n, D] of all modalities.

        Of some of the modalities alone, the rows have the columns of these.
        """
        return torch.cat([embeddings[name] for name in self.modalities if name in embeddings], dim=1)

    def subset_features(self, inputs: Mapping[str, Input], subsets: Sequence[Sequence[str]]) -> list[Tensor]:
        embeddings = self.encode(inputs, dict.fromkeys(name for subset in subsets for name in subset))
        return [self.joined({name: embeddings[name] for name in subset}) for subset in subsets]

    def set_evaluation(self, weight: Tensor, bias: Tensor) -> None:
        """Stores the linear classifier: outputs are features @ weight.T + bias. Shapes: [C, F] and [C]."""
        self.evaluation_weight.copy_(weight)
        self.evaluation_bias.copy_(bias)

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Outputs [n, C] of the linear classifier on the embeddings."""
        return {FUSED: self.evaluate(self.features(inputs))}

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {FUSED: self.evaluate(self.joined(embeddings))}

    def evaluate(self, features: Tensor) -> Tensor:
        """Outputs [n, C] for embeddings [n, F], without autocast: the classifier was fitted in float64."""
        with torch.autocast(features.device.type, enabled=False):
            weight = self.evaluation_weight
            return functional.linear(features.to(weight.dtype), weight, self.evaluation_bias)


@torch.no_grad()
def retrieval_accuracy(a: Tensor, b: Tensor) -> Tensor:
    """The share of rows of `a` whose most similar row of `b` is their own.

    Args:
        a: [N, P] embeddings of one view.
        b: [N, P] embeddings of another view of the same samples.

    Returns:
        A scalar in [0, 1]; a random embedding has 1 / N.
    """
    with torch.autocast(a.device.type, enabled=False):
        unit_a, unit_b = functional.normalize(a.float(), dim=1), functional.normalize(b.float(), dim=1)
        nearest = torch.cat([(rows @ unit_b.T).argmax(dim=1) for rows in unit_a.split(_ROWS)])
        return (nearest == torch.arange(len(a), device=a.device)).float().mean()
