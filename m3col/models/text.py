"""The encoder of texts: any encoder that transformers' AutoModel loads.

Letters: n texts, L tokens of the batch's longest one, E width of the word embeddings, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, Eq. 2-3 and section 4 (BERT and RoBERTa base): texts are mixed at their word
  embeddings, and the mixture passes through the encoder.
Differs: the paper does not say how texts of different length are mixed; here a position of the mixture is attended to
  where either text has a token, and the shorter text contributes the embedding of the padding token there. The authors'
  code mixes class tokens instead, as `mix.level: embedding` does.
Differs: a linear projection to D follows where the encoder has another width; in the paper both are 768.
"""

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING,
    MODEL_MAPPING_NAMES,
)
from transformers.utils import logging

from m3col import pretrained
from m3col.augmentation import sample_mixing
from m3col.config.modality_sections import TextModelConfig
from m3col.errors import InputError, nearest, reason_of
from m3col.inputs.specs import TextInput, Tokens
from m3col.models import attention_masks, length_classes
from m3col.models.dry_run import DryRun, dry_run
from m3col.models.frozen import FrozenModel
from m3col.models.image import misfit
from m3col.models.mlp import check_widths, linear
from m3col.models.token_positions import longest, padding_position, positions
from m3col.models.token_sequence import TokenSequence

KEY = "model.text.name"
# Keys of a stored config that are dropped: its origin, settings of classifiers, and settings that change how code and
# weights are loaded.
_LEFT_OUT = frozenset(
    ("architectures", "attn_implementation", "auto_map", "dtype", "id2label", "label2id", "problem_type",
     "quantization_config", "torch_dtype", "transformers_version")
)  # fmt: skip
# Options that follow from the tokenizer, or that would turn the encoder into another kind of model.
_RESERVED = frozenset(
    ("add_cross_attention", "is_decoder", "is_encoder_decoder", "model_type", "output_attentions",
     "output_hidden_states", "pad_token_id", "return_dict", "vocab_size")
)  # fmt: skip
# Masked language models that cannot be used here: they have a decoder, read bytes, proteins or images, scale their
# embeddings depending on the ids (esm), or need kernels of their own (mra).
_NO_ENCODERS = frozenset(
    ("bart", "esm", "esmc", "mbart", "modernvbert", "mra", "mvp", "neomme", "perceiver", "ultravbert")
)  # fmt: skip
_PROBE_LENGTH = 64  # tokens of the text in a dry run


