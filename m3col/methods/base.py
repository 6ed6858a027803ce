"""The interface between the training loop and every method: encoders, loss terms of a batch, and named outputs.

Letters: N samples in the global batch, n of them on this rank (n = N for a single rank), M modalities,
D embedding width, C classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.inputs.base import Input, Source
from m3col.inputs.specs import MediaSpec, Partial, one_like
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.models import build
from m3col.models.named_modules import NamedModules
from m3col.models.token_sequence import TokenSequence
from m3col.tasks.base import Task


class Method(nn.Module):
    """Base class of all methods: encoders and losses. It has no labels and no heads; see `SupervisedMethod` for those.

    A subclass implements `losses`, adds its own weights in `add_parts`, and describes itself by the class attributes
    below. It is registered in `m3col.methods.registry`, or named in a config as
    `method: my_package.my_module:MyMethod`.

    Attributes:
        Settings: the pydantic model of the config section `objective:`; its fields can be searched.
        summary: one line for lists of methods.
        views: names of the views of a batch that the method needs. Each view of a sample is augmented with draws of
            its own.
        augments_clean: whether the view "clean" is augmented too, as in methods that have no other view.
        sequences: whether encoders give sequences of tokens (`tokens`) instead of one embedding per sample (`embed`).
        mixes: whether the method mixes samples and therefore has the config section `mix:`.
        one_modality: whether it takes exactly one modality; otherwise it takes two or more.
        most_modalities: the largest number of modalities that it takes; None: any.
        kinds: the kinds of its modalities, one of each in any order, see `m3col.data.modality_kinds`; None: any.
        comparable_from: the field of `Settings` with the share of the epochs after which scores of trials are
            comparable (a search prunes no trial before); None: the default share.
        inherits: field of `Settings` -> the field whose value replaces it where it is None.
        primary_output: name of the output that makes the predictions and is scored in validation and test; None: the
            method has no outputs.
        tasks: names of the tasks that it can be trained on; None: any.
        several_workers: whether several workers can train it.
        leaves_out: whether a prediction leaves out a modality that a sample lacks; if not, it uses an embedding of
            zeros in its place.
        settings: the values of `Settings` in the config.
        input_specs: by modality the number of columns of a table, or the description of images, texts or sequences.
    """

    Settings: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    summary: ClassVar[str] = ""
    views: ClassVar[tuple[str, ...]] = (CLEAN,)
    augments_clean: ClassVar[bool] = True
    sequences: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    one_modality: ClassVar[bool] = False
    most_modalities: ClassVar[int | None] = None
    kinds: ClassVar[tuple[str, ...] | None] = None
    comparable_from: ClassVar[str | None] = None
    inherits: ClassVar[Mapping[str, str]] = {}
    primary_output: ClassVar[str | None] = None
    tasks: ClassVar[tuple[str, ...] | None] = None
    several_workers: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = False

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
            features: by modality the number of columns after preprocessing, or the description of its images or
                texts.
            task: what the heads predict, for methods with heads.
            class_weight: [C] weights of the cross-entropy, for methods with heads; None: all equal.
            stored: by modality the encoder config from a checkpoint, for a model whose weights are then loaded from
                that checkpoint; None: encoders start with the weights that the config names.
        """
        super().__init__()
        self.config, self.settings = config, config.objective
        self.modalities, self.input_specs = tuple(features), dict(features)
        self.encoders = NamedModules(
            {
                name: self.new_encoder(spec, load_weights=stored is None, described=(stored or {}).get(name))
                for name, spec in features.items()
            }
        )
        if self.sequences:
            encoder: Any
            for encoder in self.encoders.values():
                encoder.without_pooling()
        self.register_buffer("class_weight", class_weight, persistent=False)
        self.add_parts(task)

    def new_encoder(
        self, spec: int | MediaSpec, *, load_weights: bool, described: Mapping[str, Any] | None
    ) -> nn.Module:
        """The encoder of one modality; a method with encoders of its own replaces this.

        Args:
            spec: the number of columns of a table, or the description of images, texts or sequences.
            load_weights: whether pretrained weights are loaded, see `m3col.models.build.build_encoder`.
            described: what a checkpoint stores of the encoder.
        """
        return build.build_encoder(spec, self.config.model, load_weights=load_weights, described=described)

    def fit_inputs(self, inputs: Mapping[str, Source]) -> None:
        """Takes from the training fold what the method must have of it beside what it learns; by default nothing.

        It is called once, before the first step and before a training is resumed. What it takes belongs into buffers,
        so that a checkpoint has it.

        Args:
            inputs: by modality the prepared samples of the training fold, not augmented where they are read without
                random numbers.
        """

    def add_parts(self, task: Task | None) -> None:
        """Adds what the method has beside its encoders, such as heads; called at the end of the constructor.

        Args:
            task: what the outputs predict; None: the method has none.
        """

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        """Why the method cannot be trained on a data set, beyond what the class attributes say; [] where it can.

        Args:
            config: the config of the run.
            kinds: by modality its kind, see `m3col.data.modality_kinds`.
            task: what is predicted, with its C outputs.

        Returns:
            One line per fault.
        """
        return []

    @classmethod
    def checkpoint_notice(cls, config: RunConfig) -> str:
        """What must be known of a checkpoint of the method before it is passed on, as a sentence; "": nothing."""
        return ""

    @classmethod
    def evaluation_epochs(cls, config: RunConfig) -> frozenset[int] | None:
        """The epochs after which the method is validated, with the last one among them; None: all.

        Where it is not None, a linear classifier is fitted to `features` before each validation.
        """
        return None

    @classmethod
    def output_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        """The names of the outputs that `logits` returns. Validation reports a loss and an accuracy of each."""
        return ()

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        """The names of all terms that `losses` returns, in whichever epochs of a training."""
        return ("loss",)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The loss terms of one batch.

        Args:
            batch: the global batch, with the inputs of this rank's rows.
            step: position of the batch in the training, which keys random draws.

        Returns:
            Scalars by name. "loss" is the sum that is minimised, the others are its terms. The mean of a scalar over
            the ranks is its value for the global batch; the same holds for its gradient.
        """
        raise TypeError(f"{type(self).__name__} has no losses of its own")

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Logits [n, C] by output, in the order of `output_names`."""
        return self.classify(self.encode(inputs))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [n, C] by output from the embeddings [n, D] of all modalities."""
        return {}

    def predicted(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Outputs [n, C] that predictions are made of; those of `logits`, unless a method decides otherwise."""
        return self.logits(inputs)

    def predicted_from(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same from the embeddings [n, D] of all modalities."""
        return self.classify(embeddings)

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        # DDP synchronises the gradients only of what `forward` returns.
        return self.losses(batch, step)

    def encode(self, inputs: Mapping[str, Input], modalities: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Embeddings p_m [n, D] of the given modalities (None: of all), not normalised."""
        return {
            name: self.embed(name, inputs[name]) for name in (self.modalities if modalities is None else modalities)
        }

    def subset_features(self, inputs: Mapping[str, Input], subsets: Sequence[Sequence[str]]) -> list[Tensor]:
        """The embeddings that a prediction is made from, where only some of the modalities are given.

        Args:
            inputs: n samples of the modalities that any subset names.
            subsets: S lists of names of modalities.

        Returns:
            By subset the rows [n, F_s]: by default the embeddings of its modalities side by side.
        """
        embeddings = self.encode(inputs, dict.fromkeys(name for subset in subsets for name in subset))
        return [torch.cat([embeddings[name] for name in subset], dim=1) for subset in subsets]

    def compared(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """The embeddings [n, P] of each modality that a loss can compare, not normalised, by default those of `encode`.

        Those of all modalities together are there as "fused", where they have the same width.
        """
        return self.encode(inputs)

    def embed(self, name: str, rows: Input, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Embeddings [n, D] of one modality.

        The embedding of a sample that lacks the modality is zero and has no gradient. The same holds for a mixture of
        two samples of which either lacks it. A rank without rows encodes a placeholder row and drops the result: many
        encoders reject an empty batch, and DDP waits for a gradient of every weight.

        Args:
            name: the modality.
            rows: its n samples.
            mixed: partner [n] and lambda [n] of each row; each row is mixed with its partner (Eq. 2-3). None: rows are
                not mixed.
        """
        present: Tensor | None = None
        if isinstance(rows, Partial):
            present = rows.present if mixed is None else rows.present & rows.present[mixed[0]]
            rows = rows.rows
        is_empty = not len(rows)
        if is_empty:
            rows = one_like(rows)
            mixed = None if mixed is None else (mixed[0].new_zeros(1), mixed[1].new_ones(1))
        embeddings = self.encoded(name, rows, mixed)
        if is_empty:
            return embeddings[:0]
        return embeddings if present is None else torch.where(present[:, None], embeddings, 0.0)

    def encoded(self, name: str, rows: Any, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """What `embed` returns for samples that all have the modality, with at least one of them."""
        encoder: Any = self.encoders[name]
        embeddings: Tensor = encoder(rows if mixed is None else encoder.mix(rows, *mixed))
        return embeddings

    def tokens(self, name: str, rows: Input) -> TokenSequence:
        """The tokens of one modality, for methods with `sequences`.

        A rank without rows encodes a placeholder row and drops the result, see `embed`. Samples that lack the modality
        have tokens of their placeholder, which the caller masks.

        Args:
            name: the modality.
            rows: its n samples.
        """
        encoder: Any = self.encoders[name]
        rows = rows.rows if isinstance(rows, Partial) else rows
        if len(rows):
            return TokenSequence(*encoder.sequence(rows))
        sequence = TokenSequence(*encoder.sequence(one_like(rows)))
        return sequence._replace(values=sequence.values[:0], mask=None if sequence.mask is None else sequence.mask[:0])
