"""Encoders of sequences: against plain loops, padding, mixing, and that nobody else in a batch matters."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from m3col.config.modality_sections import SequenceModelConfig
from m3col.errors import InputError
from m3col.inputs.specs import SequenceInput, Sequences
from m3col.models import sequence
from m3col.models.sequence import TABLE, SequenceEncoder

F, E, D = 3, 8, 5
STRIDED = [("convolution", {"stride": 2, "stride_at": at}) for at in ("last", "first")]
PUBLISHED = {"positions": "none", "final_norm": False, "mask": False}


def encoder(**settings) -> SequenceEncoder:
    torch.manual_seed(0)
    config = SequenceModelConfig(**{"width": E, "heads": 2, "feedforward": 16, **settings})
    built = SequenceEncoder(config, SequenceInput(F), D).double().eval()
    for name, parameter in built.named_parameters():
        if parameter.ndim == 1:  # norms and biases that are not ones and zeros, so that a test sees them
            nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return built


def batch(*lengths: int, seed: int = 1) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = torch.randn(len(lengths), max(lengths), F, generator=generator, dtype=torch.float64)
    return Sequences(values * mask[:, :, None], mask)


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def norm_by_loops(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return np.array([(v - mean) / math.sqrt(variance + 1e-5) for v in x]) * weight + bias


def layer_by_loops(tokens: list[np.ndarray], exists: list[bool], w: dict[str, np.ndarray], heads: int) -> list:
    """One pre-LN layer for one sequence, step by step and head by head."""
    normed = [norm_by_loops(x, w["attention_norm.weight"], w["attention_norm.bias"]) for x in tokens]
    projected = [w["attention.weight"] @ x + w["attention.bias"] for x in normed]
    size, results = E // heads, []
    for step, token in enumerate(tokens):
        merged = np.zeros(E)
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            query = projected[step][:E][at]
            scores = [
                math.exp(float(query @ p[E : 2 * E][at]) / math.sqrt(size)) if there else 0.0
                for p, there in zip(projected, exists, strict=True)
            ]
            for score, p in zip(scores, projected, strict=True):
                merged[at] += score / sum(scores) * p[2 * E :][at]
        x = token + w["merge.weight"] @ merged + w["merge.bias"]
        hidden = w["first.weight"] @ norm_by_loops(x, w["norm.weight"], w["norm.bias"]) + w["first.bias"]
        results.append(x + w["second.weight"] @ np.maximum(hidden, 0) + w["second.bias"])
    return results


@pytest.mark.parametrize("settings", [{}, PUBLISHED], ids=["masked", "published"])
def test_the_transformer_equals_plain_loops(settings):
    built, x = encoder(**settings), batch(4, 2)
    tokens, mask = built.sequence(x)
    weights = arrays_of(built.steps)
    for row in range(2):
        exists = [True] * 4 if settings else x.mask[row].tolist()
        states = [weights["first.weight"] @ step for step in x.values[row].numpy()]
        if not settings:
            for t, state in enumerate(states):
                for i in range(E // 2):
                    state[2 * i] += math.sin(t / 10000 ** (2 * i / E))
                    state[2 * i + 1] += math.cos(t / 10000 ** (2 * i / E))
        for number in range(2):
            own = {k.removeprefix(f"layers.{number}."): v for k, v in weights.items() if f"layers.{number}." in k}
            states = layer_by_loops(states, exists, own, heads=2)
        if not settings:
            states = [norm_by_loops(s, weights["norm.weight"], weights["norm.bias"]) for s in states]
        wanted = np.array([s if there else np.zeros(E) for s, there in zip(states, exists, strict=True)])
        assert np.allclose(tokens[row].detach().numpy(), wanted, rtol=0, atol=1e-9)
        assert mask[row].tolist() == exists


def test_the_causal_convolutions_equal_plain_loops():
    built, x = encoder(name="convolution", layers=3, kernel=3), batch(9, 4)
    tokens, _ = built.sequence(x)
    weights = arrays_of(built.steps)
    for row, length in enumerate((9, 4)):
        states = list(x.values[row, :length].numpy())
        for number in range(3):
            kernel, bias = weights[f"layers.{number}.weight"], weights[f"layers.{number}.bias"]
            after = []
            for t in range(length):
                total = bias.copy()
                for k in range(3):
                    at = t - (2 - k) * 2**number
                    total += kernel[:, :, k] @ states[at] if at >= 0 else 0
                after.append(np.where(total > 0, total, 0.1 * total))
            states = after
        assert np.allclose(tokens[row, :length].detach().numpy(), states, rtol=0, atol=1e-9)


@pytest.mark.parametrize("at", ["last", "first"])
@pytest.mark.parametrize(("stride", "kernel"), [(2, 2), (3, 2), (2, 4)])
def test_strided_convolutions_equal_plain_loops(stride, kernel, at):
    settings = {"layers": 2, "widths": [5], "kernel": kernel, "stride": stride, "stride_at": at}
    built, x = encoder(name="convolution", **settings), batch(11, 4, 1)
    tokens, mask = built.sequence(x)
    weights = arrays_of(built.steps)
    for row, length in enumerate((11, 4, 1)):
        states = list(x.values[row, :length].numpy())
        for number in range(2):
            weight, bias = weights[f"layers.{number}.weight"], weights[f"layers.{number}.bias"]
            after = []
            for start in range(0, len(states), stride):  # of each group of steps, the last one may be incomplete
                end, total = start + (stride - 1 if at == "last" else 0), bias.copy()
                for k in range(kernel):
                    step = end - (kernel - 1 - k)
                    total += weight[:, :, k] @ states[step] if 0 <= step < len(states) else 0
                after.append(np.where(total > 0, total, 0.1 * total))
            states = after
        assert mask[row].tolist() == [True] * len(states) + [False] * (mask.shape[1] - len(states))
        assert np.allclose(tokens[row, : len(states)].detach().numpy(), states, rtol=0, atol=1e-9)
        assert not tokens[row, len(states) :].any()


@pytest.mark.parametrize(("at", "seen"), [("first", [0]), ("last", [*range(32)])])
def test_the_published_convolutions_of_the_force_see_one_step_of_32(at, seen):
    """32 steps become one token; it has a gradient of the first step alone, unless windows end at the last step."""
    published = {"layers": 5, "widths": [16, 32, 64, 128], "width": 128, "kernel": 2, "stride": 2, "stride_at": at}
    built, x = encoder(name="convolution", **published), batch(32)
    values = x.values.clone().requires_grad_()
    tokens, mask = built.sequence(Sequences(values, x.mask))
    assert tokens.shape == (1, 1, 128) and mask.tolist() == [[True]]
    tokens.sum().backward()
    assert values.grad[0].any(dim=-1).nonzero().flatten().tolist() == seen


@pytest.mark.parametrize("name", TABLE)
def test_tokens_of_features_are_those_of_the_pooled_vector(name):
    built, x = encoder(name=name, tokens="features"), batch(4, 2)
    pooled = built._pooled(*built._of_steps(x))
    assert torch.allclose(built(x), built.projection(pooled), rtol=0, atol=1e-12)
    built.without_pooling()
    built.double()
    tokens, mask = built.sequence(x)
    assert tokens.shape == (2, E, D) and mask.all() and built.sequence_width == D
    weight, bias = built.feature_tokens.weight.tolist(), built.feature_tokens.bias.tolist()
    for row in range(2):
        for k in range(E):
            for column in range(D):
                expected = float(pooled[row, k].detach()) * weight[k][column] + bias[k][column]
                assert float(tokens[row, k, column].detach()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "gru", "stride": 2}, ["model.sequence.stride is for the encoder 'convolution'", "is 'gru'; leave"]),
        ({"heads": 3, "widths": [4]}, ["heads must divide", "model.sequence.widths is for the encoder 'convolution'"]),
        (
            {"name": "convolution", "layers": 3, "widths": [4]},
            ["must have an entry for each layer but the last, 2"],
        ),
    ],
)
def test_strides_and_widths_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(InputError) as caught:
        encoder(**settings)
    assert all(word in str(caught.value) for word in words)
    assert len(caught.value.faults) == (2 if "heads" in settings else 1)


def test_the_gru_equals_plain_loops():
    built, x = encoder(name="gru", layers=1), batch(5, 2)
    tokens, _ = built.sequence(x)
    w = arrays_of(built.steps)
    for row, length in enumerate((5, 2)):
        state = np.zeros(E)
        for t in range(length):
            given = w["gru.weight_ih_l0"] @ x.values[row, t].numpy() + w["gru.bias_ih_l0"]
            own = w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]
            reset, update = (1 / (1 + np.exp(-(given[at] + own[at]))) for at in (slice(E), slice(E, 2 * E)))
            new = np.tanh(given[2 * E :] + reset * own[2 * E :])
            state = (1 - update) * new + update * state
            assert np.allclose(tokens[row, t].detach().numpy(), state, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_an_embedding_is_the_mean_over_the_steps_that_exist_or_the_last_of_them(pool):
    built, x = encoder(pool=pool), batch(4, 1, 3)
    tokens, mask = built.sequence(x)
    assert torch.equal(mask, x.mask) and not tokens[~mask].any()
    for row, length in enumerate((4, 1, 3)):
        own = tokens[row, :length]
        pooled = own.mean(0) if pool == "mean" else own[-1]
        assert torch.allclose(built(x)[row], built.projection(pooled), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in TABLE), *STRIDED])
def test_results_do_not_depend_on_who_shares_a_batch(name, more, pool):
    built, x = encoder(name=name, pool=pool, **more), batch(2, 7, 1, 4)
    together = built(x)
    for row, length in enumerate((2, 7, 1, 4)):
        alone = Sequences(x.values[row : row + 1, :length], x.mask[row : row + 1, :length])
        assert torch.allclose(built(alone)[0], together[row], rtol=0, atol=1e-12)
    published = encoder(mask=False)
    alone = Sequences(x.values[:1, :2], x.mask[:1, :2])
    assert not torch.allclose(published(alone)[0], published(x)[0], atol=1e-3)  # why padding is masked


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in TABLE), STRIDED[0]])
def test_every_weight_has_a_gradient_and_padding_has_none(name, more):
    built, x = encoder(name=name, **more), batch(3, 5)
    values = x.values.clone().requires_grad_()
    built(Sequences(values, x.mask)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in built.parameters())
    assert not values.grad[~x.mask].any() and values.grad[x.mask].any(dim=-1).all()


def test_a_mixture_has_the_steps_of_every_sequence_of_positive_weight():
    built, x = encoder(), batch(2, 3, 5)
    partner, lam = torch.tensor([1, 2, 0]), torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)
    mixed = built.mix(x, partner, lam)
    assert mixed.mask.sum(1).tolist() == [3, 3, 2]
    assert torch.allclose(mixed.values[0], 0.25 * x.values[0] + 0.75 * x.values[1], rtol=0, atol=1e-12)
    embeddings, own = built(mixed), built(x)
    assert torch.allclose(embeddings[1], own[1], rtol=0, atol=1e-12)  # lambda 1: the sample itself
    assert torch.allclose(embeddings[2], own[0], rtol=0, atol=1e-12)  # lambda 0: the partner


def test_a_projection_is_there_only_where_the_widths_differ():
    config = SequenceModelConfig(width=6, heads=3)
    assert isinstance(SequenceEncoder(config, SequenceInput(F), 6).projection, nn.Identity)
    assert SequenceEncoder(config, SequenceInput(F), 7).double()(batch(2)).shape == (1, 7)


@pytest.mark.parametrize("width", [1, 7, 8])
def test_positions_have_the_width_that_is_asked_for(width):
    assert sequence.sine_positions(4, width, like=torch.zeros(1)).shape == (4, width)


def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_value():
    with pytest.raises(InputError, match=r"heads must divide model.sequence.width \(8\), but is 5; .* is 4"):
        encoder(heads=5)
    assert encoder(heads=5, name="gru")  # which has no heads
