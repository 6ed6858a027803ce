"""Augmentations of tables and sequences against plain loops, and their shares."""

import math

import numpy as np
import pytest
import torch

from m3col.augmentation import arrays
from m3col.augmentation.draws import Draws
from m3col.augmentation.settings import ConsecutiveDrop, Drop, InputMixup, Noise, OneOf, Permute, Window

N, L, F = 6, 7, 2
LENGTHS = np.array([7, 1, 4, 7, 5, 2])


def draws(n=N, rows=None, modality="x"):
    return Draws({"seed": 0, "fold": 0, "epoch": 1, "step": 0}, modality, "", n, rows or slice(0, n))


@pytest.fixture(params=["table", "sequences"])
def case(request):
    """x, and the lengths of its sequences; None for a table."""
    numbers = torch.rand((N, L, F), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    if request.param == "table":
        return numbers[:, :, 0], None
    for row, length in enumerate(LENGTHS):
        numbers[row, length:] = 0
    return numbers, LENGTHS


def steps(x, lengths, row):
    return int(x.shape[1] if lengths is None else lengths[row])


def keys(made, lengths, name):
    return made.uniform(L, name) if lengths is None else made.of_steps(lengths, name)


def test_noise_is_added_to_every_number_of_the_chosen(case):
    x, lengths = case
    made = arrays.noise(x, Noise(sd=0.3, p=0.5), draws(), lengths=lengths)
    chosen = draws().coin(0.5, "noise")
    assert 0 < chosen.sum() < N
    numbers = draws().normal(L, "noise") if lengths is None else draws().of_steps(lengths, "noise", width=F, fill=0.0)
    for row in range(N):
        for step in range(L):
            added = numbers[row, step] if chosen[row] and step < steps(x, lengths, row) else 0.0
            assert made[row, step].numpy() == pytest.approx(x[row, step].numpy() + 0.3 * added, abs=1e-12)


def test_drop_zeroes_the_steps_with_the_smallest_numbers(case):
    x, lengths = case
    made = arrays.drop(x, Drop(share=[0.2, 0.8], p=0.6), draws(), lengths=lengths)
    chosen, shares = draws().coin(0.6, "drop"), draws().uniform(1, "drop/share")[:, 0]
    numbers = keys(draws(), lengths, "drop")
    assert 0 < chosen.sum() < N
    for row in range(N):
        length = steps(x, lengths, row)
        dropped = sorted(range(length), key=lambda step, row=row: numbers[row, step])
        dropped = dropped[: math.floor((0.2 + 0.6 * shares[row]) * length)] if chosen[row] else []
        for step in range(L):
            expected = torch.zeros_like(x[row, step]) if step in dropped else x[row, step]
            assert torch.equal(made[row, step], expected)


@pytest.mark.parametrize("keeps", [False, True])
def test_neighbours_are_dropped_or_kept(case, keeps):
    x, lengths = case
    name = "crop" if keeps else "consecutive_drop"
    settings = (Window if keeps else ConsecutiveDrop)(share=[0.3, 0.9], p=0.7)
    made = getattr(arrays, name)(x, settings, draws(), lengths=lengths)
    chosen, shares = draws().coin(0.7, name), draws().uniform(1, f"{name}/share")[:, 0]
    places = draws().uniform(1, f"{name}/start")[:, 0]
    assert 0 < chosen.sum() < N
    for row in range(N):
        length = steps(x, lengths, row)
        wanted = (0.3 + 0.6 * shares[row]) * length
        count = math.ceil(wanted) if keeps else math.floor(wanted)
        start = math.floor(places[row] * (length - count + 1))
        window = range(start, start + count)
        assert not keeps or count >= 1
        for step in range(L):
            zero = chosen[row] and step < length and ((step in window) != keeps)
            assert torch.equal(made[row, step], torch.zeros_like(x[row, step]) if zero else x[row, step])


def test_permute_sorts_the_steps_by_their_numbers(case):
    x, lengths = case
    made = arrays.permute(x, Permute(p=0.4), draws(), lengths=lengths)
    chosen, numbers = draws().coin(0.4, "permute"), keys(draws(), lengths, "permute")
    assert 0 < chosen.sum() < N
    for row in range(N):
        length = steps(x, lengths, row)
        order = sorted(range(length), key=lambda step, row=row: numbers[row, step]) if chosen[row] else range(length)
        assert torch.equal(made[row], x[row][[*order, *range(length, L)]])


def test_mixup_takes_samples_of_the_training_fold():
    whole = torch.rand((20, L), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = whole[:N]
    made = arrays.input_mixup(x, InputMixup(alpha=0.5, p=0.7), draws(), count=20, others=lambda at: whole[at])
    chosen, lam = draws().coin(0.7, "input_mixup"), draws().beta(0.5, "input_mixup")
    partner = draws().uniform(1, "input_mixup")[:, 0]
    assert 0 < chosen.sum() < N
    for row in range(N):
        other = whole[math.floor(partner[row] * 20)]
        expected = lam[row] * x[row] + (1 - lam[row]) * other if chosen[row] else x[row]
        assert made[row].numpy() == pytest.approx(expected.numpy(), abs=1e-12)


def test_shares_and_moments_of_many_samples():
    n, width = 3000, 20
    x = torch.ones((n, width), dtype=torch.float64)
    noisy = arrays.noise(x, Noise(), draws(n)) - x
    chosen = (noisy != 0).any(1)
    assert chosen.double().mean() == pytest.approx(0.5, abs=0.03)
    assert noisy[chosen].mean() == pytest.approx(0, abs=0.003) and noisy[chosen].std() == pytest.approx(0.1, abs=0.002)
    dropped = (arrays.drop(x, Drop(p=1.0), draws(n)) == 0).double().mean(1)
    assert (
        dropped.min() == 0 and dropped.max() == pytest.approx(0.75) and dropped.mean() == pytest.approx(0.375, abs=0.01)
    )
    kept = (arrays.crop(x, Window(p=1.0), draws(n)) == 1).double().mean(1)
    assert kept.min() == pytest.approx(0.1) and kept.max() == 1 and kept.mean() == pytest.approx(0.565, abs=0.02)


def test_modalities_share_the_choice_of_samples_where_they_are_told_to():
    x = torch.ones((200, L), dtype=torch.float64)
    made = {
        (name, shared): arrays.drop(x, Drop(share=[0.8, 0.8], shared=shared), draws(200, modality=name)) == 0
        for name in ("x", "y")
        for shared in (True, False)
    }
    changed = {key: dropped.any(1).tolist() for key, dropped in made.items()}
    assert changed["x", True] == changed["y", True] and changed["x", False] != changed["y", False]
    assert not torch.equal(made["x", True], made["y", True])  # other steps in each modality


@pytest.mark.parametrize(("function", "settings"), [
    (arrays.noise, Noise()), (arrays.drop, Drop()), (arrays.consecutive_drop, ConsecutiveDrop()),
    (arrays.permute, Permute()), (arrays.crop, Window()),
])  # fmt: skip
def test_two_ranks_get_the_rows_of_one_and_a_rank_may_have_none(case, function, settings):
    x, lengths = case
    whole = function(x, settings, draws(), lengths=lengths)
    assert torch.equal(whole, function(x, settings, draws(), lengths=lengths))
    for rows in (slice(0, 2), slice(2, N), slice(N, N)):
        own = None if lengths is None else lengths[rows]
        assert torch.equal(function(x[rows], settings, draws(rows=rows), lengths=own), whole[rows])


def test_one_of_applies_to_each_sample_what_it_would_have_got_alone(case):
    x, lengths = case
    choices = [
        ("none", None),
        ("permute", Permute(p=1.0)),
        ("noise", Noise(p=1.0)),
        ("drop", Drop(share=[0.4, 0.4], p=1.0)),
    ]
    spec = ["none", {"permute": {"p": 1.0}}, {"noise": {"p": 1.0}}, {"drop": {"share": [0.4, 0.4], "p": 1.0}}]
    made = arrays.one_of(x, OneOf(of=spec), draws(), lengths=lengths)
    drawn = draws().uniform(1, "one_of")[:, 0]
    seen = set()
    for row in range(N):
        name, settings = choices[int(drawn[row] * 4)]
        seen.add(name)
        alone = x if name == "none" else getattr(arrays, name)(x, settings, draws(), lengths=lengths)
        assert torch.equal(made[row], alone[row])
    assert len(seen) > 2
    own = None if lengths is None else lengths[2:5]
    part = arrays.one_of(x[2:5], OneOf(of=spec), draws(rows=slice(2, 5)), lengths=own)
    assert torch.equal(part, made[2:5])  # another rank
    counts = np.bincount((draws(4000).uniform(1, "one_of")[:, 0] * 4).astype(int)) / 4000
    assert np.allclose(counts, 0.25, atol=0.03)
