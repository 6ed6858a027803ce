"""Cooperative learning equals its definition: a least-squares problem with rows for the penalties."""

import itertools

import numpy as np
import pytest

from m3col.evaluation.cooperative import Cooperative


def slow_twin(blocks, targets, apply, *, rho, penalty):
    """The rows of the data, of each pair of modalities, and of each weight, as one least-squares problem."""
    means = [block.mean(axis=0) for block in blocks]
    centred = [block - mean for block, mean in zip(blocks, means, strict=True)]
    rows, values = [np.concatenate(centred, axis=1)], [targets - targets.mean(axis=0)]
    widths = [block.shape[1] for block in blocks]
    for a, b in itertools.combinations(range(len(blocks)), 2):
        parts = [np.zeros((len(targets), width)) for width in widths]
        parts[a], parts[b] = -centred[a], centred[b]
        rows.append(np.sqrt(rho) * np.concatenate(parts, axis=1))
        values.append(np.zeros_like(targets))
    rows.append(np.sqrt(penalty) * np.eye(sum(widths)))
    values.append(np.zeros((sum(widths), targets.shape[1])))
    weights = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    moved = np.concatenate([block - mean for block, mean in zip(apply, means, strict=True)], axis=1)
    return moved @ weights + targets.mean(axis=0)


@pytest.mark.parametrize(("rho", "penalty"), [(0.0, 0.3), (0.7, 0.3), (5.0, 2.0)])
def test_it_minimises_its_definition(rho, penalty):
    rng = np.random.default_rng(0)
    blocks, apply = ([rng.normal(size=(n, width)) for width in (3, 5, 2)] for n in (20, 6))
    targets = rng.normal(size=(20, 2))
    expected = slow_twin(blocks, targets, apply, rho=rho, penalty=penalty)
    np.testing.assert_allclose(
        Cooperative(blocks, targets).predict(apply, rho=rho, penalty=penalty), expected, rtol=1e-9
    )


def test_with_much_agreement_the_modalities_predict_the_same():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(50, 1))
    blocks = [
        np.concatenate([signal + 0.1 * rng.normal(size=(50, 1)), rng.normal(size=(50, 2))], axis=1) for _ in range(2)
    ]
    alone = [
        [blocks[0], np.tile(blocks[1].mean(axis=0), (50, 1))],
        [np.tile(blocks[0].mean(axis=0), (50, 1)), blocks[1]],
    ]
    model = Cooperative(blocks, signal)

    def gap(rho):
        first, second = (model.predict(part, rho=rho, penalty=0.1) for part in alone)
        return float(((first - second) ** 2).mean())

    assert gap(100.0) < gap(1.0) < gap(0.0) and gap(100.0) < 0.3 * gap(0.0)