class TextEncoder(FrozenModel):
    """Texts to embeddings [n, D], not normalised: the output of the class token, or the mean over the tokens.

    Weights are float32. Attention is torch's scaled_dot_product_attention where the encoder supports it. There is no
    pooling layer. Weights without a gradient are frozen, because DDP would wait for their gradients.

    Args:
        config: the config section `model.text:`.
        input: the description of the texts. With random weights the encoder gets its vocabulary size and padding id.
        embedding_dim: D.
        checkpointing: whether to save memory by recomputing activations in the backward pass.
        load_weights: False: pretrained weights are not loaded, because a checkpoint replaces them.
        described: what `encoder_config` returned, so that neither hub nor folder is needed; None: it is called.

    Raises:
        InputError: name, options, weights or tokenizer do not fit.
    """

    def __init__(
        self,
        config: TextModelConfig,
        input: TextInput,
        embedding_dim: int,
        *,
        checkpointing: bool = False,
        load_weights: bool = True,
        described: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_widths(embedding_dim=embedding_dim)
        self._described = _plain(encoder_config(config) if described is None else described)
        self._pool, self._length_classes = config.pool, config.length_classes
        values = with_input(self._described, config, input)
        probe = inspect_model(
            config, values
        )  # first, because its messages are clearer than those of `load` and `build`
        self.model = load(config, values) if config.pretrained and load_weights else build(values)
        attention_masks.read_no_masks(self.model)
        self.model.train()  # from_pretrained returns a model in evaluation mode
        self._parameters_of_forward = frozenset(inspect.signature(self.model.forward).parameters)
        self._padding_position = padding_position(self.model)
        for name in probe.unused:
            self.model.get_parameter(name).requires_grad_(False)
        self.sequence_width = probe.width
        self.projection = nn.Identity() if probe.width == embedding_dim else linear(probe.width, embedding_dim)
        if checkpointing:
            if not self.model.supports_gradient_checkpointing:
                kind = self._described["model_type"]
                raise InputError([f"model.gradient_checkpointing: {kind!r} has no gradient checkpointing"])
            self.model.config.use_cache = False  # else a warning at each call: checkpointing excludes this cache
            enable = getattr(self.model, "activation_checkpointing_enable", None)  # the newer name of the method
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
        if config.frozen:
            self.freeze()

    def forward(self, tokens: Tokens) -> Tensor:
        if self._length_classes > 1 and tokens.lengths is not None:
            return length_classes.encode(tokens, self._length_classes, self._encode)
        return self._encode(tokens)

    def _encode(self, tokens: Tokens) -> Tensor:
        hidden = self._run(tokens)
        if self._pool == "cls":
            pooled = hidden[:, 0]
        else:
            mask = tokens.mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        embedding: Tensor = self.projection(pooled)
        return embedding

    def sequence(self, tokens: Tokens) -> TokenSequence:
        """The encoder's output [n, L, width] at each token, without pooling and projection."""
        return TokenSequence(self._run(tokens), tokens.mask)

    def without_pooling(self) -> None:
        """Removes the projection of pooled embeddings, for methods that use `sequence` alone."""
        self.projection = nn.Identity()

    def embed(self, tokens: Tokens) -> Tokens:
        """The same texts with the word embeddings [n, L, E] in place of their ids."""
        if tokens.embeddings is not None:
            return tokens
        return replace(tokens, ids=None, embeddings=self.model.get_input_embeddings()(tokens.ids))

    def mix(self, tokens: Tokens, permutation: Tensor, lam: Tensor) -> Tokens:
        """Eq. 2 at the word embeddings: lam w + (1 - lam) w[permutation] at each position; permutation, lam: [n].

        A position is attended to where a text of positive weight has a token. So lam = 1 gives the unmixed text, and
        lam = 0 the partner. Where only the partner has a token, the token type is the partner's.
        """
        own = self.embed(tokens)
        assert own.embeddings is not None
        weight = lam.to(own.embeddings.dtype).unsqueeze(1)  # rounded as in `sample_mixing.mix`
        own_mask, partner_mask = own.mask & (weight > 0), own.mask[permutation] & (weight < 1)
        types = None if own.types is None else torch.where(partner_mask & ~own_mask, own.types[permutation], own.types)
        return Tokens(
            None, own_mask | partner_mask, sample_mixing.mix(own.embeddings, permutation, lam), types,
            lengths=tokens.mixed_lengths, padded=False if tokens.padded is False else None,
        )  # fmt: skip

    def stored(self) -> dict[str, Any]:
        """The encoder's config, which is passed as `described` to build the encoder from a checkpoint."""
        return dict(self._described)

    def _run(self, tokens: Tokens) -> Tensor:
        """The encoder's output [n, L, width]."""
        arguments: dict[str, Tensor] = {}
        # Without a mask attention is faster. Not while compiling, so that there is one graph for both cases.
        if torch.compiler.is_compiling() or tokens.padded is not False:
            arguments["attention_mask"] = tokens.mask.long()
        if tokens.embeddings is not None:
            arguments["inputs_embeds"] = tokens.embeddings
        else:
            assert tokens.ids is not None
            arguments["input_ids"] = tokens.ids
        if self._padding_position is not None:
            # Encoders such as RoBERTa derive positions from the ids, which are missing for word embeddings.
            arguments["position_ids"] = positions(tokens.mask, self._padding_position)
        if tokens.types is not None and "token_type_ids" in self._parameters_of_forward:
            arguments["token_type_ids"] = tokens.types
        hidden: Tensor = self.model(**arguments).last_hidden_state
        return hidden


def kinds() -> list[str]:
    """The model types of well-known encoders in transformers: masked language models without a decoder."""
    return sorted((set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) & set(CONFIG_MAPPING_NAMES)) - _NO_ENCODERS)


def _is_encoder(kind: str) -> bool:
    """Whether AutoModel has an encoder of that type. `inspect_model` finds out whether it accepts word embeddings."""
    others = set(MODEL_MAPPING_NAMES) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - _NO_ENCODERS
    return kind in kinds() or kind in others


