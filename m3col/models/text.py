"""The encoder of texts: any encoder that transformers' AutoModel loads.

Letters: n texts, L tokens of the batch's longest one, E width of the word embeddings, D embedding width.
Paper: Kumar et al., arXiv 2409.17777, Eq. 2-3 and section 4 (BERT and RoBERTa base): texts are mixed at their word
  embeddings, and the mixture passes through the encoder.
Differs: the paper does not say how texts of different length are mixed; here a place takes part where either of the two
  has a token, and the shorter one contributes the embedding of the padding token there. The authors' code mixes class
  tokens: that is `mix.level: embedding`.
Differs: a linear projection to D follows where the encoder's own width is another; the paper's widths agree (768).
"""

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping
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
from m3col.models.dry_run import DryRun, dry_run
from m3col.models.image import misfit
from m3col.models.mlp import check_widths, linear

KEY = "model.text.name"
# Of a stored config: where it was stored, what only concerns classifiers, and what would change how or from where
# code and weights are loaded.
_LEFT_OUT = frozenset(
    ("architectures", "attn_implementation", "auto_map", "dtype", "id2label", "label2id", "problem_type",
     "quantization_config", "torch_dtype", "transformers_version")
)  # fmt: skip
# Options that follow from the tokeniser, or would make something else of the encoder.
_RESERVED = frozenset(
    ("add_cross_attention", "is_decoder", "is_encoder_decoder", "model_type", "output_attentions",
     "output_hidden_states", "pad_token_id", "return_dict", "vocab_size")
)  # fmt: skip
# They fill in words, but with a decoder or from bytes, read proteins or images, scale their embeddings by what the
# ids are (esm), or need kernels of their own (mra).
_NO_ENCODERS = frozenset(
    ("bart", "esm", "esmc", "mbart", "modernvbert", "mra", "mvp", "neomme", "perceiver", "ultravbert")
)  # fmt: skip
_PROBE_LENGTH = 64


class TextEncoder(nn.Module):
    """Texts to embeddings [n, D], not normalised: the class token's output, or the mean over the tokens.

    Weights are float32, attention is torch's scaled_dot_product_attention where the encoder has it, and there is no
    pooling layer. Weights that no gradient reaches do not ask for one, because DDP would wait for it.

    input: with random weights the encoder gets that vocabulary and padding id; with pretrained ones they have to agree
    with it. load_weights: False leaves pretrained weights out; they are about to come from a checkpoint. described:
    `encoder_config` of the same settings, so that neither hub nor folder is needed. Raises InputError for an unknown
    name, options that the encoder does not take, weights that are missing or do not fit, and a tokeniser that does
    not belong to it.
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
        self._pool = config.pool
        values = with_input(self._described, config, input)
        found = look(config, values)  # first: it says in one line what building would stumble over
        self.model = load(config, values) if config.pretrained and load_weights else build(values)
        self.model.train()  # files are loaded for evaluation
        self._takes = frozenset(inspect.signature(self.model.forward).parameters)
        self._padding_position = padding_position(self.model)
        for name in found.unused:
            self.model.get_parameter(name).requires_grad_(False)
        self.projection = nn.Identity() if found.width == embedding_dim else linear(found.width, embedding_dim)
        if checkpointing:
            if not self.model.supports_gradient_checkpointing:
                kind = self._described["model_type"]
                raise InputError([f"model.gradient_checkpointing: {kind!r} has no gradient checkpointing"])
            self.model.config.use_cache = False  # nothing is generated; checkpointing would say so at each call
            enable = getattr(self.model, "activation_checkpointing_enable", None)  # its newer name
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})

    def forward(self, tokens: Tokens) -> Tensor:
        hidden = self._run(tokens)
        if self._pool == "cls":
            pooled = hidden[:, 0]
        else:
            taken = tokens.mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * taken).sum(dim=1) / taken.sum(dim=1).clamp(min=1)
        embedding: Tensor = self.projection(pooled)
        return embedding

    def embed(self, tokens: Tokens) -> Tokens:
        """The same texts with the word embeddings [n, L, E] in place of their ids."""
        if tokens.embeddings is not None:
            return tokens
        return Tokens(None, tokens.mask, self.model.get_input_embeddings()(tokens.ids), tokens.types)

    def mix(self, tokens: Tokens, permutation: Tensor, lam: Tensor) -> Tokens:
        """Eq. 2 at the word embeddings: lam w + (1 - lam) w[permutation] at each place.

        A place takes part where a text of positive weight has a token, so that lam = 1 gives the ordinary call and
        lam = 0 the partner's. Where only the partner has one, it brings its type.
        """
        own = self.embed(tokens)
        assert own.embeddings is not None
        weight = lam.to(own.embeddings.dtype).unsqueeze(1)  # as `mixup.mix` rounds it
        mine, others = own.mask & (weight > 0), own.mask[permutation] & (weight < 1)
        types = None if own.types is None else torch.where(others & ~mine, own.types[permutation], own.types)
        return Tokens(None, mine | others, sample_mixing.mix(own.embeddings, permutation, lam), types)

    def stored(self) -> dict[str, Any]:
        """The encoder's config: `described` of the same encoder in a checkpoint."""
        return dict(self._described)

    def _run(self, tokens: Tokens) -> Tensor:
        """The encoder's output [n, L, width]."""
        given: dict[str, Tensor] = {"attention_mask": tokens.mask.long()}
        if tokens.embeddings is not None:
            given["inputs_embeds"] = tokens.embeddings
        else:
            assert tokens.ids is not None
            given["input_ids"] = tokens.ids
        if self._padding_position is not None:
            # RoBERTa and its kin count tokens, which they cannot do on embeddings.
            given["position_ids"] = positions(tokens.mask, self._padding_position)
        if tokens.types is not None and "token_type_ids" in self._takes:
            given["token_type_ids"] = tokens.types
        hidden: Tensor = self.model(**given).last_hidden_state
        return hidden


