"""TMC: each modality gives evidence for the classes, and Dempster's rule combines it.

Letters: N samples in the global batch, n of them on this rank, M modalities, C classes, T epochs of annealing;
e_m evidence [n, C] of modality m, alpha_m = e_m + 1 (see `m3col.losses.evidential` for the equations).
Paper: Han et al., "Trusted Multi-View Classification", arXiv 2102.02051, section 3; with `pseudo_view` "Trusted
Multi-View Classification with Dynamic Evidential Fusion", arXiv 2204.11423 (ETMC).

    e_m = softplus(head_m(p_m)),    L = sum over opinions v of  A(alpha_v) + min(1, epoch / T) KL(alpha_v)

with one opinion per modality, the fused one, and in ETMC one of a head on the concatenated embeddings, which is fused
too. The logits of an opinion are log alpha, whose softmax is alpha / S, the mean of the class probabilities.

Differs: encoders and heads are those of this project; the paper has one linear layer per modality. T is a share of the
epochs. `kl_weight` weights KL; the paper has 1. Fusion is in closed form (equal to the paper's chain of pairs, without
its divisions). A modality that a sample lacks has no evidence, and so changes nothing; the
further opinion of ETMC has none for such a sample.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from m3col.config.schema import RunConfig
from m3col.inputs.base import Input
from m3col.inputs.specs import present_of
from m3col.losses.evidential import expected_cross_entropy, fused_evidence, kl_of_misleading_evidence
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import TMCSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses
from m3col.tasks.base import Task, full_precision

PSEUDO_VIEW = "pseudo_view"  # names the terms of ETMC's further opinion

_LARGEST_EXPONENT = 10.0  # of evidence exp(output)


def annealed(epoch: int, *, share: float, epochs: int) -> float:
    """min(1, epoch / T) with T = `share` of the epochs, at least 1. `epoch` counts from 1."""
    return min(1.0, epoch / max(1, math.floor(share * epochs + 0.5)))


class TMC(SupervisedMethod):
    """Evidence of each modality, combined by Dempster's rule."""

    Settings: ClassVar = TMCSettings
    summary = "evidence of each modality, combined by Dempster's rule (with pseudo_view: ETMC)"
    fuses = False
    fuses_itself = True
    unimodal_heads = True
    tasks = ("single_label",)
    leaves_out = True

    settings: TMCSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        if self.settings.pseudo_view:
            self.pseudo_view = self._head(self.fusion_width)

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        settings = config.objective
        assert isinstance(settings, TMCSettings)
        opinions = (*modalities, *([PSEUDO_VIEW] if settings.pseudo_view else []), FUSED)
        return ("loss", *(f"ce_{name}" for name in opinions), *(f"kl_{name}" for name in opinions))

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        settings = config.objective
        assert isinstance(settings, TMCSettings)
        if not settings.pseudo_view or PSEUDO_VIEW not in kinds:
            return []
        return [f"modality {PSEUDO_VIEW!r}: objective.pseudo_view has taken this name; rename it, or set that to false"]

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """log alpha [n, C] of each modality and of all."""
        return self._logits(self.opinions(self.encode(inputs), present_of(inputs)))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log alpha [n, C] of each modality and of all, for samples that have all modalities."""
        return self._logits(self.opinions(embeddings, {}))

    def _logits(self, evidence: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.log1p(evidence[name]) for name in (*self.modalities, FUSED)}

    def opinions(self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The evidence of each opinion.

        Args:
            embeddings: [n, D] of all modalities.
            present: by modality whether each sample [n] has it; those that no sample lacks may be left out.

        Returns:
            Evidence [n, C] in float32 or float64 of each modality, of `PSEUDO_VIEW` if there is one, and of "fused".
        """
        evidence = {name: self._evidence(head(embeddings[name])) for name, head in self.heads.items()}
        for name, has in present.items():
            evidence[name] = torch.where(has[:, None], evidence[name], 0.0)
        if self.settings.pseudo_view:
            further = self._evidence(self.pseudo_view(self.joined(embeddings)))
            for has in present.values():
                further = torch.where(has[:, None], further, 0.0)
            evidence[PSEUDO_VIEW] = further
        return {**evidence, FUSED: fused_evidence(torch.stack([*evidence.values()]))}

    def _evidence(self, outputs: Tensor) -> Tensor:
        values = full_precision(outputs)
        if self.settings.evidence == "softplus":
            return functional.softplus(values)
        if self.settings.evidence == "relu":
            return torch.relu(values)
        return values.clamp(max=_LARGEST_EXPONENT).exp()

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        settings, labels = self.settings, batch.targets[batch.rows]
        evidence = self.opinions(self.encode(batch.inputs), batch.present)
        share = annealed(step.epoch, share=settings.kl_share, epochs=self.config.train.epochs)
        alphas = {name: value + 1 for name, value in evidence.items()}
        entropies = {
            f"ce_{name}": self.sample_mean(expected_cross_entropy(alpha, labels), batch)
            for name, alpha in alphas.items()
        }
        divergences = {
            f"kl_{name}": self.sample_mean(kl_of_misleading_evidence(alpha, labels), batch)
            for name, alpha in alphas.items()
        }
        kl = settings.kl_weight * share * torch.stack([*divergences.values()]).sum()
        return {**sum_losses(entropies, kl=kl), **divergences}
