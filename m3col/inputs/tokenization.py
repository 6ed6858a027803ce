"""Texts to tokens: with the encoder's own tokeniser, or with one whose vocabulary is learnt on the training part.

A learnt vocabulary is WordPiece, as BERT's: lower case, words and signs apart, pieces within a word begin with ##.
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

from m3col.config.modality_sections import TextDataConfig, TextModelConfig
from m3col.errors import InputError, reason_of

FITTED = "fitted"

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_PREFIX = "##"


@dataclass(frozen=True, eq=False)
class TextPreparation:
    """A tokeniser (as tokenizers' JSON text), its padding id, and how many tokens of a text are read."""

    tokenizer: str
    pad: int
    max_length: int

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _limited(Tokenizer.from_str(self.tokenizer), self.max_length)

    @cached_property
    def vocabulary(self) -> int:
        """All ids lie below it."""
        return vocabulary_size(self._tokenizer)

    @property
    def digest(self) -> str:
        """SHA-256 of all that `encode` depends on."""
        return hashlib.sha256(f"{self.max_length}\n{self.tokenizer}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The tokens of each text, special ones included, at most `max_length`: the end of a longer text is cut off,
        special tokens stay."""
        return [np.asarray(found.ids, dtype=np.int32) for found in self._tokenizer.encode_batch(list(texts))]

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, for JSON."""
        return {"tokenizer": self.tokenizer, "pad": self.pad, "max_length": self.max_length}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TextPreparation":
        """The preparation that `state` described. Raises InputError where something is missing or cannot be read."""
        text, pad, longest = state.get("tokenizer"), state.get("pad"), state.get("max_length")
        if not isinstance(text, str) or type(pad) is not int or type(longest) is not int or longest < 1 or pad < 0:
            raise InputError(["stored tokenizer: must have the texts tokenizer, pad and max_length with their types"])
        found = cls(text, pad, longest)
        try:
            inside = pad < found.vocabulary
        except Exception as error:  # tokenizers raises plain exceptions
            raise InputError([f"stored tokenizer: cannot be read: {reason_of(error)}"]) from error
        if not inside:
            raise InputError([f"stored tokenizer: pad must be < {found.vocabulary}, but is {pad}"])
        return found


def fit(texts: Sequence[str], config: TextDataConfig, model: TextModelConfig) -> TextPreparation:
    """The tokeniser of the encoder or of `config.tokenizer`, else one learnt on `texts` alone.

    The same texts in any order give the same tokeniser. Raises InputError where its files are missing or unusable.
    """
    name = source(config, model)
    if name == FITTED:
        return TextPreparation(learn(texts, config.vocabulary).to_str(), 0, config.max_length)
    tokenizer, pad = load(name, key=key(config))
    return TextPreparation(tokenizer.to_str(), pad, config.max_length)


def source(config: TextDataConfig, model: TextModelConfig) -> str:
    """The tokeniser's name or folder, or "fitted": what the config says, else the encoder's where it is pretrained."""
    if config.tokenizer is not None:
        return config.tokenizer
    return model.name if model.pretrained else FITTED


def key(config: TextDataConfig) -> str:
    """The config key that names the tokeniser."""
    return "model.text.name" if config.tokenizer is None else "data.text.tokenizer"


def load(name: str, *, key: str) -> tuple[Tokenizer, int]:
    """The tokeniser of a folder or of the hub, and its padding id. `key`: for messages. Raises InputError."""
    from transformers import AutoTokenizer  # seconds that tables and images need not wait

    from m3col import pretrained

    folder = pretrained.text_folder(name, ["tokenizer"], key=key)
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    except Exception as error:  # each tokeniser's files break in their own way
        raise InputError([f"{key} {name!r}: its tokenizer cannot be read: {reason_of(error)}"]) from error
    if found.pad_token_id is None:
        raise InputError([f"{key} {name!r}: its tokenizer has no padding token"])
    return tokenizer, int(found.pad_token_id)


def learn(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A WordPiece tokeniser of at most `vocabulary` entries (a third of them characters, the frequent ones).

    [PAD] is 0, then [UNK], [CLS], [SEP], [MASK]. What tokenizers learns depends on the order of a hash table, which is
    another in each process: it numbers pieces such as ##a as it meets them, and ties go by number. So these pieces are
    given beforehand.
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
    # Built anew: in the trained one the pieces above count as special, and texts would be cut at them.
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
    """The most frequent characters of the normalised texts, in their own order; of equally frequent ones the first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(blank.normalizer.normalize_str(text))
    letters = [(-count, letter) for letter, count in counts.items() if not letter.isspace()]
    return sorted(letter for _, letter in sorted(letters)[:limit])


def _continues(letter: str, blank: Tokenizer) -> bool:
    """Whether a word may go on with it: a sign is a word of its own."""
    return len(blank.pre_tokenizer.pre_tokenize_str(f"a{letter}")) == 1


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id, which may exceed the number of entries."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _limited(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()  # batches are padded to their longest text
    return tokenizer
