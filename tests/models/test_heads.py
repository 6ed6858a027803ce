"""The three-layer head of image and text, and what all encoders have in common."""

import pytest
import torch
from torch import nn

from m3col.config.schema import ModelConfig
from m3col.inputs.specs import ImageInput, TextInput
from m3col.models import build, mlp
from m3col.models.image import ImageEncoder
from m3col.models.mlp import linear
from m3col.models.text import TextEncoder
from tests.models.builders import image_config, text_config

CONFIG = ModelConfig(embedding_dim=24, image=image_config(), text=text_config(), gradient_checkpointing=True)


def test_head_of_three_layers():
    torch.manual_seed(0)
    head = build.build_head(6, 9, 4, 0.5, layers=3)
    x = torch.randn(3, 6)
    w1, b1, w2, b2, w3, b3 = (p.detach() for p in head.parameters())
    assert [tuple(p.shape) for p in (w1, b1, w2, b2, w3, b3)] == [(9, 6), (9,), (9, 9), (9,), (4, 9), (4,)]
    hidden = ((x @ w1.T + b1).clamp(min=0) @ w2.T + b2).clamp(min=0)
    assert torch.allclose(head.eval()(x), hidden @ w3.T + b3)
    torch.manual_seed(3)
    got = head.train()(x)
    torch.manual_seed(3)
    kept = nn.functional.dropout(hidden, 0.5)  # before the last layer, nowhere else
    assert torch.allclose(got, kept @ w3.T + b3)


def test_head_of_two_layers_has_the_same_names_and_draws_as_ever():
    torch.manual_seed(0)
    head = build.build_head(6, 9, 4, 0.5)
    torch.manual_seed(0)
    drawn = [linear(6, 9).weight, linear(9, 4).weight]
    assert list(head.state_dict()) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert torch.equal(head.first.weight, drawn[0]) and torch.equal(head.second.weight, drawn[1])
    with pytest.raises(ValueError, match="layers must be 2 or 3, but got 4; the nearest valid value is 3"):
        build.build_head(6, 9, 4, 0.5, layers=4)


def test_encoders_by_what_they_read():
    numbers, images, texts = (build.build_encoder(s, CONFIG) for s in (5, ImageInput(32), TextInput(120, 0, 40)))
    assert type(numbers) is mlp.MLPEncoder and type(images) is ImageEncoder and type(texts) is TextEncoder
    assert images.model.grad_checkpointing and texts.model.gradient_checkpointing
    assert numbers.stored() == images.stored() == {} and texts.stored()["model_type"] == "bert"
    x, partner, lam = torch.randn(3, 5), torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.0, 0.25])
    wanted = torch.stack([x[0], x[2], 0.25 * x[2] + 0.75 * x[0]])
    assert torch.equal(numbers.mix(x, partner, lam), wanted)


def test_what_is_stored_is_used():
    described = {**build.build_encoder(TextInput(120, 0, 40), CONFIG).stored(), "num_hidden_layers": 1}
    again = build.build_encoder(TextInput(120, 0, 40), CONFIG, load_weights=False, described=described)
    assert len(again.model.encoder.layer) == 1
