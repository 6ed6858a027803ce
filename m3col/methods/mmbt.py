"""MMBT: the tokens of an image in front of a text, in one text encoder.

Letters: n samples of this rank, K tokens of an image, T patches or cells that its encoder gives, L tokens of the
longest text, E width of the word embeddings.
Paper: Kiela et al., "Supervised Multimodal Bitransformers for Classifying Images and Text", arXiv 1909.02950, section
3.

    [class token, A g_1, ..., A g_K, separator]  in segment 0,  positions from 0
    [the text after its class token]             in segment 1,  positions from 0 again

go through the text encoder, and a head on the class token gives the logits. g_k is the k-th of K equal parts of the
image's patches, averaged, and A is one matrix for all.

Differs: any image encoder that gives patches or a map, and any text encoder that takes positions; those with one
segment, such as RoBERTa, ignore segments. Parts are of the patches row by row; the authors pool a map of ResNet to a
small grid. The head is that of this project in place of a pooler and one layer. No epochs with frozen encoders; see
`model.text.frozen`. The tokens of a modality that a sample lacks are not attended to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.inputs.base import Input
from m3col.inputs.specs import Partial, one_like, present_of
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import MMBTSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses
from m3col.models.mlp import linear
from m3col.tasks.base import Task

IMAGE, TEXT = "image", "text"


def part_means(count: int, parts: int) -> Tensor:
    """The matrix [K, T] that averages K equal parts of T tokens; parts overlap where K does not divide T.

    Args:
        count: T.
        parts: K.
    """
    matrix = torch.zeros(parts, count)
    for part in range(parts):
        start, stop = part * count // parts, -(-(part + 1) * count // parts)
        matrix[part, start:stop] = 1 / (stop - start)
    return matrix


class MMBT(SupervisedMethod):
    """An image and a text in one text encoder."""

    Settings: ClassVar = MMBTSettings
    summary = "the tokens of an image in front of a text, in one text encoder"
    fuses = False
    fuses_itself = True
    unimodal_heads = False
    sequences = True
    leaves_out = True
    most_modalities = 2
    kinds = (IMAGE, TEXT)

    settings: MMBTSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        by_kind = {getattr(spec, "kind", ""): name for name, spec in self.input_specs.items()}
        if {*by_kind} != {IMAGE, TEXT}:
            raise InputError([f"method {self.config.method!r} takes one modality of images and one of texts"])
        self.image, self.text = by_kind[IMAGE], by_kind[TEXT]
        image: Any = self.encoders[self.image]
        words: Any = self.encoders[self.text]
        self.adapter = linear(image.sequence_width, words.model.get_input_embeddings().embedding_dim)
        self.head = self._head(words.sequence_width)

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        from m3col.models import joint_text  # imported here, because it imports transformers

        try:
            return joint_text.faults(config.model.text)
        except InputError:  # reported with all faults of encoders
            return []

    def fuse(self, inputs: Mapping[str, Input], subset: Collection[str]) -> Tensor:
        """The class token's output [n, width] of each sample from some of its modalities.

        Args:
            inputs: n samples of both modalities.
            subset: names of the modalities whose tokens are attended to.
        """
        from m3col.models import joint_text

        rows: dict[str, Any] = {
            name: part.rows if isinstance(part := inputs[name], Partial) else part for name in self.modalities
        }
        present, count = present_of(inputs), len(rows[self.text])
        if not count:  # a rank without rows, see `embed`
            rows, present = {name: one_like(part) for name, part in rows.items()}, {}
        encoder: Any = self.encoders[self.text]
        words = encoder.embed(rows[self.text])
        mask, values = words.mask, words.embeddings
        every = torch.ones_like(mask[:, :1])
        seen = {
            name: (present[name][:, None] if name in present else every) & (name in subset) for name in self.modalities
        }
        image = self._image_tokens(rows[self.image])
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        separator = values[torch.arange(len(mask), device=mask.device), last][:, None]
        before, after = 2 + image.shape[1], mask.shape[1] - 1
        places = torch.cat([torch.arange(before, device=mask.device), torch.arange(after, device=mask.device)])
        hidden = joint_text.run(
            encoder.model,
            torch.cat([values[:, :1], image.to(values.dtype), separator, values[:, 1:]], dim=1),
            mask=torch.cat([every, seen[self.image].expand(-1, before - 2), every, mask[:, 1:] & seen[self.text]], 1),
            segments=(torch.arange(before + after, device=mask.device) >= before).long().expand(len(mask), -1),
            places=places.expand(len(mask), -1),
        )
        return hidden[:count, 0]

    def _image_tokens(self, rows: Any) -> Tensor:
        """A g [n, K, E]."""
        encoder: Any = self.encoders[self.image]
        values = encoder.sequence(rows).values
        means = part_means(values.shape[1], self.settings.image_tokens).to(values)
        tokens: Tensor = self.adapter(means @ values)
        return tokens

    def encode(self, inputs: Mapping[str, Input], modalities: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Outputs [n, width] of the class token from each modality alone; `inputs` has both."""
        return {name: self.fuse(inputs, (name,)) for name in (self.modalities if modalities is None else modalities)}

    def subset_features(self, inputs: Mapping[str, Input], subsets: Sequence[Sequence[str]]) -> list[Tensor]:
        return [self.fuse(inputs, subset) for subset in subsets]

    def compared(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """The outputs of the class token from both modalities, as "fused", and from each alone."""
        return {FUSED: self.fuse(inputs, self.modalities), **self.encode(inputs)}

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        return {FUSED: self.head(self.fuse(inputs, self.modalities))}

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Not available: the output of both modalities does not follow from those of each alone."""
        raise TypeError(f"{type(self).__name__} has no outputs for embeddings of single modalities")

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
