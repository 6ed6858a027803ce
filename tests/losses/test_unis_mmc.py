"""UniS-MMC against a twin of plain loops, its gradient rule, and the cases where the formula is undefined."""

import itertools
import math

import pytest
import torch

from m3col.inputs.specs import Partial
from m3col.losses.unis_mmc import supervised_cosine, unis_mmc_loss
from m3col.methods.batch import Batch
from tests.methods.test_contract import STEP, build


def cosine(a: list[float], b: list[float]) -> float:
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length


def twin(pairs: list[tuple[float, bool]], temperature: float) -> float:
    """`pairs`: the cosine of each sample, and whether one of its predictions is right."""
    total = sum(math.exp(c / temperature) for c, _ in pairs)
    part = sum(math.exp(c / temperature) for c, right in pairs if right)
    return -math.log(part / total) if part else 0.0


@pytest.mark.parametrize("lacking", [False, True])
def test_the_method_again_with_loops(lacking):
    method, batch = build("unis_mmc", objective__temperature=0.5, objective__contrast_weight=0.3)
    present = torch.tensor([not (lacking and i in (1, 4)) for i in range(9)])
    inputs = {**batch.inputs, "a": Partial(batch.inputs["a"], present)} if lacking else batch.inputs
    embeddings = method.encode(inputs)
    logits = method.classify(embeddings)
    expected, kinds = 0.0, set()
    for a, b in itertools.combinations("abc", 2):
        pairs = []
        for i in range(9):
            if a == "a" and not present[i]:
                continue
            right = [int(logits[m][i].argmax()) == int(batch.labels[i]) for m in (a, b)]
            kinds.add(sum(right))
            pairs.append((cosine(embeddings[a][i].tolist(), embeddings[b][i].tolist()), any(right)))
        expected += twin(pairs, 0.5)
    assert {0, 1} <= kinds and expected > 0
    parts = method.losses(Batch.of(inputs, batch.labels), STEP)
    assert float(parts["mmc"]) == pytest.approx(expected, rel=1e-9)
    heads = sum(value for name, value in parts.items() if name.startswith("ce_"))
    assert float(parts["loss"]) == pytest.approx(float(heads) + 0.3 * expected, rel=1e-9)


def test_of_a_sample_with_one_right_prediction_the_right_embedding_stays():
    torch.manual_seed(0)
    a, b = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a_right, b_right = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    supervised_cosine(a, b, a_right, b_right).sum().backward()
    moved = [(grad.abs().sum(dim=1) > 0).tolist() for grad in (a.grad, b.grad)]
    assert moved == [[True, False, True, True], [True, True, False, True]]


@pytest.mark.parametrize(
    ("together", "counted"),
    [([0, 0, 0], [1, 1, 1]), ([1, 1, 1], [1, 1, 1]), ([1, 0, 0], [0, 1, 1]), ([1, 1, 1], [0] * 3)],
)
def test_without_anything_to_tell_apart_it_is_nothing_and_has_a_gradient(together, counted):
    cosines = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    masks = [torch.tensor(mask, dtype=torch.bool) for mask in (together, counted)]
    loss = unis_mmc_loss(cosines, *masks, temperature=0.1)
    loss.backward()
    assert float(loss) == 0 and torch.equal(cosines.grad, torch.zeros(3, dtype=torch.float64))


def test_it_pulls_right_samples_together_and_pushes_wrong_ones_apart():
    cosines = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    unis_mmc_loss(cosines, torch.tensor([1, 1, 0, 0]) > 0, torch.ones(4) > 0, temperature=0.07).backward()
    assert (cosines.grad[:2] < 0).all() and (cosines.grad[2:] > 0).all()