def positions(mask: Tensor, padding: int) -> Tensor:
    """Position ids [n, L] of encoders that count tokens: padding + 1, padding + 2, ..., and `padding` elsewhere."""
    counted = mask.long()
    return counted.cumsum(dim=1) * counted + padding


def kinds() -> list[str]:
    """The best-known encoders of transformers: what fills in masked words, and is no decoder."""
    return sorted((set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) & set(CONFIG_MAPPING_NAMES)) - _NO_ENCODERS)


def _is_encoder(kind: str) -> bool:
    """Whether AutoModel gives an encoder for that kind; whether it runs on word embeddings is for `look` to find."""
    others = set(MODEL_MAPPING_NAMES) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - _NO_ENCODERS
    return kind in kinds() or kind in others


def encoder_config(config: TextModelConfig) -> dict[str, Any]:
    """The encoder's config as plain values, with `config.options` merged in; JSON keeps it.

    From the folder or the hub's name, or with `pretrained: false` from a kind such as "bert". Raises InputError for a
    name that gives no config, what is no encoder, and options that it does not have.
    """
    given = _kind(config) or _of_folder(config)
    found = _typed(given, config, options=False)
    kind = found.model_type
    if not _is_encoder(kind) or found.is_encoder_decoder or getattr(found, "is_decoder", False):
        raise InputError([f"{KEY} {config.name!r}: {kind!r} is no encoder{nearest(kind, kinds())}"])
    alias: dict[str, str] = getattr(found, "attribute_map", {})
    taken = [*(name for name in _plain(found.to_dict()) if name not in _RESERVED), *alias]
    unknown = [option for option in config.options if option not in taken]
    if unknown:
        raise InputError(
            [f"model.text.options.{name} cannot be set: it follows from the rest" if name in _RESERVED
             else f"model.text.options.{name} is no option of {kind!r}{nearest(name, taken)}" for name in unknown]
        )  # fmt: skip
    # Merged into what the file says, not into what follows from it, such as a list with an entry per layer.
    own = {alias.get(name, name): value for name, value in given.items()}
    own |= {alias.get(option, option): value for option, value in config.options.items()}
    return _plain(_typed(own, config).to_dict())


def is_model(config: TextModelConfig) -> bool:
    """Whether the name is of a model or folder, and not of a kind such as "bert"."""
    return config.name not in CONFIG_MAPPING_NAMES or os.path.isdir(config.name)


def _kind(config: TextModelConfig) -> dict[str, Any] | None:
    """The config of a kind of encoder, or None where the name is of a model or folder. Raises InputError for a kind
    where pretrained weights are wanted."""
    if is_model(config):
        return None
    if config.pretrained:
        text = f"{KEY} {config.name!r} is a kind of encoder; give a model of the hub or a folder, or set "
        raise InputError([f"{text}model.text.pretrained=false for random weights"])
    return {"model_type": config.name}


def _of_folder(config: TextModelConfig) -> dict[str, Any]:
    """What config.json says."""
    try:
        folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    except InputError as error:
        close = nearest(config.name, kinds())
        if config.pretrained or "did you mean" not in close:
            raise
        raise InputError([f"{KEY} {config.name!r} is no kind of encoder{close} {error}"]) from error
    try:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        stored, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    except Exception as error:  # broken JSON, or a kind whose code only its folder has
        raise InputError([f"{KEY} {config.name!r}: config.json cannot be used: {reason_of(error)}"]) from error
    return {**_plain(stored), "model_type": found.model_type}


def special_tokens(config: TextModelConfig) -> dict[str, int]:
    """The ids of special tokens that config.json itself names, of those that its kind of encoder has: BERTs may say
    bos_token_id, of which nothing follows. Raises InputError."""
    folder = pretrained.text_folder(config.name, ["config"], key=KEY)
    stored, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    usual = AutoConfig.for_model(encoder_config(config)["model_type"])
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return {
        name: stored[name] for name in names if type(stored.get(name)) is int and getattr(usual, name, None) is not None
    }


