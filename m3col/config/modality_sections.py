"""The sections of a run config for images and texts: how they are read, and which model encodes them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config.keys import Strict


class ImageDataConfig(Strict):
    """How images are read.

    Attributes:
        column: column of the CSV with the path of the image.
        size: side of the square input of the encoder, in pixels.
        short_side: length to which the short side of each image is resized before the square is cut, in pixels; at
            least `size`. None: 8/7 of `size`.
        augment: augmentation of training images. "crop": at a random place instead of the centre. "flip": left to
            right, at random.
    """

    column: str = "image"
    size: Annotated[int, Field(ge=8, le=2048)] = 224
    short_side: Annotated[int, Field(ge=8, le=2400)] | None = None
    augment: Literal["none", "flip", "crop", "crop_flip"] = "none"


class TextDataConfig(Strict):
    """How texts are read.

    Attributes:
        columns: columns of the CSV, or fields of the data set, joined in this order; None: the default of the data set.
        tokenizer: name on the hub, or folder; None: the tokenizer of the encoder. "fitted": a WordPiece tokenizer that
            is fitted on the training split.
        vocabulary: number of entries of a fitted tokenizer.
        max_length: largest number of tokens of a text; longer texts are cut off.
        group_by_length: whether batches consist of texts of similar length.
    """

    columns: list[str] | None = None
    tokenizer: str | None = None
    vocabulary: Annotated[int, Field(ge=100)] = 8000
    max_length: Annotated[int, Field(ge=4)] = 512
    group_by_length: bool = False


class TrifeaturesConfig(Strict):
    """The data sets `trifeatures` (pairs of images) and `trifeatures_captions` (images with captions).

    Attributes:
        target: what is predicted. Of pairs: "share", the shape that both images have; "unique1" or "unique2", the
            texture of the first or second image; "synergy", whether the colour of the second image is the one that a
            fixed random map gives to the texture of the first. Of images with captions: "shape", "texture" or "colour".
            None: "share", or "shape".
        size: side of the drawn images, in pixels; 224 is published.
        train_pairs: largest number of training pairs, and of pairs for pretraining.
        test_pairs: largest number of test pairs.
        biased: whether the pairs for pretraining are only those that obey the rule of synergy; None: for the target
            "synergy" alone. Training and test pairs are never biased.
        seed: seed of the images, the splits, the pairs and the map.
    """

    target: Literal["share", "unique1", "unique2", "synergy", "shape", "texture", "colour"] | None = None
    size: Annotated[int, Field(ge=16, le=448)] = 224
    train_pairs: Annotated[int, Field(ge=10)] = 10_000
    test_pairs: Annotated[int, Field(ge=10)] = 10_000
    biased: bool | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42


class ImageModelConfig(Strict):
    """The encoder of images.

    Attributes:
        name: name of a timm model.
        pretrained: whether to start with pretrained weights, else with random ones.
        weights: file with the pretrained weights; None: the weights of the hub.
        options: arguments of the timm model, such as depth.
    """

    name: str = "vit_base_patch16_224.augreg_in21k"
    pretrained: bool = True
    weights: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it


class TextModelConfig(Strict):
    """The encoder of texts.

    Attributes:
        name: name of an encoder on the hub, or a folder with its files; with `pretrained: false` also a type of
            encoder, such as "bert".
        pretrained: whether to start with pretrained weights, else with random ones.
        pool: how token outputs become one embedding: "cls", the class token; "mean", the mean over the tokens.
        options: entries of the encoder's config, such as hidden_size.
    """

    name: str = "bert-base-uncased"
    pretrained: bool = True
    pool: Literal["cls", "mean"] = "cls"
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
