"""Keys of draws: equal keys give equal draws in any process, different keys give different ones."""

import itertools

import pytest
import torch

from m3col.randomness import generator, torch_seed

KEY = {"seed": 3, "fold": 1, "epoch": 7, "step": 2, "shard": 0}


def first_draw(**change: object) -> int:
    return int(generator(**{**KEY, "purpose": "lambda", **change}).integers(2**63))  # type: ignore[arg-type]


def test_the_same_key_gives_the_same_draws_whatever_was_drawn_before():
    before = first_draw()
    first_draw(epoch=8)
    assert first_draw() == before


def test_every_part_of_the_key_matters():
    draws = [first_draw(), first_draw(purpose="probability")]
    draws += [first_draw(**{name: value + 1}) for name, value in KEY.items()]
    draws += [first_draw(fold=7, epoch=1), first_draw(seed=1, fold=3)]
    assert len(set(draws)) == len(draws)


def test_keys_of_a_small_grid_never_collide():
    grid = itertools.product(range(3), range(3), range(6), range(2), range(4))
    draws = [first_draw(seed=s, fold=f, epoch=e, step=t, shard=h) for s, f, e, t, h in grid]
    assert len(set(draws)) == 3 * 3 * 6 * 2 * 4


def test_large_seeds_are_not_confused_with_small_keys():
    """SeedSequence splits 2^32 into the words 0 and 1: unpadded, seed 2^32 could meet (seed 0, fold 1)."""
    assert first_draw(seed=2**32, fold=0) != first_draw(seed=0, fold=1)
    assert first_draw(seed=2**64 - 1) != first_draw(seed=2**32 - 1)


def test_seeds_are_the_same_in_every_process_and_on_every_machine():
    """Pinned: neither hash() nor the platform may enter."""
    assert torch_seed(seed=0, fold=0, epoch=0, purpose="weights") == 5217478014673719242
    assert torch_seed(seed=1, fold=2, epoch=3, purpose="dropout") == 1188433469200712799


def test_torch_accepts_the_seeds_and_they_differ_by_purpose():
    seeds = {torch_seed(seed=0, fold=f, epoch=e, purpose=p) for f in range(3) for e in range(9) for p in "ab"}
    assert len(seeds) == 54 and all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, True, None])
def test_bad_keys(value):
    with pytest.raises(ValueError, match=r"fold must be an integer in 0..2\^64 - 1, but got"):
        generator(**{**KEY, "fold": value, "purpose": "lambda"})
    with pytest.raises(ValueError, match=r"epoch must be an integer"):
        torch_seed(seed=0, fold=0, epoch=value, purpose="weights")
