"""Mixup: draws partners and weights for the samples of a batch, and mixes them.

Letters: N samples in the global batch; lam [N] weights (lambda in Eq. 2); pi_m [N] partners (j, k in Eq. 2).
Paper: Kumar et al., arXiv 2409.17777, Eq. 2. lambda ~ Beta(alpha, alpha), one value per sample, shared by all
modalities; one permutation per modality and batch.
Differs: samples are mixed within contiguous shards of the batch, so that a rank with whole shards needs no samples
  of other ranks. The result depends on the number of shards, not of ranks. One shard is the method of the paper.
Differs: the authors' code mixes each sample only with probability 0.5; `probability` does this (default 1).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.errors import InputError
from m3col.randomness import generator


@dataclass(frozen=True)
class Mixing:
    """How one batch is mixed.

    Attributes:
        lam: [N] weight of each sample itself.
        permutations: partners [N] int64 by modality.
        partners: the same in the CPU's memory, where reading them waits for no work of a GPU.
    """

    lam: Tensor
    permutations: dict[str, Tensor]
    partners: dict[str, NDArray[np.int64]]


class Placement(TypedDict, total=False):
    """Device of `lam` and the permutations, and dtype of `lam` (default: CPU, float32)."""

    dtype: torch.dtype
    device: torch.device | str


def draw_mixing(
    n: int,
    modalities: Sequence[str],
    *,
    alpha: float,
    shards: int,
    probability: float = 1.0,
    shared_permutation: bool = False,
    key: Mapping[str, int],
    **placement: Unpack[Placement],
) -> Mixing:
    """Draws the mixing of a global batch of `n` samples. Every rank draws all of it and uses its own rows.

    alpha: of Beta(alpha, alpha), > 0. shards: groups of the batch within which samples are mixed (>= 1; more
    than `n` leaves some empty). probability: of a sample to be mixed at all, independently per sample; one
    left out has weight 1. shared_permutation: one permutation for all modalities (plain Mixup).
    key: seed, fold, epoch, step. A modality's permutation depends on its name, not on the other modalities.
    Raises InputError with every fault of the arguments.
    """
    _check(n, modalities, alpha=alpha, shards=shards, probability=probability, key=key)
    purposes = {name: "permutation" if shared_permutation else f"permutation/{name}" for name in modalities}
    lam = np.empty(n)
    partners = {purpose: np.empty(n, dtype=np.int64) for purpose in purposes.values()}
    for shard, members in enumerate(np.array_split(np.arange(n), shards)):
        if members.size == 0:
            continue
        weights = generator(**key, shard=shard, purpose="lambda").beta(alpha, alpha, members.size)
        drawn = generator(**key, shard=shard, purpose="probability").random(members.size)
        lam[members] = np.where(drawn < probability, weights, 1.0)
        for purpose, partner in partners.items():
            partner[members] = generator(**key, shard=shard, purpose=purpose).permutation(members)
    device = torch.device(placement.get("device", "cpu"))
    dtype = placement.get("dtype", torch.float32)
    indices = {purpose: devices.moved(torch.from_numpy(partner), device) for purpose, partner in partners.items()}
    return Mixing(
        lam=devices.moved(torch.from_numpy(lam).to(dtype), device),
        permutations={name: indices[purpose] for name, purpose in purposes.items()},
        partners={name: partners[purpose] for name, purpose in purposes.items()},
    )


def mix(x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """lam x + (1 - lam) x[permutation] (Eq. 2), in the dtype of `x`, which is left as it is.

    x: [N, ...], inputs, embeddings or one-hot targets. permutation, lam: [N]. Raises InputError on others.
    """
    expected = list(x.shape[:1])
    faults = [
        f"{name} must have shape {expected} for x of shape {list(x.shape)}, but got {list(tensor.shape)}"
        for name, tensor in (("permutation", permutation), ("lam", lam))
        if list(tensor.shape) != expected
    ]
    if not x.is_floating_point():
        faults.append(f"x must have a floating dtype, but got {x.dtype}")
    if faults:
        raise InputError(faults)
    weight = lam.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return weight * x + (1 - weight) * x[permutation]


def _check(
    n: int,
    modalities: Sequence[str],
    *,
    alpha: float,
    shards: int,
    probability: float,
    key: Mapping[str, int],
) -> None:
    faults = []
    if n < 1:
        faults.append(f"n must be >= 1, but got {n}")
    if not modalities or len(set(modalities)) < len(modalities):
        faults.append(f"modalities must be one or more different names, but got {list(modalities)}")
    if not (math.isfinite(alpha) and alpha > 0):
        faults.append(f"alpha must be a finite number > 0, but got {alpha}")
    if shards < 1:
        faults.append(f"shards must be >= 1, but got {shards}")
    if not 0 <= probability <= 1:
        faults.append(f"probability must lie in [0, 1], but got {probability}")
    if set(key) != {"seed", "fold", "epoch", "step"}:
        faults.append(f"key must hold seed, fold, epoch and step, but got {sorted(key)}")
    if faults:
        raise InputError(faults)
