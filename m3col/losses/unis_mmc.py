"""UniS-MMC: the modalities of a sample agree, unless both alone predict a wrong class.

Letters: N samples, D embedding width, tau temperature; a_n and b_n the embeddings of sample n in two modalities, of
which each alone predicts a class.
Paper: Zou et al., "UniS-MMC: Multimodal Classification via Unimodality-supervised Multimodal Contrastive Learning",
arXiv 2305.09299, section 3.3.

With P the samples of which both predictions are right, S those of which exactly one is, and c_n = cos(a_n, b_n),

    L = -log( sum over n in P and S of exp(c_n / tau)  /  sum over all n of exp(c_n / tau) ).

In S the embedding of the modality that is right has no gradient, so that the other one moves towards it.

Differs: this is the paper's formula. The authors' code compares the first sample of a batch with all others, divides
inside of the logarithm by the number of samples in P and S, and takes all samples as P where none is right. Without any
sample in P or S, where the formula is undefined, the loss here is 0.
"""

import torch
from torch import Tensor

from m3col.losses.common import unit_rows


def supervised_cosine(a: Tensor, b: Tensor, a_right: Tensor, b_right: Tensor) -> Tensor:
    """c_n of each sample, without the gradient of a right embedding whose partner is wrong.

    Args:
        a: [N, D] embeddings of one modality.
        b: [N, D] embeddings of another modality of the same samples.
        a_right: [N] whether the prediction of the first modality alone is right.
        b_right: [N] the same of the other one.

    Returns:
        The cosines [N]; 0 where an embedding is 0.
    """
    a = torch.where((a_right & ~b_right)[:, None], a.detach(), a)
    b = torch.where((b_right & ~a_right)[:, None], b.detach(), b)
    return (unit_rows(a, a.dtype) * unit_rows(b, b.dtype)).sum(dim=1)


def unis_mmc_loss(cosines: Tensor, together: Tensor, counted: Tensor, *, temperature: float) -> Tensor:
    """The scalar loss of two modalities.

    Args:
        cosines: [N] c_n.
        together: [N] whether a sample is in P or S.
        counted: [N] whether a sample counts at all; others have not both modalities.
        temperature: tau > 0.

    Returns:
        A scalar >= 0; 0 where no counted sample is in P or S, or all are.
    """
    logits = cosines / temperature
    # Masks without any sample are replaced, because the gradient of their logarithm is not defined.
    counted = torch.where(counted.any(), counted, torch.ones_like(counted))
    together = together & counted
    together = torch.where(together.any(), together, counted)
    total, part = (logits.masked_fill(~mask, -torch.inf).logsumexp(dim=0) for mask in (counted, together))
    return total - part
