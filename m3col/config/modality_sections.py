"""The sections of a run config that images and texts have: what is read, and by which encoder."""

from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config.keys import Strict


class ImageDataConfig(Strict):
    """`column`: of the CSV, with the image's path; `size`: side of the square that the encoder sees, in pixels;
    `augment`: what training does to an image, `crop` at random instead of from the middle, `flip` left and right."""

    column: str = "image"
    size: Annotated[int, Field(ge=8, le=2048)] = 224
    augment: Literal["none", "flip", "crop", "crop_flip"] = "none"


class TextDataConfig(Strict):
    """`columns`: of the CSV, or fields of the data set, joined in this order; default: the entry's own. `tokenizer`:
    name or folder, default: the encoder's; "fitted": WordPiece of `vocabulary` entries, from the training part.
    `max_length`: tokens of a text that are read. `group_by_length`: batches of texts of similar length."""

    columns: list[str] | None = None
    tokenizer: str | None = None
    vocabulary: Annotated[int, Field(ge=100)] = 8000
    max_length: Annotated[int, Field(ge=4)] = 512
    group_by_length: bool = False


class ImageModelConfig(Strict):
    """`name`: a model of timm; `pretrained`: its weights from the hub, or from the file `weights`; false: random ones.
    `options`: arguments of timm's model, such as depth."""

    name: str = "vit_base_patch16_224.augreg_in21k"
    pretrained: bool = True
    weights: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it


class TextModelConfig(Strict):
    """`name`: an encoder of the hub, or a folder with its files; with `pretrained: false` also a kind, such as `bert`.
    `pool`: the class token, or the mean over tokens. `options`: entries of the encoder's config, as hidden_size."""

    name: str = "bert-base-uncased"
    pretrained: bool = True
    pool: Literal["cls", "mean"] = "cls"
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
