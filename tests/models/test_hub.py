"""Every fault of encoders and tokenisers in one go, before anything is built; files from folder, cache or hub."""

import json
import shutil
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3col import pretrained
from m3col.checks import encoders
from m3col.config.modality_sections import ImageDataConfig, ImageModelConfig, TextDataConfig, TextModelConfig
from m3col.config.schema import DataConfig, ModelConfig
from m3col.inputs.specs import ImageInput, TextInput, Tokens
from m3col.models.build import build_encoder
from tests.models.builders import TEXTS, image_config, image_encoder, text_config, text_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network and an empty cache of the hub, which the functions look at when they are called."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def found(text=None, image=None, *, size=32, kinds=("text",), **data) -> list[tuple[str, str]]:
    model = ModelConfig(image=image or image_config(), text=text or text_config(), embedding_dim=24)
    config = DataConfig(
        image=ImageDataConfig(size=size), text=TextDataConfig(**{"max_length": 16, "vocabulary": 120, **data})
    )  # fmt: skip
    return [tuple(fault) for fault in encoders.faults(model, config, kinds)]


def one(*args, **settings) -> tuple[str, str]:
    [fault] = found(*args, **settings)
    return fault


def test_nothing_to_say_of_what_works(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    assert found(kinds={"numeric", "image", "text"}) == []
    assert found(text_config("roberta")) == found(TextModelConfig(name=str(folder))) == []
    assert found(TextModelConfig(name="nonsense"), kinds=("numeric", "image")) == []
    assert found(image=ImageModelConfig(name="nonsense")) == []


IMAGE = [
    ({"name": "vit_tny_patch16_224"}, "model.image.name", "is unknown to timm; did you mean 'vit_tiny_patch16_224'?"),
    (
        {"name": "vit_tiny_patch16_224.augrg_in21k"},
        "model.image.name",
        "mean 'vit_tiny_patch16_224.augreg_in21k'",
    ),
    ({"name": "timm/vit"}, "model.image.name", "must be a name of timm"),
    (
        {"options": {"depht": 2}},
        "model.image.options.depht",
        "is no option of 'vit_tiny_patch16_224'; did you mean 'depth",
    ),
    ({"options": {"checkpoint_path": "x"}}, "model.image.options.checkpoint_path", "cannot be set"),
    ({"options": {"num_heads": 5}}, "model.image.options", "do not work with 'vit_tiny_patch16_224' at size 32"),
    ({"weights": "x"}, "model.image.weights", "pretrained=false asks for random ones"),
    ({"pretrained": True, "weights": "/no/file"}, "model.image.weights", "there is no such file"),
    ({"pretrained": True}, "model.image.name", "Give model.safetensors of the hub's timm/vit_tiny_patch16_224.augreg"),
    ({"pretrained": True, "name": "test_vit9"}, "model.image.name", "is unknown to timm; did you mean 'test_vit"),
]


@pytest.mark.parametrize(("change", "key", "message"), IMAGE)
def test_faults_of_image_models(change, key, message):
    path, line = one(image=image_config(**change), kinds=("image",))
    assert path == key and message in line and line.startswith("model.image.")


def test_size_and_patches():
    path, line = one(image=image_config(), size=30, kinds=("image",))
    assert path == "data.image.size" and "patch size 8 of 'vit_tiny_patch16_224', but got 30" in line
    assert line.endswith("the nearest valid value is 32")


def test_all_at_once(tmp_path):
    image = ImageModelConfig(options={"depht": 2}, weights="/no/file")
    folder = text_folder(tmp_path / "encoder")
    paths = [path for path, _ in found(TextModelConfig(name=str(folder), options={"hiden_size": 3}), image,
                                       kinds=("image", "text"), tokenizer="/no/folder")]  # fmt: skip
    assert paths == [
        "model.image.options.depht", "model.image.weights", "model.text.options.hiden_size", "data.text.tokenizer"
    ]  # fmt: skip


TEXT = [
    ({"name": "brt"}, "model.text.name", "is no kind of encoder; did you mean 'bert'?"),
    ({"name": "gpt2"}, "model.text.name", "'gpt2' is no encoder"),
    (
        {"name": "bert", "pretrained": True},
        "model.text.name",
        "is a kind of encoder; give a model of the hub",
    ),
    ({"name": "./no/folder"}, "model.text.name", "there is no such folder"),
    (
        {"options": {"hiden_size": 8}},
        "model.text.options.hiden_size",
        "no option of 'bert'; did you mean 'hidden_size",
    ),
    ({"options": {"vocab_size": 8}}, "model.text.options.vocab_size", "cannot be set: it follows from the rest"),
    ({"options": {"hidden_size": 30}}, "model.text.options", "not a multiple of the number of attention heads"),
    ({"options": {"hidden_size": "8"}}, "model.text.options", "expected int, got str"),
]


@pytest.mark.parametrize(("change", "key", "message"), TEXT)
def test_faults_of_text_models(change, key, message):
    path, line = one(text_config(**change))
    assert path == key and message in line and line.startswith("model.text.")


@pytest.mark.parametrize(("kind", "reason"), [("clip_text_model", "input_ids"), ("vit", "it has no word embeddings")])
def test_what_does_not_run_on_word_embeddings_cannot_be_mixed(kind, reason):
    path, line = one(TextModelConfig(name=kind, pretrained=False))
    rule = f"'{kind}': must run on word embeddings, at which texts are mixed, but does not: "
    assert path == "model.text.name" and rule in line and reason in line


@pytest.mark.parametrize(("kind", "limit"), [("bert", 48), ("roberta", 47), ("distilbert", 48)])
def test_texts_longer_than_the_positions(kind, limit):
    assert found(text_config(kind), max_length=limit) == []
    path, line = one(text_config(kind), max_length=limit + 1)
    assert path == "data.text.max_length" and line.endswith(f"the nearest valid value is {limit}")
    encoder = build_encoder(TextInput(120, 0, limit), ModelConfig(text=text_config(kind)))
    for length in (limit, limit + 1):
        tokens = Tokens(torch.full((1, length), 5), torch.ones(1, length, dtype=torch.bool))
        if length == limit:
            assert encoder(tokens).isfinite().all()
        else:
            with pytest.raises((IndexError, RuntimeError)):
                encoder(tokens)


def test_weights_that_do_not_fit(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    path, line = one(TextModelConfig(name=str(folder), options={"num_hidden_layers": 3}))
    assert path == "model.text.name" and "do not fit: missing: encoder.layer.2." in line and "(16 in all)" in line
    assert found(TextModelConfig(name=str(folder), options={"num_hidden_layers": 1})) == []
    path, line = one(TextModelConfig(name=str(folder), options={"hidden_size": 64}))
    assert "embeddings.LayerNorm.bias is [32] instead of [64]" in line
    photo = tmp_path / "model.safetensors"
    save_file(image_encoder(image_config(options={})).model.state_dict(), photo)
    path, line = one(image=image_config(pretrained=True, weights=str(photo)), kinds=("image",))
    assert path == "model.image.weights" and "cls_token is [1, 1, 192] instead of [1, 1, 32]" in line


def test_names_from_other_times_fit(tmp_path, monkeypatch):
    # As in files of whole language models: a prefix, and gamma and beta for the norms.
    folder = text_folder(tmp_path / "encoder")
    file = folder / "model.safetensors"
    state = {f"bert.{name}": value for name, value in load_file(file).items()}
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in state.items()}
    save_file({**state, "cls.predictions.bias": torch.zeros(3)}, file, metadata={"format": "pt"})
    with monkeypatch.context() as patch:
        patch.setattr(encoders.text, "load", lambda *_: pytest.fail("names and shapes say enough"))
        assert found(TextModelConfig(name=str(folder))) == []
    build_encoder(TextInput(60, 0, 16), ModelConfig(text=TextModelConfig(name=str(folder))))


def test_broken_files(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    config = TextModelConfig(name=str(folder))
    (folder / "model.safetensors").write_bytes(b"nonsense")
    assert "its weights cannot be read" in one(config)[1]
    (folder / "model.safetensors").unlink()
    assert one(config)[1].endswith("the folder has no model.safetensors")
    (folder / "tokenizer.json").unlink()
    assert one(config)[1].endswith("the folder has no model.safetensors and no tokenizer.json")
    (folder / "config.json").write_text("{")
    assert "config.json cannot be used" in one(config.model_copy(update={"pretrained": False}))[1]


def test_code_of_a_folder_is_never_run(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    stored = json.loads((folder / "config.json").read_text())
    stored |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    assert "config.json cannot be used" in found(TextModelConfig(name=str(folder)))[0][1]
    assert not (tmp_path / "ran").exists()


def test_tokeniser_and_encoder_belong_together(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    config = TextModelConfig(name=str(folder))
    path, line = one(config, tokenizer="fitted")
    assert path == "data.text.tokenizer" and "embeddings for their own words" in line
    same = tmp_path / "same"
    shutil.copytree(folder, same)
    assert found(config, tokenizer=str(same)) == []
    small = text_folder(tmp_path / "small", TEXTS[:1])
    path, line = one(config, tokenizer=str(small))
    assert path == "data.text.tokenizer" and "entries of" in line and "have another number" in line
    large = text_folder(tmp_path / "large", [f"word{number} x" for number in range(900)], vocabulary=600)
    assert "do not belong together: the tokenizer has" in one(config, tokenizer=str(large))[1]


def test_where_files_would_go(tmp_path, monkeypatch):
    path, line = one(TextModelConfig())
    assert path == "model.text.name" and "HF_HUB_OFFLINE is set" in line
    assert "Put config.json and model.safetensors and tokenizer.json into a folder" in line
    assert str(tmp_path / "cache") in line
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def refuse(self, repository, **_):
        asked.append(repository)
        raise ConnectionError("no network here")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    begin = time.perf_counter()
    assert "the hub gave no answer (no network here)" in one(TextModelConfig())[1]
    assert "the hub gave no answer (no network here)" in one(image=image_config(pretrained=True), kinds=("image",))[1]
    assert asked == ["bert-base-uncased", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"]  # once each
    assert time.perf_counter() - begin < 5


def test_the_hub_is_asked_for_what_is_needed_only(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    files = ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "tf_model.h5"]
    listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: listed)
    asked = []

    def download(name, *, local_files_only=False, allow_patterns=None, **_):
        if local_files_only:
            raise FileNotFoundError
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert pretrained.text_folder("me/mine", ["config", "weights"], key="k") == tmp_path
    assert asked == [("me/mine", ["config.json", "model.safetensors"])]
    listed.siblings = listed.siblings[:1]
    with pytest.raises(ValueError, match=r"the hub's me/mine has no model\.safetensors"):
        pretrained.text_folder("me/mine", ["config", "weights"], key="k")


def cached(root, repository: str, source) -> None:
    """Files as the hub's own client keeps them."""
    home = root / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, home / "snapshots" / ("a" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)


def test_the_cache_of_this_machine(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cached(cache, "google-bert/bert-base-tiny", text_folder(tmp_path / "encoder"))
    photo = tmp_path / "photo"
    photo.mkdir()
    save_file(image_encoder(image_config(), seed=5).model.state_dict(), photo / "model.safetensors")
    cached(cache, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", photo)
    for name in ("snapshot_download", "hf_hub_download"):
        call = getattr(huggingface_hub, name)
        monkeypatch.setattr(
            huggingface_hub, name, lambda *a, call=call, **k: call(*a, **{**k, "cache_dir": str(cache)})
        )  # fmt: skip
    # an old name without owner finds the files of the new one
    assert (
        found(TextModelConfig(name="bert-base-tiny")) == found(TextModelConfig(name="google-bert/bert-base-tiny")) == []
    )
    assert found(image=image_config(pretrained=True), kinds=("image",)) == []
    loaded = image_encoder(image_config(pretrained=True), seed=6)
    assert torch.equal(loaded.model.cls_token, image_encoder(image_config(), seed=5).model.cls_token)


def test_counts_are_those_of_built_encoders(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    for text, vocabulary in ((text_config(), 120), (TextModelConfig(name=str(folder)), 60)):
        model = ModelConfig(image=image_config(), text=text, embedding_dim=24)
        data = DataConfig(image=ImageDataConfig(size=32), text=TextDataConfig(vocabulary=120, max_length=16))
        counts = encoders.parameter_counts(model, data, {"numeric", "image", "text"})
        built = {
            "image": build_encoder(ImageInput(32), model),
            "text": build_encoder(TextInput(vocabulary, 0, 16), model),
        }
        assert counts == {kind: sum(p.numel() for p in encoder.parameters()) for kind, encoder in built.items()}
    assert encoders.parameter_counts(model, data, {"numeric"}) == {}


def test_real_sizes_cost_no_memory():
    model = ModelConfig(
        image=ImageModelConfig(pretrained=False), text=TextModelConfig(name="bert", pretrained=False), embedding_dim=768
    )  # fmt: skip
    data = DataConfig(text=TextDataConfig(vocabulary=30522))
    begin = time.perf_counter()
    assert encoders.parameter_counts(model, data, {"image", "text"}) == {"image": 85_798_656, "text": 108_891_648}
    assert time.perf_counter() - begin < 20
