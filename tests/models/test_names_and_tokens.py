"""A misspelt name of a text model, and a tokeniser in an encoder's own folder that is not the encoder's."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer

from m3col.checks import encoders
from m3col.config.modality_sections import TextDataConfig, TextModelConfig
from m3col.config.schema import DataConfig, ModelConfig
from m3col.inputs import tokenization
from m3col.inputs.specs import TextInput
from m3col.models.text import TextEncoder
from tests.models.builders import text_config, text_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def found(name: str | Path, **data) -> list[str]:
    model = ModelConfig(text=TextModelConfig(name=str(name)), embedding_dim=24)
    return [
        fault.text for fault in encoders.faults(model, DataConfig(text=TextDataConfig(max_length=16, **data)), ["text"])
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("bert-base-uncasd", "bert-base-uncased"),
        ("robrta-base", "roberta-base"),
        ("google-bert/bert-base-uncasedd", "bert-base-uncased"),
        ("me/my-own-bertt", "me/my-own-bert"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest_one(tmp_path, name, near):
    (tmp_path / "cache" / "models--me--my-own-bert").mkdir(parents=True)
    (line,) = found(name)
    assert f"HF_HUB_OFFLINE is set; did you mean {near!r}? Put config.json and" in line


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "roberta-base", "zzz/qqq"])
def test_a_name_that_is_right_or_near_to_none_is_not_corrected(name):
    (line,) = found(name)
    assert "HF_HUB_OFFLINE is set. Put config.json and" in line and "did you mean" not in line


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_words(folder: Path, count: int, kind: str = "bert") -> Path:
    """A folder whose encoder has embeddings for `count` words."""
    text_folder(folder, kind=kind)
    torch.manual_seed(7)
    TextEncoder(text_config(kind), TextInput(count, 0, 16), 32).model.save_pretrained(folder)
    return folder


def size_of(folder: Path) -> int:
    return tokenization.vocabulary_size(Tokenizer.from_file(str(folder / "tokenizer.json")))


def test_a_tokeniser_of_far_fewer_words_is_not_the_encoders(tmp_path):
    folder = with_words(tmp_path / "encoder", 250)
    (line,) = found(folder)
    assert line == (
        f"model.text.name '{folder}': tokenizer and encoder do not belong together: the tokenizer has "
        f"{size_of(folder)} entries, the encoder 250; if they do all the same, set data.text.tokenizer={folder}"
    )
    assert found(folder, tokenizer=str(folder)) == []  # who says so knows


@pytest.mark.parametrize("multiple", [8, 64, 128])
def test_embeddings_that_were_rounded_up_are_the_encoders(tmp_path, multiple):
    size = size_of(text_folder(tmp_path / "plain"))
    assert size % multiple
    assert found(with_words(tmp_path / "encoder", size + multiple - size % multiple)) == []


def test_another_padding_is_another_tokeniser(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    edit(folder, pad_token_id=7)
    (line,) = found(folder)
    assert "do not belong together: padding is 0 for the tokenizer, 7 for the encoder; if they do" in line
    other = text_folder(tmp_path / "same")
    (line,) = found(folder, tokenizer=str(other))
    assert line.startswith("data.text.tokenizer") and line.endswith("padding is 0 for the tokenizer, 7 for the encoder")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (line,) = found(folder, tokenizer=str(other))  # the encoder has none of its own to be compared with
    assert line.startswith("data.text.tokenizer") and "padding is 0" in line


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_special_tokens_of_the_encoder_are_special_for_the_tokeniser(tmp_path, kind):
    folder = text_folder(tmp_path / "encoder", kind=kind)
    names = [name for name in ("bos", "eos", "cls", "sep") if name not in ("cls", "sep") or kind == "modernbert"]
    edit(folder, pad_token_id=0, **{f"{name}_token_id": 2 for name in names})
    assert found(folder) == []
    edit(folder, **{f"{names[-1]}_token_id": 40})
    (line,) = found(folder)
    assert f"config.json has {names[-1]}_token_id 40, which is no special token of the tokenizer" in line


def test_berts_may_say_what_they_do_not_use(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    edit(folder, bos_token_id=40, eos_token_id=41)
    assert found(folder) == []
