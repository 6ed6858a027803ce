"""One trained model of a predictor's ensemble: preprocessing, batches, and the device that it computes on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m3col import devices
from m3col.data.columns import MediaColumn, ModalityData
from m3col.devices import autocast
from m3col.inputs import fitting
from m3col.inputs.base import InputTransform, Placement, Source
from m3col.inputs.batches import AugmentedSource
from m3col.inputs.tables import TableSource
from m3col.methods.base import Method
from m3col.tasks.base import Task
from m3col.training.fold_trainer import evaluation_batch

CPU = torch.device("cpu")


class Member:
    """One trained model, with the preprocessing that was fitted on its training split.

    Attributes:
        method: the model, on `device` and in evaluation mode.
        transforms: the fitted preprocessing by modality.
        dtype: of the model's inputs and weights.
        task: what is predicted, with what was fitted to the labels of the training split.
        device: where the model computes. Samples and results are on the CPU; each batch is moved.
        samples: number of labelled samples that it was trained on; None: its checkpoint does not say it.
    """

    def __init__(
        self,
        method: Method,
        transforms: Mapping[str, InputTransform],
        dtype: torch.dtype,
        task: Task,
        device: torch.device = CPU,
        *,
        samples: int | None = None,
    ) -> None:
        self.method, self.transforms, self.dtype, self.task = method.to(device).eval(), transforms, dtype, task
        self.device, self.samples = device, samples

    def probabilities(self, inputs: Mapping[str, ModalityData]) -> dict[str, np.ndarray]:
        """Predictions [N, C] of each head, such as probabilities."""
        return self.outputs(self.sources(inputs))

    def sources(self, inputs: Mapping[str, ModalityData]) -> dict[str, Source]:
        """Applies the fitted preprocessing to the modalities of `inputs`."""
        return {name: self._source(name, column, self.transforms[name]) for name, column in inputs.items()}

    def augmented_sources(self, inputs: Mapping[str, ModalityData], *, seed: int, view: str) -> dict[str, Source]:
        """The same, with the augmentation of the training for the modalities that have one.

        Args:
            inputs: samples by modality.
            seed: of the random numbers.
            view: name of the view; two views of a sample have different random numbers.
        """
        key = {"seed": seed, "fold": 0, "epoch": 0, "step": 0}
        sources = self.sources(inputs)
        for name, column in inputs.items():
            transform = fitting.augmented(self.transforms[name], self.method.config, name)
            if transform is not None:
                sources[name] = AugmentedSource(self._source(name, column, transform), key, name, view)
        return sources

    @property
    def augments(self) -> bool:
        """Whether the training augmented any modality."""
        transforms = self.transforms.items()
        return any(fitting.augmented(value, self.method.config, name) is not None for name, value in transforms)

    def _source(self, name: str, column: ModalityData, transform: InputTransform) -> Source:
        # Decoded images and tokens are cached for a part of a data set, but not for a few samples from a user.
        has_more = isinstance(column, MediaColumn) and len(column.source) > len(column)
        placement = Placement(CPU, self.dtype, cached=self.method.config.data.cache and has_more)
        return fitting.source_of(name, transform, column, placement)

    def encode(self, sources: Mapping[str, Source]) -> dict[str, Tensor]:
        """Embeddings [N, D] of these modalities, not normalised."""
        return self._passes(sources, lambda batch: self.method.encode(batch, list(batch)))

    def outputs(self, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
        """Predictions [N, C] of each head; samples of a source may lack the modality."""
        return self._link(self._passes(sources, self.method.predicted))

    def subset_features(self, sources: Mapping[str, Source], subsets: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """By subset of the modalities the rows [N, F] that predictions are made from, in float64."""

        def call(batch: dict[str, Any]) -> dict[str, Tensor]:
            return {str(number): rows for number, rows in enumerate(self.method.subset_features(batch, subsets))}

        return [rows.double().numpy() for rows in self._passes(sources, call).values()]

    def compared(self, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
        """Embeddings [N, P] of each modality that a loss can compare, in float64, see `Method.compared`."""
        return {name: rows.double().numpy() for name, rows in self._passes(sources, self.method.compared).items()}

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Predictions [N, C] of each head from the embeddings of all modalities."""
        tables = {name: TableSource(value) for name, value in embeddings.items()}
        return self._link(self._passes(tables, self.method.predicted_from))

    def patches(self, modality: str, source: Source) -> Tensor:
        """Patch tokens [N, P, D] of images, see `ImageEncoder.tokens`. Raises InputError for encoders without them."""
        encoder: Any = self.method.encoders[modality]
        return self._passes({modality: source}, lambda batch: {modality: encoder.tokens(batch[modality])})[modality]

    def _link(self, logits: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: self.task.link(self.task.unscaled(value.double().numpy())) for name, value in logits.items()}

    def _passes(
        self, sources: Mapping[str, Source], call: Callable[[dict[str, Any]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The outputs of `call` for all samples, computed batch by batch."""
        run, count = self.method.config, len(next(iter(sources.values())))
        size = evaluation_batch(run, sources)
        pieces = []
        settings = devices.settings(run, self.device, {transform.kind for transform in self.transforms.values()})
        with settings, torch.inference_mode(), autocast(run, self.device):
            for start in range(0, max(count, 1), size):
                rows = slice(start, min(start + size, count))
                batch = {name: source.rows(rows).to(self.device) for name, source in sources.items()}
                pieces.append({name: output.cpu() for name, output in call(batch).items()})
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
