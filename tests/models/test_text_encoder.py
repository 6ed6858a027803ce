"""Text encoders: mixing at the word embeddings is the ordinary call at lambda 1 and the partner's at lambda 0."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from transformers import AutoModel, CLIPConfig, CLIPModel
from transformers.masking_utils import bidirectional_mask_function

from m3col.config.modality_sections import TextModelConfig
from m3col.inputs.specs import TextInput, Tokens
from m3col.models.attention_masks import padding_mask
from m3col.models.text import TextEncoder, encoder_config, kinds
from tests.models.builders import VOCABULARY, batch, text_config, text_encoder, text_folder

# kind, padding id, pool, token types, width of the encoder (MiniLM is a BERT of 384 whose tokens are averaged)
CASES = [
    ("bert", 0, "cls", True, 32),
    ("bert", 0, "mean", False, 384),
    ("roberta", 1, "cls", False, 32),
    ("distilbert", 0, "cls", False, 32),
    ("mpnet", 1, "mean", False, 32),
    ("electra", 0, "cls", True, 32),
    ("modernbert", 0, "mean", False, 32),
    ("deberta-v2", 0, "cls", False, 32),
]
PARTNER = torch.tensor([1, 2, 3, 0])


def built(kind, pad, pool, width, **settings) -> TextEncoder:
    options = {"hidden_size": width}
    return text_encoder(text_config(kind, pool=pool, options=options), width=width, pad=pad, **settings).eval()


def ordinary(encoder: TextEncoder, tokens: Tokens, pool: str) -> torch.Tensor:
    """The model's own call on ids, and pooling by hand."""
    types = {} if tokens.types is None else {"token_type_ids": tokens.types}
    hidden = encoder.model(input_ids=tokens.ids, attention_mask=tokens.mask.long(), **types).last_hidden_state
    if pool == "cls":
        return hidden[:, 0]
    return torch.stack([row[: int(mask.sum())].mean(dim=0) for row, mask in zip(hidden, tokens.mask, strict=True)])


@pytest.mark.parametrize(("kind", "pad", "pool", "types", "width"), CASES)
def test_mixing_is_exact_at_both_ends(kind, pad, pool, types, width):
    encoder, tokens = built(kind, pad, pool, width), batch(pad=pad, types=types)
    with torch.no_grad():
        wanted = ordinary(encoder, tokens, pool)
        plain = encoder(tokens)
        own = encoder(encoder.mix(tokens, PARTNER, torch.ones(4)))
        other = encoder(encoder.mix(tokens, PARTNER, torch.zeros(4)))
    torch.testing.assert_close(plain, wanted, rtol=0, atol=0 if pool == "cls" else 1e-6)  # a mean in another order
    assert torch.equal(own, plain)
    # Rows stand elsewhere in the matrix products, which may round otherwise.
    torch.testing.assert_close(other, plain[PARTNER], rtol=0, atol=1e-6)
    assert (wanted - wanted[PARTNER]).abs().max() > 0.01


@pytest.mark.parametrize(("kind", "pad", "pool", "types", "width"), CASES)
def test_each_text_has_its_own_lambda(kind, pad, pool, types, width):
    encoder, tokens = built(kind, pad, pool, width), batch(pad=pad, types=types)
    with torch.no_grad():
        plain = encoder(tokens)
        found = encoder(encoder.mix(tokens, PARTNER, torch.tensor([1.0, 0.0, 0.3, 1.0])))
    torch.testing.assert_close(found[[0, 3]], plain[[0, 3]], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], plain[2], rtol=0, atol=1e-6)
    assert min((found[2] - plain[2]).abs().max(), (found[2] - plain[3]).abs().max()) > 1e-3


@pytest.mark.parametrize(("kind", "pad", "pool", "types", "width"), CASES)
def test_where_the_host_knows_of_no_padding_no_mask_is_passed_and_the_bits_are_the_same(
    kind, pad, pool, types, width, monkeypatch
):
    encoder, tokens = built(kind, pad, pool, width), batch((9, 9, 9, 9), pad=pad, types=types)
    known, lam = replace(tokens, padded=False), torch.tensor([0.3, 1.0, 0.0, 0.9])
    masks: list[bool] = []
    monkeypatch.setattr(
        encoder.model, "forward", lambda _forward=encoder.model.forward, **named: (
            masks.append("attention_mask" in named), _forward(**named))[1],
    )  # fmt: skip
    with torch.no_grad():
        assert torch.equal(encoder(known), encoder(tokens))
        assert torch.equal(encoder(encoder.mix(known, PARTNER, lam)), encoder(encoder.mix(tokens, PARTNER, lam)))
    assert masks == [False, True, False, True]


