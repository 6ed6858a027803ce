"""MOGONET: a graph network on each table, and a network on all products of their class probabilities.

Letters: n samples of this rank, M modalities, C classes.
Paper: Wang et al., "MOGONET integrates multi-omics data using graph convolutional networks allowing patient
classification and biomarker identification", Nat. Commun. 12 (2021) 3445.

Encoders are the graph networks of `m3col.models.graph`, each with one linear layer as head; `m3col.methods.vcdn` has
the equations of what follows. As in the authors' code the loss of the fused logits does not train the graph networks,
unless `end_to_end`.

Differs: the form is inductive, see `m3col.models.graph`. All weights are trained together from the first epoch; the
authors train the graph networks alone for 500 epochs first. Losses are not weighted by the frequency of the class;
`objective.class_weight` takes such weights as a list, of which it makes a weighted mean. C^M may be at most 1,000. A
training sample that lacks a modality is not in its graph.

Hidden states of all training samples are computed in every step, also with several batches per epoch. They are part of
the model: a checkpoint has the training samples, which `store_training_rows` must allow.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from m3col.augmentation import registry as augmentations
from m3col.config.modality_sections import NumericModelConfig
from m3col.config.schema import RunConfig
from m3col.data import modality_kinds
from m3col.errors import InputError
from m3col.inputs.base import Source
from m3col.inputs.specs import MediaSpec, Partial
from m3col.methods.settings import MOGONETSettings
from m3col.methods.vcdn import VCDN
from m3col.models.graph import GraphEncoder
from m3col.models.mlp import linear
from m3col.tasks.base import Task


class MOGONET(VCDN):
    """Graph networks over the training samples, and a network on the products of their predictions."""

    Settings: ClassVar = MOGONETSettings
    summary = "graph networks over the training samples of each table, then products of class probabilities"
    several_workers = False

    settings: MOGONETSettings

    def new_encoder(
        self, spec: int | MediaSpec, *, load_weights: bool, described: Mapping[str, Any] | None
    ) -> nn.Module:
        if not isinstance(spec, int):
            raise InputError([f"method {self.config.method!r} takes numeric tables alone, but got {spec.kind}"])
        model, settings = self.config.model, self.settings
        return GraphEncoder(
            spec, hidden=settings.graph_width, embedding_dim=model.embedding_dim, dropout=model.dropout,
            neighbours=settings.neighbours,
        )  # fmt: skip

    def _head(self, width: int) -> nn.Module:
        return linear(width, self.task.width)

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        lines = [*_storage_faults(config), *_setting_faults(config, kinds)]
        others = {name: kind for name, kind in kinds.items() if kind != modality_kinds.NUMERIC}
        if others:
            tables = [name for name in kinds if name not in others]
            near = f"; nearest valid: data.modalities: {tables}" if len(tables) > 1 else ""
            listed = ", ".join(f"{name} ({kind})" for name, kind in others.items())
            lines.append(f"method {config.method!r} takes numeric tables alone, but the data has {listed}{near}")
        return [*lines, *super().data_faults(config, kinds, task)]

    @classmethod
    def checkpoint_notice(cls, config: RunConfig) -> str:
        return (
            "Checkpoints of this method have the preprocessed values of all training samples, from which predictions "
            "are made: they are as sensitive as the data."
        )

    def fit_inputs(self, inputs: Mapping[str, Source]) -> None:
        """Makes the training samples the nodes of the graphs; without those that lack the modality.

        Raises:
            InputError: `store_training_rows` is false.
        """
        faults = _storage_faults(self.config)
        if faults:
            raise InputError(faults)
        for name, source in inputs.items():
            rows, encoder = source.rows(slice(None)), self.encoders[name]
            if isinstance(rows, Partial):
                assert isinstance(rows.rows, Tensor)
                rows = rows.rows[rows.present]
            assert isinstance(rows, Tensor) and isinstance(encoder, GraphEncoder)
            encoder.fit(rows)


def _storage_faults(config: RunConfig) -> list[str]:
    """A line where the config does not allow checkpoints with training samples."""
    settings = config.objective
    assert isinstance(settings, MOGONETSettings)
    if settings.store_training_rows:
        return []
    return [
        f"objective.store_training_rows must be true for method {config.method!r}, but is false: it predicts from the "
        "training samples, so that every checkpoint has their values, also one in MLflow or in a storage; set "
        "objective.store_training_rows=true if they may be there, or take method 'vcdn', the same without graphs"
    ]


def _setting_faults(config: RunConfig, kinds: Mapping[str, str]) -> list[str]:
    """Settings that have no meaning for graphs over the training samples."""
    spec, where = config.data.numeric.augment, f"for method {config.method!r}"
    lines = []
    if any(augmentations.is_used(augmentations.of_modality(spec, name)) for name in kinds):
        lines.append(f"data.numeric.augment must be none {where}: its graph has the training samples as they are")
    if config.model.numeric != NumericModelConfig():
        lines.append(f"model.numeric must be left out {where}, whose encoder is a graph network")
    if config.model.compile:
        lines.append(f"model.compile must be false {where}: it looks up training samples by their values")
    if config.train.init is not None:
        lines.append(f"train.init must be null {where}: weights belong to the graph of their training samples")
    return lines
