"""Opinions about classes as Dirichlet distributions: their fusion, and the loss of one opinion.

Letters: V opinions, one per modality (and more, see `m3col.methods.tmc`), N samples, C classes; e_v evidence [C] >= 0
of opinion v, alpha_v = e_v + 1, S_v = sum_k alpha_vk; belief b_v = e_v / S_v, vacuity u_v = C / S_v; psi digamma.
Paper: Han et al., "Trusted Multi-View Classification", arXiv 2102.02051, section 3 (Dempster's rule of two
views, and the loss of an opinion).

Dempster's rule of two opinions is, with the conflict K = sum over i != j of b_1i b_2j,

    b_k = (b_1k b_2k + b_1k u_2 + b_2k u_1) / (1 - K),    u = u_1 u_2 / (1 - K),    S = C / u,    e = b S.

Over all opinions, in any order, this is

    e_k = C ( prod_v (1 + e_vk / C) - 1 ):

(e_1k e_2k + C e_1k + C e_2k) / (S_1 S_2) is the numerator of b_k, and 1 - K cancels in b_k / u. Nothing is divided.

Differs: the product is computed as a sum of logarithms, which is cut off at 80, so that the product cannot overflow in
  float32. The losses are computed in float64, of parameters up to 1e7: with more evidence the differences of the
  divergence would be rounding errors, and it has no gradient there.
"""

import torch
from torch import Tensor

_LARGEST_PARAMETER = 1e7  # of a Dirichlet distribution, in the losses

_LARGEST = 80.0  # exp of it times some classes is finite in float32


def fused_evidence(evidence: Tensor) -> Tensor:
    """The evidence of all opinions together by Dempster's reduced rule.

    An opinion without evidence changes nothing. The result is at least the sum of all evidence in every class: also
    opinions that contradict each other lower the vacuity.

    Args:
        evidence: [V, N, C] of the opinions, >= 0, in float32 or float64.

    Returns:
        The evidence [N, C].

    Example:
        >>> import torch
        >>> fused_evidence(torch.tensor([[[2.0, 0.0]], [[4.0, 2.0]]]))  # 2 ((1 + 1) (1 + 2) - 1), 2 (1 + 1) - 2
        tensor([[10.,  2.]])
    """
    classes = evidence.shape[2]
    return classes * torch.expm1(torch.log1p(evidence / classes).sum(dim=0).clamp(max=_LARGEST))


def expected_cross_entropy(alpha: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy over the class probabilities of a Dirichlet distribution, psi(S) - psi(alpha_y).

    Args:
        alpha: [N, C] parameters > 0.
        labels: [N] classes.

    Returns:
        The loss [N] of each sample.
    """
    exact = alpha.double().clamp(max=_LARGEST_PARAMETER)
    own = exact.gather(1, labels[:, None])[:, 0]
    return (torch.digamma(exact.sum(dim=1)) - torch.digamma(own)).to(alpha.dtype)


def kl_of_misleading_evidence(alpha: Tensor, labels: Tensor) -> Tensor:
    """KL(Dir(a) || Dir(1)), where a is alpha with 1 for the true class: what the other classes have for evidence.

    With A = sum_k a_k it is  lnG(A) - lnG(C) - sum_k lnG(a_k) + sum_k (a_k - 1) (psi(a_k) - psi(A)).

    Args:
        alpha: [N, C] parameters >= 1.
        labels: [N] classes.

    Returns:
        The divergence [N] of each sample; 0 without evidence for any other class.
    """
    others = alpha.double().clamp(max=_LARGEST_PARAMETER).scatter(1, labels[:, None], 1.0)
    total = others.sum(dim=1, keepdim=True)
    # lnG(C) of a tensor is rounded like lnG(A), so that without evidence the difference is exactly 0.
    none = torch.lgamma(torch.full_like(total, alpha.shape[1]))
    logarithms = torch.lgamma(total) - none - torch.lgamma(others).sum(dim=1, keepdim=True)
    slopes = ((others - 1) * (torch.digamma(others) - torch.digamma(total))).sum(dim=1, keepdim=True)
    return (logarithms + slopes)[:, 0].to(alpha.dtype)
