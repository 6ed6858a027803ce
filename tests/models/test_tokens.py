"""Tokenisers: a learnt vocabulary is a function of the texts alone; nothing is longer than it may be."""

import json
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from m3col.config.modality_sections import TextDataConfig, TextModelConfig
from m3col.errors import InputError
from m3col.inputs import tokenization
from tests.models.builders import TEXTS, text_folder

RANDOM = TextModelConfig(name="bert", pretrained=False)
WORDS = [f"{a}{b}{c}" for a in "krtmp" for b in ("an", "ol", "ers", "ing") for c in ("", "s", "ly", "ing")]


def corpus() -> list[str]:
    draw = random.Random(3)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(200)]


def learnt(texts=None, **settings) -> tokenization.TextPreparation:
    settings = {"vocabulary": 150, "max_length": 8, **settings}
    return tokenization.fit(TEXTS if texts is None else texts, TextDataConfig(**settings), RANDOM)


def test_special_tokens_and_pieces():
    prepared = learnt()
    found = Tokenizer.from_str(prepared.tokenizer)
    assert [found.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    ids = prepared.encode(["A CAT sleeps!"])[0]
    assert ids.dtype == np.int32 and ids[0] == 2 and ids[-1] == 3 and ids[-2] == 1  # no text has an "!"
    assert found.decode(ids.tolist()) == "a cat sleeps"
    assert prepared.pad == 0 and prepared.vocabulary == found.get_vocab_size() <= 150


def test_pieces_are_no_special_tokens():
    # They are given to the trainer as such; a text that spells one is not cut at it.
    prepared = learnt([*TEXTS, "a ##b"])
    spelt = Tokenizer.from_str(prepared.tokenizer).encode("a ##s", add_special_tokens=False).tokens
    assert spelt == ["a", "#", "#", "s"]


def test_a_vocabulary_is_a_function_of_the_texts():
    texts = corpus()
    wanted = learnt(texts, vocabulary=110).digest
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        assert learnt(texts, vocabulary=110).digest == wanted
    assert learnt(texts[:100], vocabulary=110).digest != wanted


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_another_process_learns_and_reads_the_same(parallel):
    code = (
        "import sys, json\nfrom m3col.config.modality_sections import TextDataConfig, TextModelConfig\n"
        "from m3col.inputs import tokenization\n"
        "texts = json.load(sys.stdin)\nmodel = TextModelConfig(name='bert', pretrained=False)\n"
        "found = tokenization.fit(texts, TextDataConfig(vocabulary=110, max_length=8), model)\n"
        "print(found.digest, json.dumps([ids.tolist() for ids in found.encode(texts)]))"
    )
    prepared = learnt(corpus(), vocabulary=110)
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel}
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(corpus()), capture_output=True, text=True,
                          check=True, env=environment, timeout=120)  # fmt: skip
    digest, _, ids = done.stdout.partition(" ")
    assert digest == prepared.digest and json.loads(ids) == [ids.tolist() for ids in prepared.encode(corpus())]


def test_rare_characters_do_not_push_words_out():
    texts = [*TEXTS * 20, "".join(chr(0x4E00 + number) for number in range(500))]
    prepared = learnt(texts, vocabulary=150)
    assert prepared.vocabulary <= 150 and 1 not in prepared.encode(["the green hill"])[0]
    assert set(prepared.encode(["龘龘"])[0][1:-1].tolist()) == {1}


def test_long_texts_are_cut_and_special_tokens_stay():
    prepared = learnt(max_length=5)
    short, long, empty = prepared.encode(["the sun", " ".join(TEXTS), ""])
    assert len(short) <= 5 and len(long) == 5 and long[0] == 2 and long[-1] == 3 and empty.tolist() == [2, 3]
    assert np.array_equal(long[1:4], learnt(max_length=512).encode([" ".join(TEXTS)])[0][1:4])


def test_what_is_stored_gives_the_same_tokeniser():
    prepared = learnt()
    state = json.loads(json.dumps(prepared.state()))
    for again in (
        tokenization.TextPreparation.from_state({"kind": "text", **state}),
        pickle.loads(pickle.dumps(prepared)),
    ):
        assert again.digest == prepared.digest and again.vocabulary == prepared.vocabulary
        assert [a.tolist() for a in again.encode(TEXTS)] == [a.tolist() for a in prepared.encode(TEXTS)]
    assert learnt(max_length=9).digest != prepared.digest != learnt(TEXTS[:2]).digest


BAD = [
    ({"tokenizer": "{}"}, "stored tokenizer: cannot be read"),
    ({"pad": "0"}, "must have the texts tokenizer, pad and max_length"),
    ({"pad": 150}, r"pad must be < \d+, but is 150"),
    ({"max_length": True}, "with their types"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_stored_is_judged(change, message):
    with pytest.raises(ValueError, match=message):
        tokenization.TextPreparation.from_state({**learnt().state(), **change})


def test_the_tokeniser_of_a_folder(tmp_path):
    folder = text_folder(tmp_path, TEXTS)
    for data, model in (
        (TextDataConfig(max_length=6), TextModelConfig(name=str(folder))),
        (TextDataConfig(max_length=6, tokenizer=str(folder)), RANDOM),
    ):
        prepared = tokenization.fit(["other words"], data, model)
        own = tokenization.fit(TEXTS, TextDataConfig(vocabulary=150, max_length=6), RANDOM)
        assert [a.tolist() for a in prepared.encode(TEXTS)] == [a.tolist() for a in own.encode(TEXTS)]
        assert prepared.vocabulary == own.vocabulary and prepared.pad == 0
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"data\.text\.tokenizer .*: its tokenizer cannot be read"):
        tokenization.fit([], TextDataConfig(tokenizer=str(folder)), RANDOM)


def test_a_folder_that_pads_and_cuts_by_itself_does_so_no_more(tmp_path):
    folder = text_folder(tmp_path)
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.enable_padding(length=40)
    stored.enable_truncation(4)
    stored.save(str(folder / "tokenizer.json"))
    prepared = tokenization.fit([], TextDataConfig(max_length=12), TextModelConfig(name=str(folder)))
    assert [len(ids) for ids in prepared.encode(["the sun", " ".join(TEXTS)])] == [4, 12]


def test_which_tokeniser():
    data = TextDataConfig()
    assert tokenization.source(data, RANDOM) == tokenization.FITTED
    assert tokenization.source(data, TextModelConfig()) == "bert-base-uncased"
    assert tokenization.source(TextDataConfig(tokenizer="x"), TextModelConfig()) == "x"


def test_masks_need_a_token_and_leave_the_ends_alone():
    prepared = learnt()
    assert prepared.mask_token == 4 and prepared.ends == {0, 2, 3}
    without = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="[PAD]"))
    tokenization.check_mask_token(without, TextDataConfig())
    tokenization.check_mask_token(without, TextDataConfig(augment={"text": "none"}))
    tokenization.check_mask_token(Tokenizer.from_str(prepared.tokenizer), TextDataConfig(augment="mask"))
    for augment in ("mask", ["mask"], {"a": "none", "b": [{"mask": {"p": 0.3}}]}):
        with pytest.raises(InputError, match=r"'mask' needs a tokenizer with the token \[MASK\] or <mask>; model.text"):
            tokenization.check_mask_token(without, TextDataConfig(augment=augment))
