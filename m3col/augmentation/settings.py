"""The settings of each augmentation, as in the config."""

from typing import Annotated, Any

from pydantic import Field

from m3col.config.keys import Strict

Share = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[float, Field(gt=0)]

SharePair = Annotated[list[Share], Field(min_length=2, max_length=2)]

PositivePair = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class Crop(Strict):
    """The square is cut at a random place instead of the middle."""


class Flip(Strict):
    """Left to right. `p`: probability."""

    p: Share = 0.5


class ResizedCrop(Strict):
    """A random part of the image, resized to the square of the encoder.

    Attributes:
        area: smallest and largest share of the area of the image.
        aspect: smallest and largest ratio of width to height.
    """

    area: SharePair = [0.08, 1.0]  # noqa: RUF012 - pydantic copies it
    aspect: PositivePair = [3 / 4, 4 / 3]  # noqa: RUF012


class Jitter(Strict):
    """Random brightness, contrast, saturation and hue, in random order.

    Attributes:
        brightness: largest relative change; the factor is uniform in 1 - brightness .. 1 + brightness.
        contrast: as brightness.
        saturation: as brightness.
        hue: largest shift, in turns of the colour circle.
        p: probability.
    """

    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    p: Share = 0.8


class Grey(Strict):
    """Grey values in place of colours. `p`: probability."""

    p: Share = 0.2


class Blur(Strict):
    """Gaussian blur.

    Attributes:
        radius: smallest and largest standard deviation, in pixels.
        p: probability.
    """

    radius: Annotated[list[Annotated[float, Field(gt=0, le=20)]], Field(min_length=2, max_length=2)] = [0.1, 2.0]  # noqa: RUF012
    p: Share = 0.5


class Noise(Strict):
    """Adds Gaussian noise to every number.

    Attributes:
        sd: standard deviation, in the unit of the values after preprocessing.
        p: probability.
        shared: whether all modalities of a sample are augmented together or not at all.
    """

    sd: Positive = 0.1
    p: Share = 0.5
    shared: bool = False


class Drop(Strict):
    """Sets a random share of the features of a table, or of the steps of a sequence, to 0.

    Attributes:
        share: smallest and largest share.
        p: probability.
        shared: whether all modalities of a sample are augmented together or not at all.
    """

    share: SharePair = [0.0, 0.8]  # noqa: RUF012
    p: Share = 0.5
    shared: bool = False


class ConsecutiveDrop(Drop):
    """As `drop`, but the features or steps are neighbours."""


class Permute(Strict):
    """Puts the features of a table, or the steps of a sequence, in random order. `p`: probability."""

    p: Share = 0.5


class Window(Strict):
    """Keeps features or steps that are neighbours and sets the others to 0.

    Attributes:
        share: smallest and largest share that is kept.
        p: probability.
    """

    share: SharePair = [0.08, 1.0]  # noqa: RUF012
    p: Share = 0.5


class InputMixup(Strict):
    """Mixes each sample with another one of the training fold: lam x + (1 - lam) x', lam ~ Beta(alpha, alpha).

    Labels stay as they are; the method of that name mixes them too.

    Attributes:
        alpha: of the Beta distribution.
        p: probability.
    """

    alpha: Positive = 1.0
    p: Share = 0.5


class OneOf(Strict):
    """Applies one of several augmentations to each sample, all with the same probability.

    Attributes:
        of: augmentations with their settings, as in a list; "none" leaves a sample as it is. Each has a `p` of its own.
            The default is FactorCL's for the sequences of MultiBench.
    """

    of: Annotated[list[str | dict[str, Any]], Field(min_length=2)] = [  # noqa: RUF012 - pydantic copies it
        "none",
        {"permute": {"p": 1.0}},
        {"noise": {"p": 1.0}},
        {"drop": {"share": [0.2, 0.2], "p": 1.0}},
    ]


class Mask(Strict):
    """Replaces tokens by the mask token, but neither padding nor the tokens at the ends of a text.

    Attributes:
        p: probability of each token.
    """

    p: Share = 0.15
