"""What the training loop knows of a method: parts of a loss for a batch, and logits.

Letters: N samples in the global batch, n of them on this worker (n = N where there is only one), W workers,
M modalities, D embedding width, C classes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.augmentation import sample_mixing
from m3col.config.schema import RunConfig
from m3col.data.checks import naming
from m3col.inputs.specs import ImageInput, TextInput, Tokens, one_like
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import nonzero_sum
from m3col.models import build
from m3col.models.named_modules import NamedModules

FUSED = naming.FUSED


class Method(nn.Module):
    """Encoders, heads and losses of one method. Subclasses implement `losses`; `logits` serves all of this project's
    supervised ones.

    `features`: per modality the columns after preprocessing, or what its pictures or texts are like; `class_weight`:
    [C] weights of the cross-entropy or None. `stored`: the encoders' own configs from a checkpoint, for a model that is
    about to get its weights from there; None: encoders begin with the weights that the config names.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        config: RunConfig,
        *,
        features: Mapping[str, int | ImageInput | TextInput],
        num_classes: int,
        class_weight: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.modalities = tuple(features)
        width = config.model.embedding_dim
        self.encoders = NamedModules(
            {
                name: build.build_encoder(
                    spec, config.model, load_weights=stored is None, described=(stored or {}).get(name)
                )
                for name, spec in features.items()
            }
        )
        supervised = self.modalities if self.has_unimodal_heads() else ()
        self.heads = NamedModules({name: self._head(width, num_classes) for name in supervised})
        self.fusion = self._head(width * len(features), num_classes)
        self.register_buffer("class_weight", class_weight, persistent=False)

    def _head(self, width: int, num_classes: int) -> nn.Module:
        model = self.config.model
        return build.build_head(
            width, model.classifier_dim, num_classes, model.dropout, layers=model.classifier_layers
        )  # fmt: skip

    def has_unimodal_heads(self) -> bool:
        return self.config.objective.unimodal_supervision

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Scalars by name; "loss" is the sum that is minimised, the others are its parts.

        Their mean over the workers is the value for the global batch, and so is the mean of their gradients.
        """
        raise TypeError(f"{type(self).__name__} has no losses of its own")

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        # DDP looks for the gradients of what its own call returns.
        return self.losses(batch, step)

    def encode(
        self, inputs: Mapping[str, Tensor | Tokens], modalities: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Embeddings p_m [N, D] of all modalities or of those named, not normalised."""
        wanted = self.modalities if modalities is None else modalities
        return {name: self._embeddings(name, inputs[name]) for name in wanted}

    def _embeddings(self, name: str, rows: Tensor | Tokens, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Embeddings [n, D] of one modality; `mixed`: of each row mixed with its partner [n], by lambda [n] (Eq. 2-3).

        A worker without a share of the batch runs on one row that counts for nothing: many encoders do not take an
        empty batch, and DDP waits for the gradient of every weight.
        """
        encoder: Any = self.encoders[name]
        is_empty = not len(rows)
        if is_empty:
            rows = one_like(rows)
            mixed = None if mixed is None else (mixed[0].new_zeros(1), mixed[1].new_ones(1))
        found: Tensor = encoder(rows if mixed is None else encoder.mix(rows, *mixed))
        return found[:0] if is_empty else found

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [N, C] of each modality's head and of the fused one."""
        logits = {name: head(embeddings[name]) for name, head in self.heads.items()}
        logits[FUSED] = self.fusion(torch.cat([embeddings[name] for name in self.modalities], dim=1))
        return logits

    def logits(self, inputs: Mapping[str, Tensor | Tokens]) -> dict[str, Tensor]:
        return self.classify(self.encode(inputs))

    def cross_entropies(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Eq. 14 and 15, one part per head, named `ce_<head>`: the sum over this worker's rows times W / N.

        With class weights N is the sum of the weights of the step's labels, as in torch, times the batch's share of its
        samples.
        """
        weight, own = self.class_weight, batch.labels[batch.rows]
        whole = len(batch.labels) if weight is None else nonzero_sum(weight[batch.labels].sum())
        return {
            f"ce_{name}": functional.cross_entropy(value, own, weight=weight, reduction="sum")
            * (batch.weighing * batch.workers.size / whole)
            for name, value in logits.items()
        }

    def draw(self, batch: Batch, step: Step, *, shared_permutation: bool = False) -> sample_mixing.Mixing:
        """Lambda and permutations for the global batch, keyed by where the training stands (PROTOCOL 2)."""
        return sample_mixing.draw_mixing(
            len(batch.labels),
            self.modalities,
            alpha=self.config.objective.alpha,
            shards=batch.shards,
            probability=self.config.mix.probability,
            shared_permutation=shared_permutation,
            key={"seed": step.seed, "fold": step.fold, "epoch": step.epoch, "step": step.step},
            device=batch.labels.device,
            dtype=next(self.parameters()).dtype,
        )

    def mixed_at_embedding(self) -> list[str]:
        """The modalities whose embeddings are mixed, not their inputs."""
        level = self.config.mix.level
        return [m for m in self.modalities if (level if isinstance(level, str) else level[m]) == "embedding"]

    def mixed_views(
        self, batch: Batch, embeddings: Mapping[str, Tensor], mixing: sample_mixing.Mixing
    ) -> dict[str, Tensor]:
        """Embeddings q_m [n, D] of the mixed samples (Eq. 2-3), or mixed `embeddings` where `mix.level` says so."""
        own, late = batch.rows, self.mixed_at_embedding()
        found = {}
        for m in self.modalities:
            # Partners lie in the same shard, hence on the same worker.
            partner, lam = mixing.permutations[m][own] - own.start, mixing.lam[own]
            if m in late:
                # Lambda would be rounded to what autocast makes of embeddings.
                found[m] = sample_mixing.mix(embeddings[m].to(lam.dtype), partner, lam)
            else:
                found[m] = self._embeddings(m, batch.inputs[m], (partner, lam))
        return found
