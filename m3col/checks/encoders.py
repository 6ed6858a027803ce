"""Encoders of images and texts judged before anything is spent on them: names, options, files, sizes.

Where their files come from is in m3col.pretrained: a folder or file, the hub's cache on this machine, the hub.
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
from m3col.inputs.specs import ImageInput, TextInput
from m3col.models import image, text
from m3col.models.image import ImageEncoder
from m3col.models.text import TextEncoder


def faults(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> list[Fault]:
    """All that is wrong with the encoders of the data's `kinds` (numeric, image, text) and with their tokeniser.

    Encoders are built on the meta device, without memory for weights; files are looked for as for a training, which
    may fetch them from the hub, and only their names and shapes are read where that will do.
    """
    found: list[str] = []
    if "image" in kinds:
        found += _image_faults(model, data)
    if "text" in kinds:
        found += _text_faults(model, data)
    return [Fault(_path(line), line) for line in dict.fromkeys(found)]


def parameter_counts(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> dict[str, int]:
    """Weights of one encoder of each kind, "image" and "text", the projection to `embedding_dim` included.

    Counted on the meta device; of a vocabulary that is yet to be learnt the largest possible size. Raises InputError
    where `faults` finds some.
    """
    found: dict[str, int] = {}
    with torch.device("meta"):
        if "image" in kinds:
            size = ImageInput(data.image.size)
            found["image"] = _count(ImageEncoder(model.image, size, model.embedding_dim, load_weights=False))
        if "text" in kinds:
            input = _text_input(model, data)
            found["text"] = _count(TextEncoder(model.text, input, model.embedding_dim, load_weights=False))
    return found


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _path(line: str) -> str:
    """The dotted key that a fault begins with."""
    begin = re.match(r"(model|data)(\.\w+)+", line)
    return begin[0] if begin else ""


def _image_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    config, size = model.image, data.image.size
    found = _faults_of(lambda: image.check_name(config.name))
    if found:
        return found
    found = image.option_faults(config, size) or _faults_of(lambda: _created(config, size))
    found = found or _faults_of(lambda: image.look(config, size))
    if found:
        return [*found, *(_faults_of(lambda: pretrained.image_file(config)) if config.pretrained else [])]
    built = _created(config, size)
    if model.gradient_checkpointing:
        found += _faults_of(lambda: image.checkpoint(built, config))
    if config.pretrained:
        found += _faults_of(lambda: image.load(built, config))
    elif config.weights is not None:
        found.append("model.image.weights are given, but model.image.pretrained=false asks for random ones; drop one")
    return found


def _created(config: ImageModelConfig, size: int) -> torch.nn.Module:
    with torch.device("meta"):
        return image.create(config, size)


def _text_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    config, found = model.text, []
    if config.pretrained and data.text.tokenizer is None and text.is_model(config):
        # One line for all files of a model that is not there.
        found = _faults_of(
            lambda: pretrained.text_folder(config.name, ["config", "weights", "tokenizer"], key=text.KEY)
        )
        if found:
            return found
    try:
        described = text.encoder_config(config)
    except InputError as error:
        found += error.faults
        described = {}
        if config.pretrained and data.text.tokenizer is None:
            return found  # the tokeniser comes from the same place
    try:
        input = _text_input(model, data)
    except InputError as error:
        return [*found, *error.faults]
    if tokenization.source(data.text, config) == tokenization.FITTED and config.pretrained:
        found.append(
            "data.text.tokenizer 'fitted': tokenizer and encoder do not belong together: pretrained weights have "
            "embeddings for their own words; leave it out, or set model.text.pretrained=false"
        )
    if found or not described:
        return found
    try:
        values = text.with_input(described, config, input)
        text.look(config, values)
    except InputError as error:
        return [*found, *error.faults]
    found += _length_faults(values, input)
    if config.pretrained:
        found += _faults_of(lambda: text.check_weights(config, values))
        found += _vocabulary_faults(model, data) or _token_faults(model, data, values["vocab_size"])
    return found


def _length_faults(values: dict[str, object], input: TextInput) -> list[str]:
    with torch.device("meta"):
        limit = text.longest(text.build(values))
    if limit is None or input.max_length <= limit:
        return []
    line = f"data.text.max_length must be <= {limit}, the positions of {values['model_type']!r}"
    return [f"{line}, but got {input.max_length}; the nearest valid value is {limit}"]


def _vocabulary_faults(model: ModelConfig, data: DataConfig) -> list[str]:
    """Whether a tokeniser of another name numbers words as the encoder's own does, where that is at hand."""
    name = data.text.tokenizer
    if name is None or name == model.text.name:
        return []
    try:
        own = tokenization.load(model.text.name, key=text.KEY)[0].get_vocab()
    except InputError:
        return []  # an encoder without tokeniser: the one given is all there is
    given = tokenization.load(name, key="data.text.tokenizer")[0].get_vocab()
    different = sorted(word for word, at in own.items() if given.get(word) != at)
    if not different:
        return []
    word = different[0]
    there = f"is {given[word]}" if word in given else "is not there"
    line = f"data.text.tokenizer {name!r}: tokenizer and encoder do not belong together: {len(different)} entries of "
    return [f"{line}{model.text.name!r} have another number; {word!r} is {own[word]} there and {there} here"]


def _token_faults(model: ModelConfig, data: DataConfig, words: int) -> list[str]:
    """Whether the tokeniser may be that of an encoder with embeddings for `words` words: of about as many entries, and
    with the special tokens that config.json names. Whoever names the encoder's own once more says that it is."""
    name = tokenization.source(data.text, model.text)
    if data.text.tokenizer == model.text.name:
        return []
    tokenizer, pad = tokenization.load(name, key=tokenization.key(data.text))
    size, named, found = tokenization.vocabulary_size(tokenizer), text.special_tokens(model.text), list[str]()
    special = [at for at, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    # Many encoders round their embeddings up to a multiple of 8, 64 or 128.
    is_rounded = words % 8 == 0 and words - size < 128
    if words > 1.1 * size and not is_rounded:
        found.append(f"the tokenizer has {size} entries, the encoder {words}")
    if named.get("pad_token_id", pad) != pad:
        found.append(f"padding is {pad} for the tokenizer, {named['pad_token_id']} for the encoder")
    strange = [f"{key} {at}" for key, at in named.items() if special and at not in special]
    if strange and not found:
        found.append(f"config.json has {strange[0]}, which is no special token of the tokenizer")
    if not found:
        return []
    line = (
        f"{tokenization.key(data.text)} {name!r}: tokenizer and encoder do not belong together: {' and '.join(found)}"
    )
    return [line if data.text.tokenizer else f"{line}; if they do all the same, set data.text.tokenizer={name}"]


def _text_input(model: ModelConfig, data: DataConfig) -> TextInput:
    name = tokenization.source(data.text, model.text)
    if name == tokenization.FITTED:
        return TextInput(data.text.vocabulary, 0, data.text.max_length)
    tokenizer, pad = tokenization.load(name, key=tokenization.key(data.text))
    return TextInput(tokenization.vocabulary_size(tokenizer), pad, data.text.max_length)


def _faults_of(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except InputError as error:
        return list(error.faults)
    return []


def worker_faults(model: ModelConfig, data: DataConfig, kinds: Collection[str]) -> list[str]:
    """What keeps several workers from computing what one computes: statistics over the rows that each of them has."""
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