def _parts(config: TextModelConfig) -> list[pretrained.Part]:
    return ["config", "weights"] if config.pretrained else ["config"]


def with_input(described: Mapping[str, Any], config: TextModelConfig, input: TextInput) -> dict[str, Any]:
    """The encoder's config for a tokeniser: with random weights its vocabulary and padding id are taken over.

    Raises InputError where pretrained weights have no embedding for some of its ids, or none at all.
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
    return {name: value for name, value in values.items() if name not in _LEFT_OUT and not name.startswith("_")}


def _typed(values: Mapping[str, Any], config: TextModelConfig, *, options: bool = True) -> Any:
    """The config as transformers has it; `options`: whether they are in it. Raises InputError for what it refuses."""
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # each config class has its own checks
        if options and config.options:
            raise InputError([f"model.text.options {config.options!r}: {reason_of(error)}"]) from error
        raise InputError([f"{KEY} {config.name!r}: its config cannot be used: {reason_of(error)}"]) from error


def build(values: Mapping[str, Any]) -> PreTrainedModel:
    """The encoder of a config, with random weights."""
    config = AutoConfig.for_model(**values)
    model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32, **_without_pooling(config))
    return model


def load(config: TextModelConfig, values: Mapping[str, Any]) -> PreTrainedModel:
    """The encoder with the weights of its folder. Raises InputError where some are missing or have other shapes.

    What the file has beyond that, such as a language model's head, is left out.
    """
    folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    typed = AutoConfig.for_model(**values)
    try:
        with _quiet():
            model, found = AutoModel.from_pretrained(
                folder, config=typed, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                output_loading_info=True, ignore_mismatched_sizes=True, **_without_pooling(typed),
            )  # fmt: skip
    except Exception as error:  # a broken file, in the words of whoever reads it
        raise InputError([f"{KEY} {config.name!r}: its weights cannot be read: {reason_of(error)}"]) from error
    shapes = [f"{key} is {list(there)} instead of {list(own)}" for key, there, own in sorted(found["mismatched_keys"])]
    missing = sorted(found["missing_keys"])
    if missing or shapes:
        text = misfit(missing=missing, shapes=shapes, unexpected=sorted(found["unexpected_keys"]))
        raise InputError([f"{KEY} {config.name!r}: its weights do not fit: {text}"])
    return model


def check_weights(config: TextModelConfig, values: Mapping[str, Any]) -> None:
    """Raises InputError where `load` would. Names and shapes alone say so for most files."""
    folder = pretrained.text_folder(config.name, _parts(config), key=KEY)
    with torch.device("meta"):
        model = build(values)
    shapes: dict[str, list[int]] = {}
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
    there = {_modern(name, model.base_model_prefix): shape for name, shape in shapes.items()}
    if any(there.get(name) != list(value.shape) for name, value in model.state_dict().items()):
        load(config, values)


def _modern(name: str, prefix: str) -> str:
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name.removeprefix(f"{prefix}.")


def _without_pooling(config: Any) -> dict[str, bool]:
    """The argument that leaves out the layer after the class token, for encoders that have one."""
    kind: Any = MODEL_MAPPING[type(config)]
    kind = kind[0] if isinstance(kind, tuple | list) else kind
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}


def padding_position(model: nn.Module) -> int | None:
    """The position of padding in encoders that count tokens (RoBERTa: 1, the first token has 2), else None."""
    takes = inspect.signature(model.forward).parameters
    table = position_table(model)
    return table.padding_idx if table is not None and "position_ids" in takes else None


def position_table(model: nn.Module) -> nn.Embedding | None:
    """The embeddings of absolute positions, where the encoder has them."""
    tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
    return next((table for table in tables if isinstance(table, nn.Embedding)), None)


def longest(model: PreTrainedModel) -> int | None:
    """How many tokens of a text the encoder can read; None where nothing limits it."""
    table = position_table(model)
    if table is None:
        limit: int | None = getattr(model.config, "max_position_embeddings", None)
        return limit if limit and limit > 0 else None
    padding = padding_position(model)
    return table.num_embeddings - (0 if padding is None else padding + 1)


def look(config: TextModelConfig, values: Mapping[str, Any]) -> DryRun:
    """The encoder's width and the weights that take no part. Raises InputError where it does not run on embeddings."""

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
    except Exception as error:  # options that do not go together, or an encoder that cannot be mixed
        if config.options:
            raise InputError([f"model.text.options {config.options!r}: {reason_of(error)}"]) from error
        rule = "must run on word embeddings, at which texts are mixed"
        raise InputError([f"{KEY} {config.name!r}: {rule}, but does not: {reason_of(error)}"]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and report: what is wrong is said in one line."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
