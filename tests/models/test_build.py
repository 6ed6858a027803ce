"""Encoders and heads: layers as the paper has them, weights a function of torch's seed."""

import math

import pytest
import torch
from torch import nn

from m3col.config.schema import ModelConfig
from m3col.models import build as models_build


def encoder_of(name, features, width):
    return models_build.build_encoder(features, ModelConfig.model_construct(encoder=name, embedding_dim=width))


@pytest.mark.parametrize("name", models_build.names())
def test_every_encoder_maps_features_to_embeddings(name):
    torch.manual_seed(0)
    encoder = encoder_of(name, 7, 5)
    x = torch.randn(3, 7)
    before = x.clone()
    out = encoder(x)
    out.sum().backward()
    assert out.shape == (3, 5) and out.isfinite().all() and torch.equal(x, before)
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", models_build.names())
def test_weights_are_a_function_of_the_seed(name):
    built = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        built.append(nn.utils.parameters_to_vector(encoder_of(name, 7, 5).parameters()))
    assert torch.equal(built[0], built[1]) and not torch.equal(built[0], built[2])


def test_encoder_is_linear_relu_linear():
    torch.manual_seed(0)
    encoder = encoder_of("mlp", 7, 5)
    x = torch.randn(3, 7)
    (w1, b1, w2, b2) = (p.detach() for p in encoder.parameters())
    assert [tuple(p.shape) for p in (w1, b1, w2, b2)] == [(5, 7), (5,), (5, 5), (5,)]
    assert torch.allclose(encoder(x), (x @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_head_is_linear_relu_dropout_linear():
    torch.manual_seed(0)
    head = models_build.build_head(6, 9, 4, 0.5)
    x = torch.randn(3, 6)
    w1, b1, w2, b2 = (p.detach() for p in head.parameters())
    assert [tuple(p.shape) for p in (w1, b1, w2, b2)] == [(9, 6), (9,), (4, 9), (4,)]
    hidden = (x @ w1.T + b1).clamp(min=0)
    assert torch.allclose(head.eval()(x), hidden @ w2.T + b2)
    head.train()
    torch.manual_seed(3)
    got = head(x)
    torch.manual_seed(3)
    kept = nn.functional.dropout(hidden, 0.5)  # between ReLU and the last layer, nowhere else
    assert torch.allclose(got, kept @ w2.T + b2)


def test_xavier_normal_weights_and_zero_biases():
    torch.manual_seed(0)
    for module in (encoder_of("mlp", 300, 200), models_build.build_head(400, 300, 100, 0.0)):
        for layer in (module.first, module.second):
            std = math.sqrt(2 / (layer.in_features + layer.out_features))
            assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
            # a normal has 31.7 % beyond one standard deviation, a uniform 42.3 %
            assert (layer.weight.abs() > std).float().mean().item() == pytest.approx(0.317, abs=0.01)
            assert not layer.bias.any()


BAD = [
    (lambda: encoder_of("mpl", 3, 4), r"encoder 'mpl' is unknown; did you mean 'mlp'\?"),
    (lambda: encoder_of("mlp", 0, 4), r"in_features must be >= 1, but got 0"),
    (lambda: models_build.build_head(3, -1, 2, 0.0), r"hidden must be >= 1, but got -1"),
    (lambda: models_build.build_head(3, 4, 2, 1.0), r"dropout must lie in \[0, 1\), but got 1.0"),
    (lambda: models_build.build_head(3, 4, 2, float("nan")), r"dropout must lie in \[0, 1\), but got nan"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
