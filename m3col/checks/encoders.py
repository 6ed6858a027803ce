"""Validates the encoders of images, texts and sequences before anything is computed: names, options, files, sizes.

m3col.pretrained finds their files: in a folder, in the cache of the hub on this machine, or on the hub.
"""

import re
from collections.abc import Callable, Collection

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from m3col import pretrained
from m3col.config.modality_sections import ImageModelConfig
from m3col.config.schema import DataConfig, ModelConfig
from m3col.config.validation import Fault
from m3col.errors import InputError
from m3col.inputs import tokenization
from m3col.inputs.specs import ImageInput, SequenceInput, TextInput
from m3col.models import image, sequence, text, token_positions
from m3col.models.image import ImageEncoder
from m3col.models.sequence import SequenceEncoder
from m3col.models.text import TextEncoder


def faults(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> list[Fault]:
    """All faults of the encoders of these kinds, and of the tokenizer.

    Encoders are built on the meta device, without memory for weights. Files are found as for a training, which may
    download them from the hub. Where it suffices, only names and shapes of weights are read.

    Args:
        model: the config section `model:`.
        data: the config section `data:`.
        kinds: the kinds of the modalities: "numeric", "image", "text", "sequence".
    """
    texts: list[str] = []
    if "image" in kinds:
        texts += _image_faults(model, data)
    if "text" in kinds:
        texts += _text_faults(model, data)
    if "sequence" in kinds:
        texts += sequence.config_faults(model.sequence)
    return [Fault(_path(line), line) for line in dict.fromkeys(texts)]


def parameter_counts(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> dict[str, int]:
    """The number of weights of one encoder of each kind, "image" and "text", with the projection to `embedding_dim`.

    Counted on the meta device. A tokenizer that is fitted later counts with its largest possible vocabulary. Raises
    InputError where `faults` returns faults.
    """
    counts: dict[str, int] = {}
    with torch.device("meta"):
        if "image" in kinds:
            size = ImageInput(data.image.size)
            counts["image"] = _count(ImageEncoder(model.image, size, model.embedding_dim, load_weights=False))
        if "text" in kinds:
            texts = text_input(model, data)
            counts["text"] = _count(TextEncoder(model.text, texts, model.embedding_dim, load_weights=False))
    return counts


def sequence_parameters(model: ModelConfig, features: int) -> int:
    """The most weights that the encoder of sequences with so many features has, counted on the meta device."""
    with torch.device("meta"):
        encoder = SequenceEncoder(model.sequence, SequenceInput(features), model.embedding_dim)
        pooled = _count(encoder)
        encoder.without_pooling()
        return max(pooled, _count(encoder))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _path(line: str) -> str:
    """The dotted key at the start of a message; "" where there is none."""
    match = re.match(r"(model|data)(\.\w+)+", line)
    return match[0] if match else ""


def _image_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    config, size = model.image, data.image.size
    faults = _faults_of(lambda: image.check_name(config.name))
    if faults:
        return faults
    faults = image.option_faults(config, size) or _faults_of(lambda: _created(config, size))
    faults = faults or _faults_of(lambda: image.inspect_model(config, size))
    if faults:
        return [*faults, *(_faults_of(lambda: pretrained.image_file(config)) if config.pretrained else [])]
    built = _created(config, size)
    if model.gradient_checkpointing:
        faults += _faults_of(lambda: image.checkpoint(built, config))
    if config.pretrained:
        faults += _faults_of(lambda: image.load(built, config))
    elif config.weights is not None:
        faults.append("model.image.weights are given, but model.image.pretrained=false asks for random ones; drop one")
    return faults


def _created(config: ImageModelConfig, size: int) -> torch.nn.Module:
    with torch.device("meta"):
        return image.create(config, size)


def _text_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    config, faults = model.text, []
    if config.pretrained and data.text.tokenizer is None and text.is_model(config):
        # Checked together, so that a model that is missing as a whole gives one line.
        faults = _faults_of(
            lambda: pretrained.text_folder(config.name, ["config", "weights", "tokenizer"], key=text.KEY)
        )
        if faults:
            return faults
    try:
        described = text.encoder_config(config)
    except InputError as error:
        faults += error.faults
        described = {}
        if config.pretrained and data.text.tokenizer is None:
            return faults  # the tokenizer has the same source
    try:
        input = text_input(model, data)
    except InputError as error:
        return [*faults, *error.faults]
    if tokenization.source(data.text, config) == tokenization.FITTED and config.pretrained:
        faults.append(
            "data.text.tokenizer 'fitted': tokenizer and encoder do not belong together: pretrained weights have "
            "embeddings for their own words; leave it out, or set model.text.pretrained=false"
        )
    if faults or not described:
        return faults
    try:
        values = text.with_input(described, config, input)
        text.inspect_model(config, values)
    except InputError as error:
        return [*faults, *error.faults]
    faults += _length_faults(values, input)
    if config.pretrained:
        faults += _faults_of(lambda: text.check_weights(config, values))
        faults += _vocabulary_faults(model, data) or _token_faults(model, data, values["vocab_size"])
    return faults


def _length_faults(values: dict[str, object], input: TextInput) -> list[str]:
    with torch.device("meta"):
        limit = token_positions.longest(text.build(values))
    if limit is None or input.max_length <= limit:
        return []
    line = f"data.text.max_length must be <= {limit}, the positions of {values['model_type']!r}"
    return [f"{line}, but got {input.max_length}; the nearest valid value is {limit}"]


def _vocabulary_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    """Faults of a tokenizer whose ids differ from those of the encoder's own tokenizer, where there is one."""
    name = data.text.tokenizer
    if name is None or name == model.text.name:
        return []
    try:
        own = tokenization.load(model.text.name, key=text.KEY)[0].get_vocab()
    except InputError:
        return []  # the encoder has no tokenizer of its own to compare with
    other = tokenization.load(name, key="data.text.tokenizer")[0].get_vocab()
    different = sorted(word for word, number in own.items() if other.get(word) != number)
    if not different:
        return []
    word = different[0]
    there = f"is {other[word]}" if word in other else "is not there"
    line = f"data.text.tokenizer {name!r}: tokenizer and encoder do not belong together: {len(different)} entries of "
    return [f"{line}{model.text.name!r} have another number; {word!r} is {own[word]} there and {there} here"]


def _token_faults(model: ModelConfig, data: DataConfig, words: int) -> list[str]:
    """Faults of a tokenizer that cannot belong to an encoder with `words` word embeddings.

    It must have about as many entries, and the special tokens that config.json names. A config that names the encoder
    as `data.text.tokenizer` skips this check.
    """
    name = tokenization.source(data.text, model.text)
    if data.text.tokenizer == model.text.name:
        return []
    tokenizer, pad = tokenization.load(name, key=tokenization.key(data.text))
    size, named, reasons = tokenization.vocabulary_size(tokenizer), text.special_tokens(model.text), list[str]()
    special = [at for at, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    # Many encoders round their embeddings up to a multiple of 8, 64 or 128.
    is_rounded = words % 8 == 0 and words - size < 128
    if words > 1.1 * size and not is_rounded:
        reasons.append(f"the tokenizer has {size} entries, the encoder {words}")
    if named.get("pad_token_id", pad) != pad:
        reasons.append(f"padding is {pad} for the tokenizer, {named['pad_token_id']} for the encoder")
    strange = [f"{key} {at}" for key, at in named.items() if special and at not in special]
    if strange and not reasons:
        reasons.append(f"config.json has {strange[0]}, which is no special token of the tokenizer")
    if not reasons:
        return []
    line = (
        f"{tokenization.key(data.text)} {name!r}: tokenizer and encoder do not belong together: {' and '.join(reasons)}"
    )
    return [line if data.text.tokenizer else f"{line}; if they do all the same, set data.text.tokenizer={name}"]


def text_input(model: ModelConfig, data: DataConfig) -> TextInput:
    """The description of the texts. A tokenizer that is fitted later has its largest possible vocabulary."""
    name = tokenization.source(data.text, model.text)
    if name == tokenization.FITTED:
        return TextInput(data.text.vocabulary, 0, data.text.max_length)
    tokenizer, pad = tokenization.load(name, key=tokenization.key(data.text))
    tokenization.check_mask_token(tokenizer, data.text)
    return TextInput(tokenization.vocabulary_size(tokenizer), pad, data.text.max_length)


def _faults_of(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except InputError as error:
        return list(error.faults)
    return []


def worker_faults(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> list[str]:
    """Faults of encoders that give other results with several workers: BatchNorm uses the rows of one worker only."""
    if "image" not in kinds:
        return []
    norms = [module for module in _created(model.image, data.image.size).modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return []
    return [
        f"model.image.name {model.image.name!r} normalises over the rows of a batch (BatchNorm), and each worker has "
        "only some of them: its results would depend on the number of workers; use one worker, or a model without "
        "it, such as 'vit_small_patch16_224', 'convnext_tiny' or 'resnet50_gn'"
    ]
