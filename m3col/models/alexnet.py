"""AlexNet, which timm lacks: the encoder of CoMM's Trifeatures. It is registered with timm, so that it is used like any
other model of `model.image.name`.

Paper: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, in the form
of torchvision (arXiv 1404.5997): five convolutions.
Differs: the classifier is left out, and there are no pretrained weights here; a file of torchvision's fits
(`model.image.weights`).
"""

from typing import Any, ClassVar

import torchvision
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import register_model
from torch import Tensor, nn

_WIDTH = 256


class AlexNet(nn.Module):
    """Images [n, 3, S, S] to the mean over the feature map, [n, 256]. S is at least 63; 224 gives a map of 6 x 6."""

    num_features = _WIDTH
    pretrained_cfg: ClassVar[dict[str, Any]] = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}

    def __init__(self) -> None:
        super().__init__()
        self.features: nn.Sequential = torchvision.models.alexnet(weights=None).features

    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map [n, 256, h, w]."""
        result: Tensor = self.features(x)
        return result

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@register_model
def alexnet(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,
    num_classes: int = 0,
) -> AlexNet:
    """Builds the model for timm, whose builder passes the arguments."""
    return AlexNet()