def encoder_config(config: TextModelConfig) -> dict[str, Any]:
    """The encoder's config as plain JSON values, with `config.options` merged in.

    `config` names a folder, a model of the hub, or, with `pretrained: false`, a type of encoder such as "bert". Raises
    InputError: the name has no config, the model is not an encoder, or it does not have an option.
    """
    raw = _kind(config) or _of_folder(config)
    typed = _typed(raw, config, options=False)
    kind = typed.model_type
    if not _is_encoder(kind) or typed.is_encoder_decoder or getattr(typed, "is_decoder", False):
        raise InputError([f"{KEY} {config.name!r}: {kind!r} is no encoder{nearest(kind, kinds())}"])
    alias: dict[str, str] = getattr(typed, "attribute_map", {})
    valid = [*(name for name in _plain(typed.to_dict()) if name not in _RESERVED), *alias]
    unknown = [option for option in config.options if option not in valid]
    if unknown:
        raise InputError(
            [f"model.text.options.{name} cannot be set: it follows from the rest" if name in _RESERVED
             else f"model.text.options.{name} is no option of {kind!r}{nearest(name, valid)}" for name in unknown]
        )  # fmt: skip
    # Merged into the values of the file, not into those that transformers derives from it, such as a list with an entry
    # per layer.
    own = {alias.get(name, name): value for name, value in raw.items()}
    own |= {alias.get(option, option): value for option, value in config.options.items()}
    return _plain(_typed(own, config).to_dict())


def is_model(config: TextModelConfig) -> bool:
    """Whether the name is that of a model or folder, not of a type of encoder such as "bert"."""
    return config.name not in CONFIG_MAPPING_NAMES or os.path.isdir(config.name)


def _kind(config: TextModelConfig) -> dict[str, Any] | None:
    """The config of a type of encoder; None where the name is that of a model. Raises InputError with `pretrained`."""
    if is_model(config):
        return None
    if config.pretrained:
        text = f"{KEY} {config.name!r} is a kind of encoder; give a model of the hub or a folder, or set "
        raise InputError([f"{text}model.text.pretrained=false for random weights"])
    return {"model_type": config.name}


def _of_folder(config: TextModelConfig) -> dict[str, Any]:
    """The values in config.json."""
    try:
        folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    except InputError as error:
        close = nearest(config.name, kinds())
        if config.pretrained or "did you mean" not in close:
            raise
        raise InputError([f"{KEY} {config.name!r} is no kind of encoder{close} {error}"]) from error
    try:
        typed = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        stored, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    except Exception as error:  # invalid JSON, or a type of model that transformers does not have
        raise InputError([f"{KEY} {config.name!r}: config.json cannot be used: {reason_of(error)}"]) from error
    return {**_plain(stored), "model_type": typed.model_type}


def special_tokens(config: TextModelConfig) -> dict[str, int]:
    """The ids of special tokens in config.json that the type of encoder uses; BERT, for example, does not use a
    bos_token_id, which its files often have. Raises InputError."""
    folder = pretrained.text_folder(config.name, ["config"], key=KEY)
    stored, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    defaults = AutoConfig.for_model(encoder_config(config)["model_type"])
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return {
        name: stored[name]
        for name in names
        if type(stored.get(name)) is int and getattr(defaults, name, None) is not None
    }


def _parts(config: TextModelConfig) -> list[pretrained.Part]:
    return ["config", "weights"] if config.pretrained else ["config"]