def test_what_the_host_knows_of_padding():
    padded, full = replace(batch(), padded=True), replace(batch((9, 9)), padded=False)
    encoder, partner, lam = built("bert", 0, "cls", 32), torch.tensor([1, 0]), torch.ones(2)
    assert padded[1:].padded is None and full[:1].padded is False and full.to("meta").padded is False
    assert encoder.mix(full, partner, lam).padded is False and encoder.embed(padded).padded is True
    assert encoder.mix(padded, PARTNER, torch.ones(4)).padded is None


def test_a_mask_on_another_device_is_passed_on_unread():
    mask = torch.ones(2, 4, dtype=torch.bool)
    named = {"batch_size": 2, "q_length": 4, "kv_length": 4, "allow_is_bidirectional_skip": True}
    named |= {"mask_function": bidirectional_mask_function, "allow_is_causal_skip": False}
    assert padding_mask(attention_mask=mask, **named) is None
    there = padding_mask(attention_mask=mask.to("meta"), device=torch.device("meta"), **named)
    assert there.shape == (2, 1, 4, 4) and there.device.type == "meta"
    assert padding_mask(attention_mask=None, **named) is None


def test_embeddings_are_mixed_and_masks_joined():
    encoder, tokens = built("bert", 0, "cls", 32), batch(types=True)
    lam = torch.tensor([0.3, 1.0, 0.0, 0.9])
    mixed, words = encoder.mix(tokens, PARTNER, lam), encoder.model.get_input_embeddings()(tokens.ids)
    weight = lam.reshape(4, 1, 1)
    assert torch.equal(mixed.embeddings, weight * words + (1 - weight) * words[PARTNER])
    # lengths 3, 9, 5, 7: the longer of both, the own, the partner's, the longer of both
    assert mixed.mask.sum(dim=1).tolist() == [9, 9, 7, 7] and mixed.ids is None
    assert torch.equal(mixed.types[0, :3], tokens.types[0, :3])  # own places keep their type
    assert torch.equal(mixed.types[0, 3:], tokens.types[1, 3:])  # the partner's bring theirs
    assert torch.equal(mixed.types[2, :7], tokens.types[3, :7])


def test_roberta_counts_the_places_of_the_mask():
    encoder, tokens = built("roberta", 1, "cls", 32), batch((3, 6), pad=1)
    seen = []
    encoder.model.embeddings.position_embeddings.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        encoder(tokens)
        encoder(encoder.embed(tokens))  # without ids it would count the padding too
        encoder(encoder.mix(tokens, torch.tensor([1, 0]), torch.tensor([0.4, 0.4])))
    assert seen[0].tolist() == seen[1].tolist() == [[2, 3, 4, 1, 1, 1], [2, 3, 4, 5, 6, 7]]
    assert seen[2].tolist() == [[2, 3, 4, 5, 6, 7]] * 2


def test_padding_changes_nothing():
    for kind, pad in (("bert", 0), ("roberta", 1)):
        encoder, tokens = built(kind, pad, "mean", 32), batch(pad=pad)
        with torch.no_grad():
            alone = torch.cat([encoder(Tokens(tokens.ids[i : i + 1, :n], tokens.mask[i : i + 1, :n]))
                               for i, n in enumerate(tokens.mask.sum(dim=1).tolist())])  # fmt: skip
            torch.testing.assert_close(encoder(tokens), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "layoutlm"])
def test_a_gradient_reaches_every_weight_that_asks_for_one(kind):
    encoder = text_encoder(text_config(kind), width=24).eval()
    mixed = encoder.mix(batch(types=kind == "bert"), PARTNER, torch.full((4,), 0.4))
    encoder(mixed).square().sum().backward()
    asking = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert [name for name, p in asking.items() if p.grad is None] == []
    assert asking["projection.weight"].grad.any() and encoder.model.get_input_embeddings().weight.grad.any()
    asleep = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    # its pooling layer cannot be left out
    assert asleep == ({"model.pooler.dense.weight", "model.pooler.dense.bias"} if kind == "layoutlm" else set())


