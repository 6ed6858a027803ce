"""The losses of the methods that were compared with CoMM, again with loops over samples."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from m3col import tasks
from m3col.methods import registry
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.methods.factorcl import GIVEN_CLUB, GIVEN_NCE, OWN, SHARED_CLUB, SHARED_NCE
from tests.support.helpers import tiny_config

STEP = Step(seed=0, fold=0, epoch=1, step=0)
N = 6
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def build(name: str, features: dict[str, int], **changes):
    config = tiny_config(method=name, **({"data__modalities": ["x"]} if len(features) == 1 else {}), **changes)
    torch.manual_seed(0)
    method = registry.load(name)(config, features=features, task=tasks.build(classes=3)).double()
    draw = torch.Generator().manual_seed(1)
    views = {
        view: {m: torch.randn(N, count, generator=draw, dtype=torch.float64) for m, count in features.items()}
        for view in method.views
    }
    return method, Batch(views, N, LABELS)


def projected(method, batch) -> dict[tuple[str, str], Tensor]:
    return {
        (view, name): method.projections[name](method.encoders[name](rows))
        for view, inputs in batch.views.items()
        for name, rows in inputs.items()
    }


def ntx(a: Tensor, b: Tensor, tau: float) -> float:
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    total = 0.0
    for one, other in ((a, b), (b, a)):
        for i in range(N):
            rest = [math.exp(float(one[i] @ other[j]) / tau) for j in range(N)]
            rest += [math.exp(float(one[i] @ one[j]) / tau) for j in range(N) if j != i]
            total += float(one[i] @ other[i]) / tau - math.log(sum(rest))
    return -total / (2 * N)


def clip(a: Tensor, b: Tensor, scale: float) -> float:
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    total = 0.0
    for one, other in ((a, b), (b, a)):
        for i in range(N):
            total -= scale * float(one[i] @ other[i])
            total += math.log(sum(math.exp(scale * float(one[i] @ other[j])) for j in range(N)))
    return total / (2 * N)


def supcon(views: list[Tensor], temperature: float) -> float:
    z, labels = torch.cat(views), LABELS.repeat(len(views)).tolist()
    total = 0.0
    for r in range(len(z)):
        others = math.log(sum(math.exp(float(z[r] @ z[q]) / temperature) for q in range(len(z)) if q != r))
        positive = [p for p in range(len(z)) if p != r and labels[p] == labels[r]]
        total -= sum(float(z[r] @ z[p]) / temperature - others for p in positive) / len(positive)
    return total / len(z)


SMALL = {"objective__projector_hidden": 8, "objective__projector_dim": 4}


@torch.no_grad()
def expected_loss(name: str, method, batch) -> float:
    rows = projected(method, batch)
    clean = [rows[CLEAN, m] for m in method.modalities] if CLEAN in method.views else []
    if name == "cross":
        return clip(*clean, scale=1 / 0.07)
    if name == "cross_self":
        within = [ntx(rows["a", m], rows["b", m], 0.1) for m in method.modalities]
        return ntx(*clean, 0.1) + 0.7 / 2 * sum(within)
    if name == "simclr":
        return ntx(rows["a", "x"], rows["b", "x"], 0.1)
    if name == "slip":
        a, b = (method.projector(method.encoders["x"](batch.views[view]["x"])) for view in ("a", "b"))
        return clip(*clean, scale=1 / 0.07) + 0.7 * ntx(a, b, 0.1)
    if name == "cmc":
        return sum(ntx(clean[i], clean[j], 0.1) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    return supcon(clean, 0.5)


@pytest.mark.parametrize(
    ("name", "features", "changes"),
    [
        ("cross", {"x": 4, "y": 3}, {"objective__projector_dim": 4}),
        ("cross_self", {"x": 4, "y": 3}, SMALL | {"objective__self_weight": 0.7}),
        ("simclr", {"x": 4}, SMALL),
        ("slip", {"x": 4, "y": 3}, SMALL | {"objective__self_weight": 0.7}),
        ("cmc", {"x": 4, "y": 3, "z": 5}, {"objective__projector_dim": 4}),
        ("supcon", {"x": 4, "y": 3, "z": 5}, {"objective__projector_dim": 4}),
    ],
)
def test_the_loss_again_with_loops(name, features, changes):
    method, batch = build(name, features, **changes)
    found = method.losses(batch, STEP)["loss"]
    assert found.item() == pytest.approx(expected_loss(name, method, batch), rel=1e-9)


@torch.no_grad()
def test_supervised_comm_compares_unit_rows_of_two_fused_embeddings():
    changes = {"objective__temperature": 0.2, "objective__fusion_heads": 2, "model__embedding_dim": 8}
    method, batch = build("comm_supcon", {"x": 4, "y": 3}, **changes)
    rows = [functional.normalize(method.features(batch.views[view]), dim=1) for view in ("a", "b")]
    assert not torch.allclose(*rows)
    assert method.losses(batch, STEP)["loss"].item() == pytest.approx(supcon(rows, 0.2), rel=1e-9)


def nce(scores: Tensor) -> Tensor:
    """scores[j, i] of a_j and b_i."""
    terms = [scores[i, i] - torch.log(sum(torch.exp(scores[j, i]) for j in range(N)) / N) for i in range(N)]
    return torch.stack(terms).mean()


def club(scores: Tensor) -> Tensor:
    own = torch.stack([scores[i, i] for i in range(N)]).mean()
    return own - torch.stack([scores[j, i] for i in range(N) for j in range(N)]).mean()


def all_pairs(critic, a: Tensor, b: Tensor) -> Tensor:
    """Scores [j, i] of concatenated pairs, one by one."""
    weight = torch.cat([critic.of_a.weight, critic.of_b.weight], dim=1)
    rows = [[critic.rest(weight @ torch.cat([a[j], b[i]]) + critic.of_a.bias)[0] for i in range(N)] for j in range(N)]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("name", ["factorcl", "factorcl_sup"])
def test_factorcl_again_with_a_pair_at_a_time_and_its_gradients_in_two_steps(name):
    method, batch = build(name, {"x": 4, "y": 3}, objective__critic_hidden=5)
    method.losses(batch, STEP)["loss"].backward()
    found = {path: value.grad.clone() for path, value in method.named_parameters()}

    def head(m: str, term: str, view: str = CLEAN) -> Tensor:
        return method.projections[m][term](method.encoders[m](batch.views[view][m]))

    def given(m: str, term: str) -> Tensor:
        code = functional.one_hot(LABELS, 3).double()
        return torch.cat([head(m, term), head(m, term, "a") if name == "factorcl" else code], dim=1)

    def compared(m: str) -> Tensor:
        return head(m, OWN, "a") if name == "factorcl" else LABELS[:, None].double()

    def terms() -> tuple[Tensor, Tensor]:
        """L, and what the critics of the club terms minimise."""
        pairs = {t: (head("x", t), head("y", t)) for t in (SHARED_NCE, SHARED_CLUB)}
        pairs |= {t: (given("x", t), given("y", t)) for t in (GIVEN_NCE, GIVEN_CLUB)}
        scores = {t: all_pairs(method.critics[t], *pair) for t, pair in pairs.items()}
        lower = nce(scores[SHARED_NCE]) + nce(scores[GIVEN_NCE])
        lower = lower + sum(nce(all_pairs(method.own_critics[m], head(m, OWN), compared(m))) for m in ("x", "y"))
        bounds = club(scores[SHARED_CLUB]) + club(scores[GIVEN_CLUB]) - lower
        return bounds, -nce(scores[SHARED_CLUB]) - nce(scores[GIVEN_CLUB])

    bounds, fit = terms()
    of_club = tuple(f"critics.{term}." for term in (SHARED_CLUB, GIVEN_CLUB))
    for loss, chosen in ((bounds, False), (fit, True)):
        names = [path for path, _ in method.named_parameters() if path.startswith(of_club) == chosen]
        weights = [value for path, value in method.named_parameters() if path.startswith(of_club) == chosen]
        for path, gradient in zip(names, torch.autograd.grad(loss, weights, retain_graph=True), strict=True):
            torch.testing.assert_close(found[path], gradient, rtol=1e-8, atol=1e-12, msg=path)
    assert method.losses(batch, STEP)["bounds"].item() == pytest.approx(bounds.item(), rel=1e-9)
