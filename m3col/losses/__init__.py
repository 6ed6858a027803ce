"""The two contrastive losses of the paper, for two or more modalities that share one embedding width."""

from m3col.losses.m3co import m3co_loss
from m3col.losses.multi_softclip import multi_softclip_loss

__all__ = ["m3co_loss", "multi_softclip_loss"]
