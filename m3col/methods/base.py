"""What the training loop knows of every method: encoders, the terms of a loss for a batch, and named outputs.

Letters: N samples in the global batch, n of them on this worker (n = N where there is only one), M modalities,
D embedding width, C classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.inputs.base import Input
from m3col.inputs.specs import MediaSpec, Partial, one_like
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.models import build
from m3col.models.named_modules import NamedModules
from m3col.tasks.base import Task


class Method(nn.Module):
    """Encoders and losses of one method, without labels, heads or a fusion of its own; see `SupervisedMethod`.

    A subclass implements `losses` and says by class attributes what it is. Registered in `m3col.methods.registry`, or
    named in a config as `method: my_package.my_module:MyMethod`.

    Attributes:
        Settings: the model of its section `objective:` of a config; its fields can be searched.
        summary: one line for lists of methods.
        views: names of the views of a batch that it needs. Each view of a sample is augmented with draws of its own.
        mixes: whether it mixes samples, and has the section `mix:` of a config.
        one_modality: whether it takes exactly one modality; others take two or more.
        comparable_from: the field of `Settings` that holds the share of the epochs after which scores of trials can be
            compared; None: the default share.
        inherits: field of `Settings` -> field whose value it takes where it is None.
        primary_output: the output that predicts, which validation, test and prediction score; None where the method
            has none.
        settings: the values of `Settings` in the config.
    """

    Settings: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    summary: ClassVar[str] = ""
    views: ClassVar[tuple[str, ...]] = (CLEAN,)
    mixes: ClassVar[bool] = False
    one_modality: ClassVar[bool] = False
    comparable_from: ClassVar[str | None] = None
    inherits: ClassVar[Mapping[str, str]] = {}
    primary_output: ClassVar[str | None] = None

    settings: ObjectiveConfig
    class_weight: Tensor | None

    def __init__(
        self,
        config: RunConfig,
        *,
        features: Mapping[str, int | MediaSpec],
        task: Task | None = None,
        class_weight: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        """Builds the encoders, with random weights from torch's global generator.

        Args:
            config: the config of the run.
            features: per modality the columns after preprocessing, or what its images or texts are like.
            task: what its heads predict, for methods with heads.
            class_weight: [C] weights of the cross-entropy, for methods with heads; None: all equal.
            stored: the encoders' own configs from a checkpoint, for a model that is about to get its weights from
                there; None: encoders begin with the weights that the config names.
        """
        super().__init__()
        self.config, self.settings = config, config.objective
        self.modalities = tuple(features)
        self.encoders = NamedModules(
            {
                name: build.build_encoder(
                    spec, config.model, load_weights=stored is None, described=(stored or {}).get(name)
                )
                for name, spec in features.items()
            }
        )
        self.register_buffer("class_weight", class_weight, persistent=False)

    @classmethod
    def output_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        """The names of what `logits` returns. Validation reports a loss, and an accuracy, of each."""
        return ()

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        """The names of all terms that `losses` returns in some epoch of a training."""
        return ("loss",)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Scalars by name; "loss" is the sum that is minimised, the others are its parts.

        Their mean over the ranks is the value for the global batch, and so is the mean of their gradients.
        """
        raise TypeError(f"{type(self).__name__} has no losses of its own")

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Logits [n, C] by output, in the order of `output_names`."""
        return self.classify(self.encode(inputs))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [n, C] by output from the embeddings [n, D] of all modalities."""
        return {}

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        # DDP looks for the gradients of what its own call returns.
        return self.losses(batch, step)

    def encode(self, inputs: Mapping[str, Input], modalities: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Embeddings p_m [N, D] of all modalities or of those named, not normalised."""
        wanted = self.modalities if modalities is None else modalities
        return {name: self.embed(name, inputs[name]) for name in wanted}

    def embed(self, name: str, rows: Input, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Embeddings [n, D] of one modality.

        The embedding of an absent sample is zero and has no gradient; so is that of a mixture of which either sample
        is absent. A rank without a share of the batch runs on one row that counts for nothing: many encoders do not
        take an empty batch, and DDP waits for the gradient of every weight.

        Args:
            name: the modality.
            rows: its n samples.
            mixed: partner [n] and lambda [n] of each row, which is then mixed with its partner (Eq. 2-3).
        """
        encoder: Any = self.encoders[name]
        present: Tensor | None = None
        if isinstance(rows, Partial):
            present = rows.present if mixed is None else rows.present & rows.present[mixed[0]]
            rows = rows.rows
        is_empty = not len(rows)
        if is_empty:
            rows = one_like(rows)
            mixed = None if mixed is None else (mixed[0].new_zeros(1), mixed[1].new_ones(1))
        embeddings: Tensor = encoder(rows if mixed is None else encoder.mix(rows, *mixed))
        if is_empty:
            return embeddings[:0]
        return embeddings if present is None else torch.where(present[:, None], embeddings, 0.0)
