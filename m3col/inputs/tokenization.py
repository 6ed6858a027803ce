"""Tokenizes texts with the tokenizer of the encoder, or with a vocabulary learned on the training fold.

A learned vocabulary is WordPiece like that of BERT: lower case, punctuation split off, continuations start with ##.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from m3col.augmentation import registry
from m3col.config.modality_sections import TextDataConfig, TextModelConfig
from m3col.errors import InputError, reason_of

FITTED = "fitted"

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_MASK_TOKENS = ("[MASK]", "<mask>")

_PREFIX = "##"


@dataclass(frozen=True, eq=False)
class TextPreparation:
    """A tokenizer and its settings.

    Attributes:
        tokenizer: the tokenizer as JSON of the library `tokenizers`.
        pad: the padding token id.
        max_length: maximal number of tokens of a text; longer texts are truncated.
    """

    tokenizer: str
    pad: int
    max_length: int

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _limited(Tokenizer.from_str(self.tokenizer), self.max_length)

    @cached_property
    def vocabulary(self) -> int:
        """All token ids are smaller than this number."""
        return vocabulary_size(self._tokenizer)

    @property
    def mask_token(self) -> int | None:
        """The id of the token that stands for a masked one; None if the tokenizer has none."""
        return mask_token(self._tokenizer)

    @property
    def ends(self) -> set[int]:
        """The ids of padding and of the tokens that are put around every text, such as [CLS] and [SEP]."""
        return {self.pad, *self._tokenizer.encode("").ids}

    @property
    def digest(self) -> str:
        """SHA-256 of everything that `encode` depends on."""
        return hashlib.sha256(f"{self.max_length}\n{self.tokenizer}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The token ids of each text, at most `max_length` including special tokens, which truncation keeps."""
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in self._tokenizer.encode_batch(list(texts))]

    def state(self) -> dict[str, Any]:
        """The argument of `from_state`, as a dict for JSON."""
        return {"tokenizer": self.tokenizer, "pad": self.pad, "max_length": self.max_length}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TextPreparation":
        """Restores it from the result of `state`. Raises InputError if the argument is not valid."""
        text, pad, longest = state.get("tokenizer"), state.get("pad"), state.get("max_length")
        if not isinstance(text, str) or type(pad) is not int or type(longest) is not int or longest < 1 or pad < 0:
            raise InputError(["stored tokenizer: must have the texts tokenizer, pad and max_length with their types"])
        restored = cls(text, pad, longest)
        try:
            pad_is_valid = pad < restored.vocabulary
        except Exception as error:  # tokenizers raises plain exceptions
            raise InputError([f"stored tokenizer: cannot be read: {reason_of(error)}"]) from error
        if not pad_is_valid:
            raise InputError([f"stored tokenizer: pad must be < {restored.vocabulary}, but is {pad}"])
        return restored


def fit(texts: Sequence[str], config: TextDataConfig, model: TextModelConfig) -> TextPreparation:
    """Loads the tokenizer of the encoder or of `config.tokenizer`, else learns one on `texts`.

    The result does not depend on the order of the texts. Raises InputError if files are missing or unusable.
    """
    name = source(config, model)
    if name == FITTED:
        return TextPreparation(learn(texts, config.vocabulary).to_str(), 0, config.max_length)
    tokenizer, pad = load(name, key=key(config))
    check_mask_token(tokenizer, config)
    return TextPreparation(tokenizer.to_str(), pad, config.max_length)


def mask_token(tokenizer: Tokenizer) -> int | None:
    """The id of the token that stands for a masked one; None if the tokenizer has none."""
    ids = (tokenizer.token_to_id(token) for token in _MASK_TOKENS)
    return next((token for token in ids if token is not None), None)


def check_mask_token(tokenizer: Tokenizer, config: TextDataConfig) -> None:
    """Raises InputError if texts are to be masked and the tokenizer has no token for it."""
    if registry.is_used(config.augment) and mask_token(tokenizer) is None:
        names = " or ".join(_MASK_TOKENS)
        raise InputError(
            [f"data.text.augment: 'mask' needs a tokenizer with the token {names}; {key(config)} has none"]
        )


def source(config: TextDataConfig, model: TextModelConfig) -> str:
    """Name or folder of the tokenizer: of the config, else of a pretrained encoder, else "fitted"."""
    if config.tokenizer is not None:
        return config.tokenizer
    return model.name if model.pretrained else FITTED


def key(config: TextDataConfig) -> str:
    """The config key that names the tokenizer."""
    return "model.text.name" if config.tokenizer is None else "data.text.tokenizer"


def load(name: str, *, key: str) -> tuple[Tokenizer, int]:
    """Loads a tokenizer from a folder or the hub; returns it and its padding id. `key`: config key, for messages."""
    from transformers import AutoTokenizer  # imported late: takes seconds, and is not needed for tables and images

    from m3col import pretrained

    folder = pretrained.text_folder(name, ["tokenizer"], key=key)
    try:
        pretrained_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = Tokenizer.from_str(pretrained_tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # exceptions for broken files differ between tokenizers
        raise InputError([f"{key} {name!r}: its tokenizer cannot be read: {reason_of(error)}"]) from error
    if pretrained_tokenizer.pad_token_id is None:
        raise InputError([f"{key} {name!r}: its tokenizer has no padding token"])
    return tokenizer, int(pretrained_tokenizer.pad_token_id)


def learn(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Learns a WordPiece tokenizer with at most `vocabulary` entries, at most a third of them single characters.

    Special tokens come first: [PAD] is 0, then [UNK], [CLS], [SEP], [MASK].

    The library's result depends on hash table order, which differs between processes: it numbers pieces such as ##a
    in that order and breaks ties by number. Passing these pieces in a fixed order makes the result reproducible.
    """
    blank = Tokenizer(models.WordPiece({token: at for at, token in enumerate(_SPECIAL)}, unk_token="[UNK]"))
    blank.normalizer = normalizers.BertNormalizer(lowercase=True)
    blank.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = _alphabet(texts, blank, limit=vocabulary // 3)
    inner = [f"{_PREFIX}{letter}" for letter in letters if _continues(letter, blank)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*_SPECIAL, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    blank.train_from_iterator(sorted(texts), trainer)
    # A new tokenizer: the trained one treats the passed pieces as special tokens and would split texts at them.
    learnt = Tokenizer(models.WordPiece(blank.get_vocab(), unk_token="[UNK]"))
    learnt.normalizer, learnt.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    learnt.add_special_tokens(list(_SPECIAL))
    learnt.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, learnt.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    learnt.decoder = decoders.WordPiece(prefix=_PREFIX)
    return learnt


def _alphabet(texts: Sequence[str], blank: Tokenizer, *, limit: int) -> list[str]:
    """The most frequent characters of the normalized texts, sorted. Ties are broken by character."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(blank.normalizer.normalize_str(text))
    letters = [(-count, letter) for letter, count in counts.items() if not letter.isspace()]
    return sorted(letter for _, letter in sorted(letters)[:limit])


def _continues(letter: str, blank: Tokenizer) -> bool:
    """Whether a character can continue a word. Punctuation cannot: it is a word of its own."""
    return len(blank.pre_tokenizer.pre_tokenize_str(f"a{letter}")) == 1


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id, which may exceed the number of entries."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _limited(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()  # batches are padded to their longest text
    return tokenizer
