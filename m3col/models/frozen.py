"""Pretrained models whose weights stay as they are."""

from typing import Any

from torch import nn


class FrozenModel(nn.Module):
    """An encoder with a pretrained `model`, which `freeze` keeps as it is.

    Attributes:
        model: the pretrained model.
    """

    model: Any
    _is_frozen = False

    def freeze(self) -> None:
        """Stops the training of the weights of `model`, and keeps it in evaluation mode.

        Differs: the authors of CoMM (arXiv 2409.07402) leave the dropout of their frozen text encoder on in training.
        """
        self._is_frozen = True
        self.model.requires_grad_(False)
        self.model.eval()

    def train(self, mode: bool = True) -> "FrozenModel":
        """Sets the training mode of everything but a frozen model."""
        super().train(mode)
        if self._is_frozen:
            self.model.eval()
        return self
