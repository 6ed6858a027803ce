"""One trained model of a predictor's ensemble: preprocessing, batches, and the device that it computes on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m3col import devices
from m3col.data.columns import MediaColumn, ModalityData
from m3col.devices import autocast
from m3col.inputs import fitting
from m3col.inputs.base import InputTransform, Placement, Source
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
    """

    def __init__(
        self,
        method: Method,
        transforms: Mapping[str, InputTransform],
        dtype: torch.dtype,
        task: Task,
        device: torch.device = CPU,
    ) -> None:
        self.method, self.transforms, self.dtype, self.task = method.to(device).eval(), transforms, dtype, task
        self.device = device

    def probabilities(self, inputs: Mapping[str, ModalityData]) -> dict[str, np.ndarray]:
        """Predictions [N, C] of each head, such as probabilities."""
        return self._link(self._passes(self.sources(inputs), self.method.logits))

    def sources(self, inputs: Mapping[str, ModalityData]) -> dict[str, Source]:
        """Applies the fitted preprocessing to the modalities of `inputs`."""
        run, prepared = self.method.config, dict[str, Source]()
        for name, column in inputs.items():
            # Decoded images and tokens are cached for a part of a data set, but not for a few samples from a user.
            cached = run.data.cache and isinstance(column, MediaColumn) and len(column.source) > len(column)
            placement = Placement(CPU, self.dtype, cached=cached)
            prepared[name] = fitting.source_of(name, self.transforms[name], column, placement)
        return prepared

    def encode(self, sources: Mapping[str, Source]) -> dict[str, Tensor]:
        """Embeddings [N, D] of these modalities, not normalised."""
        return self._passes(sources, lambda batch: self.method.encode(batch, list(batch)))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Predictions [N, C] of each head from the embeddings of all modalities."""
        tables = {name: TableSource(value) for name, value in embeddings.items()}
        return self._link(self._passes(tables, self.method.classify))

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
