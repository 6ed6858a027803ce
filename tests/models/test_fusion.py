"""The fusion transformer: equal to a plain transformer on the tokens that a subset has, however many layers."""

import math

import pytest
import torch
from torch import Tensor

from m3col.errors import InputError
from m3col.models.fusion import FusionTransformer, map_positions
from m3col.models.token_sequence import TokenSequence

WIDTH, HEADS = 8, 2
SUBSETS = [["a", "b", "c"], ["a"], ["c"], ["b", "a"], []]


def fusion(layers: int) -> FusionTransformer:
    torch.manual_seed(0)
    return FusionTransformer({"a": 8, "b": 6, "c": 4}, width=WIDTH, layers=layers, heads=HEADS).double()


def sequences() -> dict[str, TokenSequence]:
    draw = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    return {
        "a": TokenSequence(torch.randn(3, 4, 8, generator=draw, dtype=torch.float64), grid=(2, 2)),
        "b": TokenSequence(torch.randn(3, 3, 6, generator=draw, dtype=torch.float64), mask),
        "c": TokenSequence(torch.randn(3, 1, 4, generator=draw, dtype=torch.float64)),
    }


def slow(model: FusionTransformer, tokens: list[Tensor]) -> Tensor:
    """One sample: its tokens [D] through all layers, with loops over heads and queries; the class token's state."""
    states = [model.token, *tokens]
    for layer in model.layers:
        normed = [layer.attention_norm(state) for state in states]
        weight, bias = layer.attention_in.weight, layer.attention_in.bias
        projected = [weight @ state + bias for state in normed]
        size = WIDTH // HEADS
        attended = []
        for row in range(len(states)):
            heads = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query = projected[row][:WIDTH][part]
                keys = [p[WIDTH : 2 * WIDTH][part] for p in projected]
                values = [p[2 * WIDTH :][part] for p in projected]
                scores = torch.stack([query @ key / math.sqrt(size) for key in keys])
                shares = torch.exp(scores) / torch.exp(scores).sum()
                heads.append(sum(share * value for share, value in zip(shares, values, strict=True)))
            attended.append(layer.attention_out(torch.cat(heads)))
        states = [state + update for state, update in zip(states, attended, strict=True)]
        hidden = [layer.mlp_in(layer.mlp_norm(state)) for state in states]
        states = [state + layer.mlp_out(h * torch.sigmoid(1.702 * h)) for state, h in zip(states, hidden, strict=True)]
    return model.norm(states[0])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_masked_modality_equals_one_whose_tokens_are_left_out(layers):
    model, given = fusion(layers), sequences()
    fused = model(given, SUBSETS)
    assert list(fused.shape) == [len(SUBSETS), 3, WIDTH]
    for number, subset in enumerate(SUBSETS):
        for row in range(3):
            tokens: list[Tensor] = []
            for name in ("a", "b", "c"):
                if name not in subset:
                    continue
                values, mask, grid = given[name]
                adapted = model.adapters[name](values[row])
                if grid is not None:
                    adapted = adapted + map_positions(*grid, WIDTH).double()
                tokens += [value for at, value in enumerate(adapted) if mask is None or mask[row, at]]
            torch.testing.assert_close(fused[number, row], slow(model, tokens), rtol=1e-9, atol=1e-9)


def test_a_sample_that_lacks_a_modality_equals_a_subset_without_it():
    model, given = fusion(2), sequences()
    present = {"a": torch.tensor([True, False, True])}
    fused = model(given, [["a", "b", "c"]], present)[0]
    without = model(given, [["b", "c"]])[0]
    whole = model(given, [["a", "b", "c"]])[0]
    torch.testing.assert_close(fused[1], without[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused[[0, 2]], whole[[0, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(fused[1], whole[1])


def test_every_weight_gets_a_gradient_and_masked_tokens_get_none():
    model, given = fusion(2), sequences()
    leaf = given["b"].values.requires_grad_()
    model(given, [["a", "b", "c"]]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    hidden = ~given["b"].mask
    assert (leaf.grad[hidden] == 0).all() and (leaf.grad[~hidden] != 0).any()


def test_positions_of_a_map_are_the_sines_and_cosines_of_row_and_column():
    found = map_positions(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for place in (row, column):
                expected += [math.sin(place), math.sin(place / 100), math.cos(place), math.cos(place / 100)]
            torch.testing.assert_close(found[row * 3 + column], torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(InputError, match="must be a multiple of 4 for images, but is 6; nearest valid: 8"):
        map_positions(2, 2, 6)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(InputError, match="heads must divide the width 8, but got 3"):
        FusionTransformer({"a": 8}, width=8, heads=3)
