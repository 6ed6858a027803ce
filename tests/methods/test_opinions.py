"""Methods that combine the predictions of single modalities, against twins of plain loops: TMC and late fusion."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln

from m3col import tasks
from m3col.checks.resolve import check_against_data
from m3col.config import loading
from m3col.data.arrays import from_arrays
from m3col.inputs.specs import Partial
from m3col.losses import evidential
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import FUSED
from tests.methods.test_contract import STEP, build


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def evidence_of(name: str, value: float) -> float:
    return {"softplus": softplus(value), "relu": max(value, 0.0), "exp": math.exp(min(value, 10.0))}[name]


def opinion_loss(evidence: list[float], y: int, weight: float) -> float:
    alpha = [value + 1 for value in evidence]
    others = [1.0 if k == y else alpha[k] for k in range(len(alpha))]
    loss = digamma(sum(alpha)) - digamma(alpha[y])
    divergence = gammaln(sum(others)) - gammaln(len(others))
    for one in others:
        divergence += -gammaln(one) + (one - 1) * (digamma(one) - digamma(sum(others)))
    return float(loss + weight * divergence)


def fused(opinions: list[list[float]]) -> list[float]:
    classes = len(opinions[0])
    return [
        classes * (math.prod(1 + opinion[k] / classes for opinion in opinions) - 1) for k in range(classes)
    ]  # fmt: skip


@pytest.mark.parametrize("evidence", ["softplus", "exp", "relu"])
@pytest.mark.parametrize(("epoch", "share"), [(1, 0.5), (3, 0.5), (6, 0.5), (1, 0.0)])
def test_the_loss_of_tmc_again_with_loops(evidence, epoch, share):
    method, batch = build("tmc", objective__evidence=evidence, objective__kl_share=share, objective__kl_weight=0.4)
    total, embeddings = 0.0, method.encode(batch.inputs)
    outputs = {name: head(embeddings[name]) for name, head in method.heads.items()}
    weight = 0.4 * min(1.0, epoch / max(1, round(6 * share)))
    for i in range(9):
        opinions = [[evidence_of(evidence, float(z)) for z in rows[i]] for rows in outputs.values()]
        y = int(batch.labels[i])
        total += sum(opinion_loss(opinion, y, weight) for opinion in [*opinions, fused(opinions)]) / 9
    assert float(method.losses(batch, Step(0, 0, epoch, 0))["loss"]) == pytest.approx(total, rel=1e-9)


def test_class_weights_weight_every_term_of_tmc_by_sample():
    method, batch = build("tmc")
    weights = [1.0, 5.0, 0.2]
    method.class_weight = torch.tensor(weights, dtype=torch.float64)
    parts = method.losses(batch, STEP)
    evidence = method.opinions(method.encode(batch.inputs), {})["a"]
    rows = [(weights[int(y)], opinion_loss(evidence[i].tolist(), int(y), 0.0)) for i, y in enumerate(batch.labels)]
    expected = sum(w * value for w, value in rows) / sum(w for w, _ in rows)
    assert float(parts["ce_a"]) == pytest.approx(expected, rel=1e-9)


def test_the_logits_of_tmc_are_the_mean_probabilities_of_its_dirichlet():
    method, batch = build("tmc")
    evidence = method.opinions(method.encode(batch.inputs), {})
    for name, logits in method.logits(batch.inputs).items():
        alpha = evidence[name] + 1
        torch.testing.assert_close(logits.softmax(1), alpha / alpha.sum(1, keepdim=True), rtol=1e-9, atol=0)


def test_etmc_adds_the_opinion_of_all_embeddings_together():
    method, batch = build("tmc", objective__pseudo_view=True)
    embeddings = method.encode(batch.inputs)
    together = method.pseudo_view(torch.cat([embeddings[name] for name in "abc"], dim=1))
    opinions = [method.heads[name](embeddings[name]) for name in "abc"] + [together]
    for i in range(9):
        rows = [[softplus(float(z)) for z in outputs[i]] for outputs in opinions]
        expected = [math.log(value + 1) for value in fused(rows)]
        assert method.logits(batch.inputs)[FUSED][i].tolist() == pytest.approx(expected, rel=1e-9)
    assert {"ce_pseudo_view", "kl_pseudo_view"} <= method.losses(batch, STEP).keys()


def test_the_name_of_the_further_opinion_is_refused_for_a_modality():
    draw = np.random.default_rng(0)
    data = from_arrays({name: draw.normal(size=(20, 3)) for name in ("a", "pseudo_view")}, np.arange(20) % 2)
    raw = {"method": "tmc", "data": {"name": "arrays"}, "validation": {"kind": "none"}}
    assert check_against_data(loading.load(raw), data=data)[1] == []
    (line,) = check_against_data(loading.load({**raw, "objective": {"pseudo_view": True}}), data=data)[1]
    assert "modality 'pseudo_view'" in line and "rename it" in line


@pytest.mark.parametrize("name", ["tmc", "late"])
def test_a_modality_that_a_sample_lacks_is_left_out(name):
    method, batch = build(name)
    present = torch.ones(9, dtype=torch.bool)
    present[[2, 5]] = False
    gaps = {**batch.inputs, "b": Partial(batch.inputs["b"], present)}
    whole, some = method.logits(batch.inputs), method.logits(gaps)
    torch.testing.assert_close(some[FUSED][present], whole[FUSED][present], rtol=1e-12, atol=0)
    probabilities = [whole[m].softmax(1) for m in "ac"]
    if name == "late":
        expected = torch.stack(probabilities).mean(0)[2]
    else:
        alpha = [1 + value for value in fused([(whole[m][2].exp() - 1).tolist() for m in "ac"])]
        expected = torch.tensor(alpha, dtype=torch.float64) / sum(alpha)
    torch.testing.assert_close(some[FUSED].softmax(1)[2], expected, rtol=1e-9, atol=0)
    losses = method.losses(Batch.of(gaps, batch.labels), STEP)
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_the_opinion_on_all_modalities_is_left_out_where_one_is_missing():
    method, batch = build("tmc", objective__pseudo_view=True)
    present = torch.arange(9) != 2
    gaps = {**batch.inputs, "b": Partial(batch.inputs["b"], present)}
    evidence = method.opinions(method.encode(gaps), {"b": present})
    assert (evidence["pseudo_view"][2] == 0).all() and (evidence["pseudo_view"][present] > 0).all()
    alone = evidential.fused_evidence(torch.stack([evidence["a"], evidence["c"]]))
    torch.testing.assert_close(evidence[FUSED][2], alone[2], rtol=1e-12, atol=0)


def test_late_trains_each_modality_alone_and_its_mean_if_asked():
    method, batch = build("late")
    parts = method.losses(batch, STEP)
    assert float(parts["loss"]) == pytest.approx(sum(float(parts[f"ce_{m}"]) for m in "abc"), rel=1e-12)
    method, batch = build("late", objective__fused_weight=0.3)
    logits, total = method.logits(batch.inputs), 0.0
    for i in range(9):
        y = int(batch.labels[i])
        rows = [[math.exp(float(z)) for z in logits[m][i]] for m in "abc"]
        own = [row[y] / sum(row) for row in rows]
        total += (sum(-math.log(p) for p in own) - 0.3 * math.log(sum(own) / 3)) / 9
    assert float(method.losses(batch, STEP)["loss"]) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("task", tasks.names())
def test_the_averaged_output_has_the_mean_prediction(task):
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 4, 5, generator=draw, dtype=torch.float64) * 4
    weights = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)[:, None, None].expand(3, 4, 1)
    built = tasks.build(task, 5)
    found = built.link(built.averaged(outputs, weights).numpy())
    np.testing.assert_allclose(found, (built.link(outputs[0].numpy()) + built.link(outputs[1].numpy())) / 2, rtol=1e-9)


def test_a_sample_without_any_modality_has_a_prediction():
    for name in ("tmc", "late"):
        method, batch = build(name)
        nowhere = torch.zeros(9, dtype=torch.bool)
        logits = method.logits({m: Partial(x, nowhere) for m, x in batch.inputs.items()})
        assert torch.isfinite(logits[FUSED]).all()
        if name == "tmc":
            assert torch.equal(logits[FUSED], torch.zeros(9, 3, dtype=torch.float64))
