"""Methods with a fusion of their own, against twins of plain loops: Dynamics, GMU, VCDN, CentralNet; and named settings
of concatenation."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from m3col import tasks
from m3col.checks.resolve import check_against_data
from m3col.config import loading
from m3col.data.arrays import from_arrays
from m3col.errors import InputError
from m3col.inputs.specs import ImageInput, Partial
from m3col.methods import registry
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import FUSED
from tests.methods.test_contract import STEP, build
from tests.support.helpers import tiny_config


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def times(matrix: Tensor, row: list[float], bias: Tensor | None = None) -> list[float]:
    """matrix @ row + bias, one product at a time."""
    start = [0.0] * len(matrix) if bias is None else bias.tolist()
    return [
        b + sum(float(m) * x for m, x in zip(line, row, strict=True)) for line, b in zip(matrix, start, strict=True)
    ]


def layer(module: torch.nn.Linear, row: list[float]) -> list[float]:
    return times(module.weight.detach(), row, None if module.bias is None else module.bias.detach())


def head(module, row: list[float]) -> list[float]:
    return layer(module.second, [max(value, 0.0) for value in layer(module.first, row)])


encoder = head  # two layers with a ReLU between


def cross_entropy(logits: list[float], y: int) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[y]


def probability(logits: list[float], y: int) -> float:
    return math.exp(-cross_entropy(logits, y))


@pytest.mark.parametrize("bounded", [False, True])
def test_dynamics_again_with_loops(bounded):
    method, batch = build(
        "dynamics", objective__sparsity=0.3, objective__confidence=0.6, objective__bounded_confidence=bounded
    )
    total = sparsity = error = 0.0
    for i in range(9):
        y, joined = int(batch.labels[i]), []
        for name, x in batch.inputs.items():
            row = x[i].tolist()
            gate = [sigmoid(value) for value in layer(method.gates[name], row)]
            p = encoder(method.encoders[name], [a * b for a, b in zip(row, gate, strict=True)])
            (c,) = layer(method.confidences[name], p)
            c = sigmoid(c) if bounded else c
            logits = head(method.heads[name], p)
            joined += [c * value for value in p]
            sparsity += sum(gate) / len(gate) / 9
            error += (c - probability(logits, y)) ** 2 / 9
            total += cross_entropy(logits, y) / 9
        total += cross_entropy(head(method.fusion, joined), y) / 9
    parts = method.losses(batch, STEP)
    assert float(parts["loss"]) == pytest.approx(total + 0.3 * sparsity + 0.6 * error, rel=1e-9)
    assert float(parts["sparsity"]) == pytest.approx(sparsity, rel=1e-9)
    assert float(parts["confidence"]) == pytest.approx(error, rel=1e-9)


def test_dynamics_with_open_gates_and_full_confidence_is_concat():
    method, batch = build("dynamics", objective__sparsity=0.0, objective__confidence=0.0)
    other, _ = build("concat")
    with torch.no_grad():
        for module, bias in ((method.gates, 60.0), (method.confidences, 1.0)):
            for gate in module.values():
                gate.weight.zero_()
                gate.bias.fill_(bias)
    own = method.state_dict()
    other.load_state_dict({key: own[key] for key in other.state_dict()})
    expected = other.losses(batch, STEP)["loss"]
    torch.testing.assert_close(method.losses(batch, STEP)["loss"], expected, rtol=1e-9, atol=0)


def test_the_confidence_moves_the_probability_it_aims_at_unless_detached():
    def gradient(detach: bool) -> Tensor:
        method, batch = build("dynamics", objective__detach=detach)
        return torch.autograd.grad(method.losses(batch, STEP)["confidence"], [*method.heads["a"].parameters()],
                                   allow_unused=True)[0]  # fmt: skip

    assert gradient(False).abs().sum() > 0 and gradient(True) is None


def test_dynamics_gates_the_embedding_of_an_image_and_leaves_out_the_terms_of_absent_ones():
    torch.manual_seed(0)
    config = tiny_config(method="dynamics", model__image__name="resnet10t", model__image__pretrained=False)
    method = registry.load("dynamics")(
        config, features={"table": 4, "image": ImageInput(32)}, task=tasks.build(classes=2)
    ).double()
    present = torch.tensor([True, False, True, True])
    inputs = {
        "table": Partial(torch.randn(4, 4).double(), present),
        "image": torch.rand(4, 3, 32, 32).double(),
    }
    embedding, gate = method.gated("image", inputs["image"])
    plain = method.encoders["image"](inputs["image"])
    assert gate.shape == (4, 8) and torch.equal(gate, torch.sigmoid(method.gates["image"](plain)))
    torch.testing.assert_close(embedding, plain * gate)
    gates = {name: method.gated(name, rows)[1].mean(1) for name, rows in inputs.items()}
    parts = method.losses(Batch.of(inputs, torch.tensor([0, 1, 0, 1])), STEP)
    expected = (gates["image"].sum() + gates["table"][present].sum()) / 4
    torch.testing.assert_close(parts["sparsity"], expected)


@pytest.mark.parametrize("tied", [False, True])
def test_gmu_again_with_loops(tied):
    made = two_modalities if tied else build
    method, batch = made("gmu", objective__width=5, objective__tied=tied)
    total, names = 0.0, method.modalities
    for i in range(9):
        rows = {name: encoder(method.encoders[name], batch.inputs[name][i].tolist()) for name in names}
        everything = [value for row in rows.values() for value in row]
        unit = [0.0] * 5
        for name in names:
            h = [math.tanh(value) for value in layer(method.projections[name], rows[name])]
            z = [sigmoid(value) for value in layer(method.gates[names[0] if tied else name], everything)]
            z = [1 - value for value in z] if tied and name != names[0] else z
            unit = [u + a * b for u, a, b in zip(unit, z, h, strict=True)]
        total += cross_entropy(head(method.fusion, unit), int(batch.labels[i])) / 9
    assert float(method.losses(batch, STEP)["loss"]) == pytest.approx(total, rel=1e-9)


def two_modalities(name: str, **overrides):
    config = tiny_config(method=name, **overrides)
    torch.manual_seed(0)
    method = registry.load(name)(config, features={"a": 4, "b": 3}, task=tasks.build(classes=3)).double()
    _, batch = build("concat")
    return method, Batch.of({m: batch.inputs[m] for m in "ab"}, batch.labels)


def test_gates_do_not_depend_on_the_order_of_modalities():
    method, batch = build("gmu")
    moved = registry.load("gmu")(method.config, features={"c": 5, "a": 4, "b": 3}, task=tasks.build(classes=3)).double()
    moved.load_state_dict(method.state_dict())
    with torch.no_grad():
        for name in "abc":  # a gate sees the embeddings side by side, in the order of the modalities
            a, b, c = method.gates[name].weight.split(8, dim=1)
            moved.gates[name].weight.copy_(torch.cat([c, a, b], dim=1))
    expected = method.logits(batch.inputs)[FUSED]
    torch.testing.assert_close(moved.logits(batch.inputs)[FUSED], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("hidden", [None, 4])
def test_vcdn_again_with_loops(activation, hidden):
    method, batch = build("vcdn", objective__activation=activation, objective__hidden=hidden)
    total = 0.0
    for i in range(9):
        y, predictions = int(batch.labels[i]), []
        for name, x in batch.inputs.items():
            logits = head(method.heads[name], encoder(method.encoders[name], x[i].tolist()))
            total += cross_entropy(logits, y) / 9
            of = sigmoid if activation == "sigmoid" else None
            predictions.append([of(z) if of else probability(logits, k) for k, z in enumerate(logits)])
        products = [math.prod(parts) for parts in itertools.product(*predictions)]
        below = [value if value > 0 else 0.25 * value for value in layer(method.products[0], products)]
        assert len(products) == 27 and len(below) == (hidden or 27)
        total += cross_entropy(layer(method.products[2], below), y) / 9
    assert float(method.losses(batch, STEP)["loss"]) == pytest.approx(total, rel=1e-9)


def test_the_fused_loss_of_vcdn_trains_encoders_end_to_end_only_if_asked():
    for end_to_end in (False, True):
        method, batch = build("vcdn", objective__end_to_end=end_to_end)
        method.losses(batch, STEP)[f"ce_{FUSED}"].backward()
        assert all(p.grad is not None for p in method.products.parameters())
        assert all((p.grad is not None) == end_to_end for p in method.encoders.parameters())


def test_too_many_products_are_refused_with_the_nearest_number():
    def faults(modalities: int, classes: int) -> list[str]:
        draw, count = np.random.default_rng(0), 4 * classes
        inputs = {f"m{number}": draw.normal(size=(count, 3)) for number in range(modalities)}
        raw = {"method": "vcdn", "data": {"name": "arrays"}, "validation": {"kind": "none"}}
        return check_against_data(loading.load(raw), data=from_arrays(inputs, np.arange(count) % classes))[1]

    assert faults(3, 10) == []
    (line,) = faults(6, 10)
    assert "must be <= 1000, but 10 ^ 6 is 1000000; nearest valid: 3 modalities" in line
    (line,) = faults(2, 32)
    assert "32 ^ 2 is 1024" in line and "nearest" not in line


def test_tied_gates_are_for_two_modalities():
    draw = np.random.default_rng(0)
    data = from_arrays({name: draw.normal(size=(20, 3)) for name in "abc"}, np.arange(20) % 2)
    raw = {"method": "gmu", "objective": {"tied": True}, "data": {"name": "arrays"}, "validation": {"kind": "none"}}
    (line,) = check_against_data(loading.load(raw), data=data)[1]
    assert "objective.tied must be false for 3 modalities" in line
    assert check_against_data(loading.load(raw), data=data.select(["a", "b"]))[1] == []
    with pytest.raises(InputError, match="must be false for 3 modalities"):
        build("gmu", objective__tied=True)


def test_centralnet_again_with_loops():
    method, batch = build("centralnet", objective__unimodal_weight=0.4)
    with torch.no_grad():
        for weights in (method.hidden_weights, method.embedding_weights, method.central_weight):
            weights.copy_(torch.arange(len(weights), dtype=torch.float64) * 0.3 + 0.2)
    total = 0.0
    for i in range(9):
        y, first, second = int(batch.labels[i]), [0.0] * 8, [0.0] * 8
        for at, (name, x) in enumerate(batch.inputs.items()):
            coder = method.encoders[name]
            hidden = [max(value, 0.0) for value in layer(coder.first, x[i].tolist())]
            p = layer(coder.second, hidden)
            first = [f + (0.3 * at + 0.2) * value for f, value in zip(first, hidden, strict=True)]
            second = [s + (0.3 * at + 0.2) * value for s, value in zip(second, p, strict=True)]
            total += 0.4 * cross_entropy(head(method.heads[name], p), y) / 9
        below = [max(value, 0.0) for value in layer(method.first, first)]
        above = layer(method.second, [0.2 * b + s for b, s in zip(below, second, strict=True)])
        total += cross_entropy(head(method.central, [max(value, 0.0) for value in above]), y) / 9
    assert float(method.losses(batch, STEP)["loss"]) == pytest.approx(total, rel=1e-9)


def test_centralnet_starts_with_equal_weights_and_sums_embeddings_where_a_modality_is_no_table():
    method = build("centralnet")[0]
    assert torch.allclose(method.hidden_weights, torch.tensor(1 / 3).double())
    assert torch.allclose(torch.cat([method.embedding_weights, method.central_weight]), torch.tensor(0.25).double())
    torch.manual_seed(0)
    config = tiny_config(method="centralnet", model__image__name="resnet10t", model__image__pretrained=False)
    method = registry.load("centralnet")(
        config, features={"table": 4, "image": ImageInput(32)}, task=tasks.build(classes=2)
    )
    embeddings = method.eval().encode({"table": torch.randn(3, 4), "image": torch.rand(3, 3, 32, 32)})
    expected = method.central(embeddings["table"] / 2 + embeddings["image"] / 2)
    torch.testing.assert_close(method.classify(embeddings)[FUSED], expected)


def test_centralnet_leaves_out_a_modality_that_a_sample_lacks():
    method, batch = build("centralnet")
    nowhere = {**batch.inputs, "b": Partial(batch.inputs["b"], torch.zeros(9, dtype=torch.bool))}
    found = method.logits(nowhere)[FUSED]
    with torch.no_grad():
        method.hidden_weights[1] = method.embedding_weights[1] = 0.0
    torch.testing.assert_close(found, method.logits(batch.inputs)[FUSED], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("name", "heads"), [("cf", False), ("uniconcat", False), ("n24news", True)])
def test_named_settings_of_concat_compute_what_concat_computes(name, heads):
    method, batch = build(name)
    other, _ = build("concat", objective__unimodal_supervision=heads)
    found, expected = method.losses(batch, STEP), other.losses(batch, STEP)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["dynamics", "gmu", "unis_mmc", "vcdn", "centralnet"])
def test_samples_that_lack_a_modality_have_finite_losses_and_gradients(name):
    method, batch = build(name)
    present = torch.tensor([True, False, True, True, False, True, True, True, True])
    inputs = {**batch.inputs, "a": Partial(batch.inputs["a"], present)}
    losses = method.losses(Batch.of(inputs, batch.labels), Step(0, 0, 1, 0))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
