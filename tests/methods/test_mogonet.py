"""MOGONET against a twin of plain loops, its inductive form, and what it refuses."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from m3col import load, train
from m3col.checks.resolve import check_against_data
from m3col.config import loading
from m3col.data.arrays import from_arrays
from m3col.data.splits import Fold
from m3col.distributed import RankContext
from m3col.errors import InputError
from m3col.inputs.specs import Partial
from m3col.inputs.tables import TableSource
from m3col.methods import registry
from m3col.methods.batch import Batch
from m3col.methods.mogonet import MOGONET
from m3col.methods.supervised import FUSED
from m3col.models.graph import GraphEncoder, cosines, largest_distance
from m3col.tasks import registry as tasks
from m3col.training import checkpoint
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.methods.test_contract import STEP, build
from tests.methods.test_fusions import cross_entropy, layer, sigmoid, times
from tests.support.helpers import tiny_config, tiny_data
from tune.config.resources import encoder_faults

DATA = tiny_data(classes=3, modalities=2)
OWN = {"method": "mogonet", "objective__store_training_rows": True, "model__dropout": 0.3}


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def reach(rows: list[list[float]], k: int) -> float:
    """The element k T of the sorted distances, from 0."""
    return sorted(1 - cosine(a, b) for a in rows for b in rows)[k * len(rows)]


def states(encoder: GraphEncoder, known: list[list[float]], new: list[list[float]], k: int) -> list[list[float]]:
    """The embeddings of `new`, of which those among `known` are left out of their own neighbours."""
    eps, hidden_known, hidden_new = reach(known, k), known, new

    def average(x: list[float], own: list[float], hidden: list[list[float]], module) -> list[float]:
        total, divisor, skipped = times(module.weight.detach(), own), 1.0, False
        for other, state in zip(known, hidden, strict=True):
            if other == x and not skipped:
                skipped = True
                continue
            weight = cosine(x, other)
            if 1 - weight > eps + 1e-9 or weight <= 0:
                continue
            message = times(module.weight.detach(), state)
            total, divisor = [t + weight * m for t, m in zip(total, message, strict=True)], divisor + weight
        values = [t / divisor + float(b) for t, b in zip(total, module.bias.detach(), strict=True)]
        return [value if value > 0 else 0.25 * value for value in values]

    for module in encoder.layers:
        after_new = [average(x, own, hidden_known, module) for x, own in zip(new, hidden_new, strict=True)]
        hidden_known = [average(x, own, hidden_known, module) for x, own in zip(known, hidden_known, strict=True)]
        hidden_new = after_new
    return hidden_new


def with_biases(encoder: GraphEncoder) -> GraphEncoder:
    """Biases are 0 at the start, where a twin would not see them."""
    for module in encoder.layers:
        torch.nn.init.normal_(module.bias)
    return encoder


@pytest.mark.parametrize("k", [2, 4])
def test_the_loss_again_with_loops(k):
    method, batch = build("mogonet", objective__neighbours=k, objective__graph_width=6)
    embeddings = {
        name: states(with_biases(method.encoders[name]), x.tolist(), x.tolist(), k) for name, x in batch.inputs.items()
    }
    total = 0.0
    for i in range(9):
        y = int(batch.labels[i])
        logits = [layer(method.heads[name], p[i]) for name, p in embeddings.items()]
        products = [math.prod(parts) for parts in itertools.product(*([sigmoid(z) for z in row] for row in logits))]
        below = [value if value > 0 else 0.25 * value for value in layer(method.products[0], products)]
        total += sum(cross_entropy(row, y) / 9 for row in [*logits, layer(method.products[2], below)])
    assert float(method.losses(batch, STEP)["loss"].detach()) == pytest.approx(total, rel=1e-9)
    # The edges are there: with an edge less the loss would be another one.
    assert all((method.encoders[name].weights > 0).any() for name in batch.inputs)


def encoder(rows: Tensor, *, k: int = 3, dropout: float = 0.0) -> GraphEncoder:
    torch.manual_seed(0)
    module = GraphEncoder(rows.shape[1], hidden=6, embedding_dim=5, neighbours=k, dropout=dropout).double()
    module.fit(rows)
    return with_biases(module).eval()


def rows_of(seed: int, count: int, columns: int = 4) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_new_samples_again_with_loops_and_alone_as_in_a_batch():
    known, new = rows_of(1, 8), rows_of(2, 5)
    new[1], new[3] = known[2], 0.0
    module = encoder(known)
    found = module(new)
    expected = torch.tensor(states(module, known.tolist(), new.tolist(), 3), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    alone = torch.cat([module(new[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module(known)[2], found[1], rtol=1e-12, atol=1e-12)  # a training sample counts as itself


def test_a_sample_that_is_there_twice_is_predicted_as_in_training():
    known = rows_of(1, 8)
    known[5] = known[2]
    module = encoder(known)
    whole = module(known)
    torch.testing.assert_close(module(known[[5, 2, 0]]), whole[[2, 2, 0]], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole[5], whole[2], rtol=1e-12, atol=1e-12)
    assert float(module.weights[2, 5]) == pytest.approx(1) and float(module.weights.diagonal().abs().sum()) == 0
    assert module.positions(known[[5, 0]] * torch.tensor([[1.0], [1.1]])).tolist() == [2, -1]


def test_the_largest_distance_leaves_k_minus_one_neighbours_in_the_mean():
    distances = 1 - cosines(rows_of(3, 20, 3).abs(), rows_of(3, 20, 3).abs())
    for k in (2, 5):
        close = distances <= largest_distance(distances, k)
        assert int(close.sum()) in (20 * k + 1, 20 * k + 2)  # the chosen element, and its mirror image
    assert (distances <= largest_distance(distances, 50)).all()
    assert largest_distance(distances, 2) == pytest.approx(sorted(distances.flatten().tolist())[40], abs=2e-9)


def test_edges_have_positive_weights_and_samples_of_zeros_have_none():
    module = encoder(torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 0.0], [1.0, 0.1]]).double(), k=4)
    assert module.largest > 1 and (module.weights >= 0).all()
    assert (module.weights > 0).tolist() == [
        [False, False, False, True],
        [False] * 4,
        [False] * 4,
        [True, *[False] * 3],
    ]


def test_batches_compute_what_the_full_batch_computes():
    method, batch = build("mogonet")
    whole = method.losses(batch, STEP)
    parts = [
        method.losses(Batch.of({m: x[at] for m, x in batch.inputs.items()}, batch.labels[at]), STEP)
        for at in (torch.tensor([7, 0, 4]), torch.tensor([1, 2, 3]), torch.tensor([8, 6, 5]))
    ]
    for name in whole:
        mean = torch.stack([part[name] for part in parts]).mean()
        assert mean.item() == pytest.approx(whole[name].item(), rel=1e-12)


def test_dropout_is_one_draw_for_a_sample_and_its_neighbours():
    module = encoder(rows_of(1, 8), dropout=0.5).train()
    torch.manual_seed(1)
    whole = module(module.rows)
    torch.manual_seed(1)
    assert torch.equal(module(module.rows[[3, 0]]), whole[[3, 0]])
    assert not torch.equal(module(module.rows), whole)


def test_the_fused_loss_trains_the_graphs_end_to_end_only_if_asked():
    for end_to_end in (False, True):
        method, batch = build("mogonet", objective__end_to_end=end_to_end)
        method.losses(batch, STEP)[f"ce_{FUSED}"].backward()
        assert all((p.grad is not None) == end_to_end for p in method.encoders.parameters())


def test_samples_that_lack_a_modality_are_not_in_its_graph():
    method, batch = build("mogonet")
    present = torch.tensor([True, False, True, True, False, True, True, True, True])
    inputs = {**batch.inputs, "a": Partial(batch.inputs["a"], present)}

    class Gaps(TableSource):
        def rows(self, index, draws=None):
            return Partial(super().rows(index, draws), present[index])

    method.fit_inputs({m: (Gaps if m == "a" else TableSource)(x) for m, x in batch.inputs.items()})
    assert torch.equal(method.encoders["a"].rows, batch.inputs["a"][present])
    losses = method.losses(Batch.of(inputs, batch.labels), STEP)
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())
    other = {**batch.inputs, "a": Partial(torch.where(present[:, None], batch.inputs["a"], 9.0), present)}
    assert torch.equal(method.losses(Batch.of(other, batch.labels), STEP)["loss"], losses["loss"])


def trained(config, *, epochs: int) -> LockstepTrainer:
    count = len(DATA.train)
    job = TrainingJob(
        pool=DATA.train, folds=[Fold(np.arange(10, count), np.arange(10))], features=DATA.features,
        task=tasks.of(config, DATA.classes),
    )  # fmt: skip
    training = LockstepTrainer(config, job)
    training.advance(epochs)
    return training


@pytest.mark.parametrize("size", [None, 7])
def test_a_resumed_training_equals_one_that_was_not_interrupted(tmp_path, size):
    config = tiny_config(**OWN, train__batch_size=size)
    whole, first = trained(config, epochs=6), trained(config, epochs=3)
    checkpoint.write_training(tmp_path / "state", first)
    assert "training samples" in json.loads((tmp_path / "state" / "checkpoint.json").read_text())["notice"]
    second = trained(config, epochs=0)
    checkpoint.restore_training(tmp_path / "state", second)
    second.advance(6)
    assert [r.metrics for r in second.history] == [r.metrics for r in whole.history]
    stored = whole.trainers[0].state()
    assert all(torch.equal(value, stored[name]) for name, value in second.trainers[0].state().items())
    assert len(stored["weights.encoders.view_0.rows"]) == len(DATA.train) - 10


def test_a_checkpoint_predicts_alone_what_it_predicts_in_a_batch_and_says_what_it_has(tmp_path):
    overrides = {key.replace("__", "."): value for key, value in OWN.items()} | {"train.epochs": 4}
    result = train(data=DATA, overrides=overrides, runs=tmp_path, tracking_uri="none")
    model = load(result.checkpoint)
    whole = model.predict_proba(DATA.test.inputs)
    for i in (0, 7):
        one = model.predict_proba({name: x[i : i + 1] for name, x in DATA.test.inputs.items()})
        np.testing.assert_allclose(one[0], whole[i], rtol=1e-5)
    assert "all training samples" in model.notice and model.notice in model._repr_html_()
    checkpoint.join_models(tmp_path / "joined", [result.checkpoint, result.checkpoint])
    joined = load(tmp_path / "joined")
    assert joined.notice == model.notice
    np.testing.assert_array_equal(joined.predict_proba(DATA.test.inputs), whole)
    assert train(data=DATA, overrides={"method": "vcdn", "train.epochs": 1}, runs=tmp_path,
                 tracking_uri="none").predictor.notice == ""  # fmt: skip


def test_training_samples_are_predicted_with_what_training_computed():
    training = trained(tiny_config(**{**OWN, "model__dropout": 0.0}), epochs=2)
    trainer = training.trainers[0]
    encoders = trainer.method.encoders
    rows = {name: encoders[name].rows for name in DATA.modalities}
    whole = trainer.method.eval().logits(rows)[FUSED]
    alone = trainer.method.logits({name: x[4:5] for name, x in rows.items()})[FUSED]
    torch.testing.assert_close(alone[0], whole[4], rtol=1e-5, atol=1e-6)


def faults(samples, **settings) -> list[str]:
    raw = {"method": "mogonet", "data": {"name": "arrays"}, "validation": {"kind": "none"}, **settings}
    return check_against_data(loading.load(raw), data=samples)[1]


ALLOWED = {"objective": {"store_training_rows": True}}


def test_training_samples_are_stored_only_if_that_is_allowed():
    (line,) = faults(DATA)
    assert "objective.store_training_rows must be true" in line and "every checkpoint has their values" in line
    assert "set objective.store_training_rows=true" in line
    assert faults(DATA, **ALLOWED) == []
    with pytest.raises(InputError, match="store_training_rows must be true"):
        trained(tiny_config(method="mogonet"), epochs=1)


def test_what_it_cannot_have_is_refused_all_at_once():
    texts = [f"text {number}" for number in range(12)]
    inputs = {"a": np.random.default_rng(0).normal(size=(12, 3)), "words": texts}
    lines = faults(
        from_arrays(inputs, np.arange(12) % 2), data={"name": "arrays", "numeric": {"augment": "noise"}},
        model={"compile": True, "numeric": {"tokens": "features"}, "text": {"pretrained": False}},
    )  # fmt: skip
    for part in (
        "store_training_rows must be true", "takes numeric tables alone, but the data has words (text)",
        "data.numeric.augment must be none", "model.compile must be false", "model.numeric must be left out",
    ):  # fmt: skip
        assert sum(part in line for line in lines) == 1, part
    many = {f"m{number}": np.random.default_rng(number).normal(size=(40, 3)) for number in range(4)}
    (line,) = faults(from_arrays(many, np.arange(40) % 10), **ALLOWED)
    assert "10 ^ 4 is 10000; nearest valid: 3 modalities" in line
    with pytest.raises(InputError, match="neighbours must be >= 1, but got 0"):
        encoder(rows_of(0, 5), k=0)


def test_one_worker_trains_it_with_any_number_of_shards():
    config = tiny_config(**OWN)
    with pytest.raises(InputError, match="is trained by one worker, but got 2; nearest valid: 1"):
        FoldTrainer(config, DATA.train, features=DATA.features, task=tasks.build(classes=3), ranks=RankContext(0, 2))
    prepared = check_against_data(config, data=DATA)[0]
    assert prepared is not None and encoder_faults(prepared, 1) == []
    (line,) = encoder_faults(prepared, 2)
    assert line == "workers: method 'mogonet' is trained by one worker, but got 2; nearest valid: 1"
    one, three = (trained(tiny_config(**OWN, train__shards=shards), epochs=2).history for shards in (1, 3))
    assert [r.metrics for r in one] == [r.metrics for r in three]


def test_a_method_of_any_other_kind_takes_nothing_of_the_training_fold():
    others = [registry.load(name) for name in registry.names() if registry.load(name) is not MOGONET]
    assert all(method.several_workers and method.checkpoint_notice(tiny_config()) == "" for method in others)
