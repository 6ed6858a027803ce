"""Multimodal Dynamics: gates for each feature, and a confidence for each modality.

Letters: N samples in the global batch, n of them on this rank, M modalities, C classes, D embedding width, D_m columns
of modality m; s the sigmoid, * the elementwise product, p_m(y) the probability that the head of modality m gives to
the true class.
Paper: Han et al., "Multimodal Dynamics: Dynamical Fusion for Trustworthy Multimodal Classification", CVPR 2022.

    w_m = s(E_m x_m),    p_m = encoder_m(x_m * w_m),    c_m = confidence_m(p_m)
    fused logits = head([c_1 p_1; ...; c_M p_M])
    L = CE_fused + sum over m of  CE_m + l1 mean(w_m) + l2 mean (c_m - p_m(y))^2

The confidence has no sigmoid, and p_m(y), which is known in training alone, has a gradient, as in the authors' code
(`bounded_confidence` and `detach` change this).

Differs: encoders and heads are those of this project, with dropout in the heads; the authors have one layer with
dropout in place of the encoder and linear heads. Images, texts and sequences have gates on their embeddings. The two
further terms have the class weights of the samples. A modality that a sample lacks has an embedding of zeros and
neither term.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import RunConfig
from m3col.inputs.base import Input
from m3col.inputs.specs import Partial
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import DynamicsSettings
from m3col.methods.supervised import SupervisedMethod, sum_losses
from m3col.models.mlp import linear
from m3col.models.named_modules import NamedModules
from m3col.tasks.base import Task, full_precision


class Dynamics(SupervisedMethod):
    """Concatenation with gates for features and confidences of modalities."""

    Settings: ClassVar = DynamicsSettings
    summary = "gates for features, and embeddings weighted by the confidence of each modality"
    tasks = ("single_label",)
    unimodal_heads = True

    settings: DynamicsSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        width = self.config.model.embedding_dim
        gates: dict[str, nn.Module] = {}
        for name, spec in self.input_specs.items():
            columns = spec if isinstance(spec, int) else width
            gates[name] = linear(columns, columns)
        self.gates = NamedModules(gates)
        self.confidences = NamedModules({name: linear(width, 1) for name in self.modalities})

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return (*super().loss_names(config, modalities), "sparsity", "confidence")

    def embed(self, name: str, rows: Input, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Embeddings [n, D] of one modality, of gated columns or gated themselves. Samples are never mixed."""
        assert mixed is None, "the method does not mix"
        return self.gated(name, rows)[0]

    def gated(self, name: str, rows: Input) -> tuple[Tensor, Tensor]:
        """The embeddings [n, D] of one modality, and its gates in (0, 1).

        Args:
            name: the modality.
            rows: its n samples.

        Returns:
            The embeddings, and w_m: [n, D_m] of the columns of a table, else [n, D] of the embedding.
        """
        if not isinstance(self.input_specs[name], int):
            embedding = super().embed(name, rows)
            gate = torch.sigmoid(self.gates[name](embedding))
            return embedding * gate, gate
        values = rows.rows if isinstance(rows, Partial) else rows
        assert isinstance(values, Tensor)
        gate = torch.sigmoid(self.gates[name](values))
        columns = values * gate
        return super().embed(name, replace(rows, rows=columns) if isinstance(rows, Partial) else columns), gate

    def confidence(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """c_m [n, 1] of each modality."""
        values = {name: self.confidences[name](embeddings[name]) for name in self.modalities}
        return {name: c.sigmoid() for name, c in values.items()} if self.settings.bounded_confidence else values

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """[c_1 p_1; ...; c_M p_M]."""
        confidence = self.confidence(embeddings)
        return torch.cat([confidence[name] * embeddings[name] for name in self.modalities], dim=1)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        settings, present = self.settings, batch.present
        gated = {name: self.gated(name, batch.inputs[name]) for name in self.modalities}
        embeddings = {name: embedding for name, (embedding, _) in gated.items()}
        logits, confidence = self.classify(embeddings), self.confidence(embeddings)
        own = batch.targets[batch.rows, None]
        sparsity, error = [], []
        for name, (_, gate) in gated.items():
            probability = full_precision(logits[name]).softmax(dim=1).gather(1, own)
            target = probability.detach() if settings.detach else probability
            openness, difference = full_precision(gate).mean(dim=1), full_precision(confidence[name]) - target
            has = present.get(name, torch.ones_like(openness)).to(openness.dtype)
            sparsity.append(self.sample_mean(openness * has, batch))
            error.append(self.sample_mean(difference[:, 0] ** 2 * has, batch))
        terms = {"sparsity": torch.stack(sparsity).sum(), "confidence": torch.stack(error).sum()}
        return {
            **sum_losses(
                self.head_losses(logits, batch),
                sparsity=settings.sparsity * terms["sparsity"],
                confidence=settings.confidence * terms["confidence"],
            ),
            **terms,
        }
