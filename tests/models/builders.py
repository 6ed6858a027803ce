"""Tiny encoders, tokenisers and folders of files as the hub has them."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from m3col.config.modality_sections import ImageModelConfig, TextDataConfig, TextModelConfig
from m3col.inputs import tokenization
from m3col.inputs.specs import ImageInput, TextInput, Tokens
from m3col.models.image import ImageEncoder
from m3col.models.text import TextEncoder

TEXTS = ["a cat sleeps", "two dogs run over the green hill", "the sun", "one small bird sings at night in the old tree"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 8}
VOCABULARY = 120


def text_config(kind: str = "bert", **settings) -> TextModelConfig:
    options = SMALL | ({"hidden_dim": 64} if kind == "distilbert" else {"intermediate_size": 64})
    options |= {"max_position_embeddings": 48, **settings.pop("options", {})}
    return TextModelConfig(**{"name": kind, "pretrained": False, "options": options, **settings})


def text_encoder(config: TextModelConfig, *, width: int = 32, pad: int = 0, seed: int = 0, **settings) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder(config, TextInput(VOCABULARY, pad, 40), width, **settings)


def batch(lengths=(3, 9, 5, 7), *, pad: int = 0, types: bool = False, seed: int = 0) -> Tokens:
    """Texts of random ids, none of them `pad`, padded to the longest."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=drawn)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    kinds = (torch.rand(ids.shape, generator=drawn) < 0.5).long() if types else None
    return Tokens(ids.masked_fill(~mask, pad), mask, types=kinds)


def image_config(**settings) -> ImageModelConfig:
    return ImageModelConfig(
        **{"name": "vit_tiny_patch16_224", "pretrained": False, "options": VIT, **settings}
    )  # fmt: skip


def image_encoder(config: ImageModelConfig, *, size: int = 32, width: int = 32, seed: int = 0, **rest) -> ImageEncoder:
    torch.manual_seed(seed)
    return ImageEncoder(config, ImageInput(size), width, **rest)


def text_folder(folder: Path, texts=TEXTS, *, vocabulary: int = 150, **config) -> Path:
    """A folder with config.json, model.safetensors and tokenizer.json of a tiny BERT with random weights."""
    data = TextDataConfig(vocabulary=vocabulary, max_length=16)
    settings = text_config(**config)
    prepared = tokenization.fit(texts, data, settings)
    torch.manual_seed(7)
    TextEncoder(settings, TextInput(prepared.vocabulary, 0, 16), 32).model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenization.Tokenizer.from_str(prepared.tokenizer), pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return folder