def with_input(described: Mapping[str, Any], config: TextModelConfig, input: TextInput) -> dict[str, Any]:
    """The encoder's config for a tokenizer. With random weights it gets the tokenizer's vocabulary size and padding id.

    Raises InputError where pretrained weights have fewer word embeddings than the tokenizer has entries, or none.
    """
    if not config.pretrained:
        return {**described, "vocab_size": input.vocabulary, "pad_token_id": input.pad}
    if "vocab_size" not in described:
        raise InputError([f"{KEY} {config.name!r}: has no word embeddings of its own; name a text encoder alone"])
    if input.vocabulary > described["vocab_size"]:
        raise InputError(
            [f"{KEY} {config.name!r}: tokenizer and encoder do not belong together: the tokenizer has "
             f"{input.vocabulary} entries, the encoder {described['vocab_size']}"]
        )  # fmt: skip
    return dict(described)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config without those in `_LEFT_OUT` and private ones."""
    return {name: value for name, value in values.items() if name not in _LEFT_OUT and not name.startswith("_")}


def _typed(values: Mapping[str, Any], config: TextModelConfig, *, options: bool = True) -> Any:
    """The config object of transformers. `options`: whether `values` contain `config.options`. Raises InputError."""
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # config classes raise errors of any type
        if options and config.options:
            raise InputError([f"model.text.options {config.options!r}: {reason_of(error)}"]) from error
        raise InputError([f"{KEY} {config.name!r}: its config cannot be used: {reason_of(error)}"]) from error


def build(values: Mapping[str, Any]) -> PreTrainedModel:
    """Builds the encoder of a config with random weights."""
    config = AutoConfig.for_model(**values)
    model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32, **_without_pooling(config))
    return model


def load(config: TextModelConfig, values: Mapping[str, Any]) -> PreTrainedModel:
    """Builds the encoder with the weights of its folder. Raises InputError where some are missing or have other shapes.

    Other weights in the file, such as the head of a language model, are not loaded.
    """
    folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    typed = AutoConfig.for_model(**values)
    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                folder, config=typed, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                output_loading_info=True, ignore_mismatched_sizes=True, **_without_pooling(typed),
            )  # fmt: skip
    except Exception as error:  # readers of damaged files raise errors of any type
        raise InputError([f"{KEY} {config.name!r}: its weights cannot be read: {reason_of(error)}"]) from error
    shapes = [
        f"{key} is {list(stored)} instead of {list(own)}" for key, stored, own in sorted(report["mismatched_keys"])
    ]
    missing = sorted(report["missing_keys"])
    if missing or shapes:
        text = misfit(missing=missing, shapes=shapes, unexpected=sorted(report["unexpected_keys"]))
        raise InputError([f"{KEY} {config.name!r}: its weights do not fit: {text}"])
    return model


def check_weights(config: TextModelConfig, values: Mapping[str, Any]) -> None:
    """Raises InputError where `load` would. For most files only names and shapes of weights are read."""
    folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    with torch.device("meta"):
        model = build(values)
    shapes: dict[str, list[int]] = {}
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
    stored = {_modern(name, model.base_model_prefix): shape for name, shape in shapes.items()}
    if any(stored.get(name) != list(value.shape) for name, value in model.state_dict().items()):
        load(config, values)


def _modern(name: str, prefix: str) -> str:
    """The current name of a weight in an old file, without the prefix of the encoder."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name.removeprefix(f"{prefix}.")


def _without_pooling(config: Any) -> dict[str, bool]:
    """The argument that removes the pooling layer, for encoders that have one."""
    kind: Any = MODEL_MAPPING[type(config)]
    kind = kind[0] if isinstance(kind, tuple | list) else kind
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}


def inspect_model(config: TextModelConfig, values: Mapping[str, Any]) -> DryRun:
    """The encoder's width and its unused weights. Raises InputError where it does not accept word embeddings."""

    def run(model: nn.Module) -> Tensor:
        encoder: Any = model
        if not hasattr(encoder.get_input_embeddings(), "num_embeddings"):
            raise ValueError("it has no word embeddings")
        length = min(_PROBE_LENGTH, longest(encoder) or _PROBE_LENGTH)
        words = encoder.get_input_embeddings()(torch.zeros(1, length, dtype=torch.long))
        hidden: Tensor = encoder(inputs_embeds=words).last_hidden_state
        return hidden[:, 0] if config.pool == "cls" else hidden.mean(dim=1)

    try:
        return dry_run(lambda: build(values), run)
    except Exception as error:  # incompatible options, or an encoder that does not accept word embeddings
        if config.options:
            raise InputError([f"model.text.options {config.options!r}: {reason_of(error)}"]) from error
        rule = "must run on word embeddings, at which texts are mixed"
        raise InputError([f"{KEY} {config.name!r}: {rule}, but does not: {reason_of(error)}"]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the progress bar and the report of transformers: errors are reported in one line by this module."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
