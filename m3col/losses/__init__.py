"""The contrastive losses of M3CoL and of the CoMM family, for a training loop of your own too."""

from m3col.losses.clip import clip_loss
from m3col.losses.comm import comm_loss, comm_terms
from m3col.losses.information import club_bound, nce_bound
from m3col.losses.m3co import m3co_loss
from m3col.losses.multi_softclip import multi_softclip_loss
from m3col.losses.ntxent import nt_xent
from m3col.losses.supcon import supcon_loss

__all__ = [
    "clip_loss",
    "club_bound",
    "comm_loss",
    "comm_terms",
    "m3co_loss",
    "multi_softclip_loss",
    "nce_bound",
    "nt_xent",
    "supcon_loss",
]