def test_gradient_checkpointing_changes_nothing():
    found = []
    for checkpointing in (False, True):
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        encoder = text_encoder(text_config(options=options), checkpointing=checkpointing).train()
        seen = []
        first = encoder.model.encoder.layer[0].attention.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        mixed = encoder.mix(batch(), PARTNER, torch.full((4,), 0.4))
        out = encoder(mixed)
        out.square().sum().backward()
        first.remove()
        assert len(seen) == 1 + checkpointing  # computed again for the backward pass
        found.append([out, *(p.grad for p in encoder.parameters())])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=0, atol=1e-7)


def test_weights_follow_the_seed_and_the_vocabulary_the_tokeniser():
    one, same, other = (text_encoder(text_config(), width=24, seed=seed) for seed in (1, 1, 2))
    vectors = [parameters_to_vector(encoder.parameters()) for encoder in (one, same, other)]
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])
    assert one.model.get_input_embeddings().num_embeddings == VOCABULARY
    assert {p.dtype for p in one.parameters()} == {torch.float32} and one.training
    assert one.model.config._attn_implementation == "m3col_sdpa" and one.model.pooler is None
    assert isinstance(text_encoder(text_config()).projection, torch.nn.Identity)


def test_a_folder_is_loaded_and_a_checkpoint_needs_it_no_more(tmp_path):
    folder = text_folder(tmp_path / "encoder")
    config, input = TextModelConfig(name=str(folder)), TextInput(60, 0, 16)
    encoder, tokens = TextEncoder(config, input, 32), batch(seed=3)
    tokens = Tokens(tokens.ids % 50, tokens.mask)
    assert all(module.training for module in encoder.modules())
    wanted = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    encoder.eval()
    with torch.no_grad():
        hidden = wanted(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
        assert torch.equal(encoder(tokens), hidden[:, 0])
    assert str(tmp_path) not in json.dumps(encoder.stored())
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    described = json.loads(json.dumps(encoder.stored()))
    again = TextEncoder(config, input, 32, load_weights=False, described=described).eval()
    with torch.no_grad():
        assert not torch.equal(again(tokens), encoder(tokens))
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(tokens), encoder(tokens))


def test_a_stored_config_cannot_name_code():
    described = {
        **encoder_config(text_config()),
        "_attn_implementation": "kernels-community/x",
        "auto_map": {"A": "b.c"},
    }
    encoder = text_encoder(text_config(), load_weights=False, described=described)
    assert encoder.model.config._attn_implementation == "m3col_sdpa" and "auto_map" not in encoder.stored()


def test_kinds_are_encoders():
    assert {"bert", "roberta", "distilbert", "mpnet", "modernbert"} <= set(kinds()) and not {"gpt2", "bart"} & set(
        kinds()
    )


def test_an_encoder_need_not_fill_in_words():
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = TextModelConfig(name="splinter", pretrained=False, options=small)
    assert "splinter" not in kinds() and encoder_config(config)["model_type"] == "splinter"
    assert text_encoder(config)(batch()).shape == (4, 32)


def test_tokens_are_cut_and_judged():
    tokens = batch(types=True)
    some = tokens[torch.tensor([2, 0])].to("cpu")
    assert (
        len(some) == 2 and torch.equal(some.ids, tokens.ids[[2, 0]]) and torch.equal(some.types, tokens.types[[2, 0]])
    )
    assert len(built("bert", 0, "cls", 32).embed(tokens)[1:3]) == 2
    with pytest.raises(ValueError, match="must have ids or embeddings"):
        Tokens(None, tokens.mask)
    with pytest.raises(ValueError, match=r"types of tokens must begin with shape \[4, 9\], but got \[4, 8\]"):
        Tokens(tokens.ids, tokens.mask, types=tokens.types[:, :8])


def test_the_tokeniser_must_fit_the_encoder(tmp_path):
    folder = text_folder(tmp_path)
    with pytest.raises(ValueError, match="do not belong together: the tokenizer has 5000 entries, the encoder "):
        TextEncoder(TextModelConfig(name=str(folder)), TextInput(5000, 0, 16), 32)


def test_a_model_of_images_and_texts_is_no_text_encoder(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    both = CLIPConfig(
        text_config={**sizes, "vocab_size": 50}, vision_config={**sizes, "image_size": 8, "patch_size": 4}
    )
    CLIPModel(both).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no word embeddings of its own"):
        TextEncoder(TextModelConfig(name=str(tmp_path)), TextInput(50, 0, 16), 32)
