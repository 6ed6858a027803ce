"""Concatenated embeddings with supervised heads: Eq. 16 with beta = 0, and rows of the papers' tables that are this.

Papers: tables of arXiv 2409.17777. CF is the ablation of Multimodal Dynamics (CVPR 2022), UniConcat that of UniS-MMC
(arXiv 2305.09299), N24News the baseline of its data set (arXiv 2108.13327).
Differs: encoders, heads and their settings are those of the config. CF has one linear layer per modality with dropout
0.5, and a linear head.
"""

from typing import ClassVar

from torch import Tensor

from m3col.config.schema import ObjectiveConfig
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import SupervisedMethod, sum_losses


class Concat(SupervisedMethod):
    """The sum of the cross-entropies of all heads, without a contrastive term."""

    summary = "concatenated embeddings and supervised heads, no contrast (beta = 0)"

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))


class CF(Concat):
    """Concatenation with the fused head alone, the row CF (concatenation of final representations) of Table 2."""

    Settings: ClassVar = ObjectiveConfig
    summary = "concatenated embeddings, one head; the row CF of the papers"


class UniConcat(Concat):
    """Concatenation with the fused head alone, the row UniConcat of Tables 1 and 3."""

    Settings: ClassVar = ObjectiveConfig
    summary = "concatenated embeddings of images and texts, one head; the row UniConcat of the papers"


class N24News(Concat):
    """Concatenation with a head per modality, all of weight 1: the row N24News of Table 1."""

    Settings: ClassVar = ObjectiveConfig
    summary = "concatenated embeddings with a head per modality; the row N24News of the papers"
    unimodal_heads = True
