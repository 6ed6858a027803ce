"""Mixed samples of a batch, for methods with the section `mix:` of a config (Eq. 2-3 of arXiv 2409.17777).

Letters: N samples in the global batch, n of them on this rank, D embedding width.
"""

from collections.abc import Mapping

from torch import Tensor

from m3col.augmentation import sample_mixing
from m3col.config.schema import MixConfig
from m3col.inputs.specs import with_partners
from m3col.methods.base import Method
from m3col.methods.batch import Batch, Step


def _mix_config(method: Method) -> MixConfig:
    assert method.config.mix is not None, f"{type(method).__name__} does not say that it mixes"
    return method.config.mix


def draw(
    method: Method, batch: Batch, step: Step, *, alpha: float, shared_permutation: bool = False
) -> sample_mixing.Mixing:
    """Lambda and permutations for the global batch, keyed by the step (docs/protocol.md, section 2).

    Args:
        method: the method that mixes, for its modalities and its section `mix:`.
        batch: the batch whose samples are mixed.
        step: keys the draw.
        alpha: lambda is drawn from Beta(alpha, alpha).
        shared_permutation: whether all modalities mix a sample with the same partner.

    Returns:
        Lambda [N] and a permutation [N] per modality.
    """
    return sample_mixing.draw_mixing(
        batch.size,
        method.modalities,
        alpha=alpha,
        shards=batch.shards,
        probability=_mix_config(method).probability,
        shared_permutation=shared_permutation,
        key={"seed": step.seed, "fold": step.fold, "epoch": step.epoch, "step": step.step},
        device=next(method.parameters()).device,
        dtype=next(method.parameters()).dtype,
    )


def mixed_at_embedding(method: Method) -> list[str]:
    """The modalities with `mix.level: embedding`: their embeddings are mixed, not their inputs."""
    level = _mix_config(method).level
    return [m for m in method.modalities if (level if isinstance(level, str) else level[m]) == "embedding"]


def mixed_embeddings(
    method: Method, batch: Batch, embeddings: Mapping[str, Tensor], mixing: sample_mixing.Mixing
) -> dict[str, Tensor]:
    """The embeddings of mixed samples (Eq. 2-3).

    Args:
        method: the method that mixes.
        batch: the batch whose samples are mixed.
        embeddings: embeddings [n, D] of the samples themselves, for the modalities with `mix.level: embedding`.
        mixing: lambda and permutations, as `draw` returns them.

    Returns:
        Embeddings q_m [n, D] by modality: of mixed inputs, or mixed `embeddings` with `mix.level: embedding`.
    """
    own, late = batch.rows, mixed_at_embedding(method)
    mixed = {}
    for m in method.modalities:
        # Partners are in the same shard, hence on the same rank.
        partner, lam = mixing.permutations[m][own] - own.start, mixing.lam[own]
        if m in late:
            # Under autocast embeddings may be bfloat16, to which lambda would be rounded.
            mixed[m] = sample_mixing.mix(embeddings[m].to(lam.dtype), partner, lam)
        else:
            rows = with_partners(batch.inputs[m], mixing.partners[m][own] - own.start)
            mixed[m] = method.embed(m, rows, (partner, lam))
    return mixed
