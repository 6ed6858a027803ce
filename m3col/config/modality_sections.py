"""The sections of a run config for images, texts and sequences: how they are read, and which model encodes them."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config.keys import Strict

Augment = str | list[str | dict[str, Any]]


class ImageDataConfig(Strict):
    """How images are read.

    Attributes:
        column: column of the CSV with the path of the image.
        size: side of the square input of the encoder, in pixels.
        short_side: length to which the short side of each image is resized before the square is cut, in pixels; at
            least `size`. None: 8/7 of `size`.
        augment: how training images are augmented: "none", "crop" (the square is cut at a random place), "flip" (left
            to right, at random), "crop_flip", "simclr", "weak", or a list of augmentations with their settings; or a
            mapping from modalities to these. See m3col.augmentation.registry.
        crop_area: smallest share of the area that the augmentation "resized_crop" keeps, a value that can be searched;
            None: as `augment` says.
    """

    column: str = "image"
    size: Annotated[int, Field(ge=8, le=2048)] = 224
    short_side: Annotated[int, Field(ge=8, le=2400)] | None = None
    augment: Augment | dict[str, Augment] = "none"
    crop_area: Annotated[float, Field(gt=0, le=1)] | None = None


class NumericDataConfig(Strict):
    """How numeric tables are augmented; `data.preprocess` scales them.

    Attributes:
        augment: how training rows are augmented, after preprocessing: "none", the name of an augmentation, or a list of
            them with their settings; or a mapping from modalities to these. See m3col.augmentation.registry.
    """

    augment: Augment | dict[str, Augment] = "none"


class TextDataConfig(Strict):
    """How texts are read.

    Attributes:
        columns: columns of the CSV, or fields of the data set, joined in this order; None: the default of the data set.
        tokenizer: name on the hub, or folder; None: the tokenizer of the encoder. "fitted": a WordPiece tokenizer that
            is fitted on the training split.
        vocabulary: number of entries of a fitted tokenizer.
        max_length: largest number of tokens of a text; longer texts are cut off.
        group_by_length: whether batches consist of texts of similar length.
        augment: how training texts are augmented: "none", "mask" (random tokens become the mask token), or a list with
            settings; or a mapping from modalities to these. See m3col.augmentation.registry.
    """

    columns: list[str] | None = None
    tokenizer: str | None = None
    vocabulary: Annotated[int, Field(ge=100)] = 8000
    max_length: Annotated[int, Field(ge=4)] = 512
    group_by_length: bool = False
    augment: Augment | dict[str, Augment] = "none"


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


class SequenceDataConfig(Strict):
    """How sequences are prepared.

    Attributes:
        scale: how each feature is scaled, by values of the training fold. "standard": mean 0, standard deviation 1.
            "minmax": to [0, 1]. "none": not at all.
        max_length: largest number of steps; longer sequences are cut. None: no limit.
        cut: where longer sequences are cut off. "end": the first steps are kept. "front": the last ones.
        group_by_length: whether batches consist of sequences of similar length.
        augment: how training sequences are augmented, after scaling: as for numeric tables, with steps in place of
            features.
    """

    scale: Literal["standard", "minmax", "none"] = "standard"
    max_length: Annotated[int, Field(ge=1)] | None = None
    cut: Literal["end", "front"] = "end"
    group_by_length: bool = False
    augment: Augment | dict[str, Augment] = "none"


class ImageModelConfig(Strict):
    """The encoder of images.

    Attributes:
        name: name of a timm model.
        pretrained: whether to start with pretrained weights, else with random ones.
        weights: file with the pretrained weights; None: the weights of the hub.
        frozen: whether the pretrained weights stay as they are; the model then runs in evaluation mode, and only what
            follows it is trained.
        options: arguments of the timm model, such as depth.
    """

    name: str = "vit_base_patch16_224.augreg_in21k"
    pretrained: bool = True
    weights: str | None = None
    frozen: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it


class TextModelConfig(Strict):
    """The encoder of texts.

    Attributes:
        name: name of an encoder on the hub, or a folder with its files; with `pretrained: false` also a type of
            encoder, such as "bert".
        pretrained: whether to start with pretrained weights, else with random ones.
        pool: how token outputs become one embedding: "cls", the class token; "mean", the mean over the tokens.
        length_classes: largest number of classes of similar length in which the texts of a batch are encoded. With more
            than 1 fewer tokens of padding are computed, in more calls; embeddings differ by rounding, dropout is drawn
            otherwise.
        frozen: as for images.
        options: entries of the encoder's config, such as hidden_size.
    """

    name: str = "bert-base-uncased"
    pretrained: bool = True
    pool: Literal["cls", "mean"] = "cls"
    length_classes: Annotated[int, Field(ge=1, le=16)] = 1
    frozen: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it


class NumericModelConfig(Strict):
    """The encoder of numeric tables.

    Attributes:
        widths: widths of its linear layers; []: the features themselves. None: twice `model.embedding_dim`.
        activation: what follows each layer but the last: "relu", or "leaky_relu" with a slope of 0.1 below 0.
        last_activation: whether the activation follows the last layer too.
        tokens: what a fusion transformer gets of a row. "row": the output of the last layer as one token. "features": a
            token of the width `model.embedding_dim` for each number of that output.
    """

    widths: list[Annotated[int, Field(ge=1)]] | None = None
    activation: Literal["relu", "leaky_relu"] = "relu"
    last_activation: bool = False
    tokens: Literal["row", "features"] = "row"

    def layer_widths(self, embedding_dim: int) -> list[int]:
        """The widths of the linear layers."""
        return [embedding_dim, embedding_dim] if self.widths is None else list(self.widths)

    def parameter_count(self, features: int, embedding_dim: int) -> int:
        """The most weights that an encoder of so many features has."""
        widths = [features, *self.layer_widths(embedding_dim)]
        layers = sum((a + 1) * b for a, b in itertools.pairwise(widths))
        projected = 0 if widths[-1] == embedding_dim else (widths[-1] + 1) * embedding_dim
        return layers + max(projected, 2 * widths[-1] * embedding_dim if self.tokens == "features" else 0)


class SequenceModelConfig(Strict):
    """The encoder of sequences.

    Attributes:
        name: "transformer", "gru" (recurrent) or "convolution" (causal convolutions).
        width: width E of its layers and of the token at each step.
        layers: number of layers.
        heads: attention heads of the transformer; they divide `width`.
        feedforward: hidden width of the transformer's feed-forward layers.
        kernel: steps that a convolution reads. Without a stride the distance between them doubles from layer to layer.
        widths: widths of the convolutions but the last, whose width is `width`; None: all have `width`.
        stride: of each convolution: it gives one token for so many steps. 1: one for each step.
        stride_at: up to which of these steps a convolution reads. "last": all of them are read. "first": the first one,
            as published; what is behind the first step of a sequence is then seen by later tokens alone.
        dropout: dropout rate.
        pool: how the tokens become one embedding. "mean": their mean over the steps that exist. "last": that of the
            last step.
        positions: "sine": the transformer knows where a step is. "none": it does not.
        final_norm: whether the transformer ends with a LayerNorm.
        tokens: what a fusion transformer gets. "steps": a token for each step. "features": a token of the width
            `model.embedding_dim` for each number of the pooled vector.
        mask: whether padding is left out. False: padding counts as steps with the value 0, so that results depend on
            the other samples of a batch; published code does this.
    """

    name: Literal["transformer", "gru", "convolution"] = "transformer"
    width: Annotated[int, Field(ge=1)] = 64
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    feedforward: Annotated[int, Field(ge=1)] = 256
    kernel: Annotated[int, Field(ge=2)] = 2
    widths: list[Annotated[int, Field(ge=1)]] | None = None
    stride: Annotated[int, Field(ge=1)] = 1
    stride_at: Literal["last", "first"] = "last"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pool: Literal["mean", "last"] = "mean"
    positions: Literal["sine", "none"] = "sine"
    final_norm: bool = True
    tokens: Literal["steps", "features"] = "steps"
    mask: bool = True
