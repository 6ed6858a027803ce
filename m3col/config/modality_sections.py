"""The sections of a run config for images and texts: how they are read, and which model encodes them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config.keys import Strict


class ImageDataConfig(Strict):
    """How images are read.

    Attributes:
        column: column of the CSV with the path of the image.
        size: side of the square input of the encoder, in pixels.
        augment: augmentation of training images. "crop": at a random place instead of the centre. "flip": left to
            right, at random.
    """

    column: str = "image"
    size: Annotated[int, Field(ge=8, le=2048)] = 224
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
