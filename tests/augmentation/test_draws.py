"""Random numbers of augmentation: keyed by modality, view and position; the same on every rank."""

import numpy as np

from m3col import randomness
from m3col.augmentation.draws import Draws

KEY = {"seed": 3, "fold": 1, "epoch": 2, "step": 5}


def draws(rows=slice(0, 6), modality="x", view="a", **key):
    return Draws(KEY | key, modality, view, 6, rows)


def every(made, lengths):
    return {
        "uniform": made.uniform(4, "noise"),
        "shared": made.uniform(1, "noise", shared=True),
        "normal": made.normal(2, "noise"),
        "beta": made.beta(0.3, "input_mixup"),
        "coin": made.coin(0.5, "noise"),
        "steps": made.of_steps(lengths, "drop"),
        "wide": made.of_steps(lengths, "noise", width=2, fill=0.0),
    }


def test_ranks_draw_the_rows_of_the_whole_batch():
    lengths = np.array([3, 1, 4, 4, 2, 4])
    whole = every(draws(), lengths)
    for rows in (slice(0, 2), slice(2, 6), slice(6, 6)):
        part = every(draws(rows), lengths[rows])
        assert all(np.array_equal(part[name], whole[name][rows][:, : part[name].shape[1]]
                                  if name in ("steps", "wide") else whole[name][rows]) for name in whole)  # fmt: skip


def test_numbers_depend_on_every_part_of_the_key_and_on_nothing_else():
    first = draws().uniform(2, "blur")
    others = [
        draws(modality="y"), draws(view="b"), draws(view=""), draws(seed=4), draws(fold=0), draws(epoch=3),
        draws(step=6),
    ]  # fmt: skip
    drawn = [first, *(other.uniform(2, "blur") for other in others), draws().uniform(2, "grey")]
    assert len({numbers.tobytes() for numbers in drawn}) == len(drawn)
    again = draws()
    again.normal(3, "noise")
    assert np.array_equal(again.uniform(2, "blur"), first)
    shared = [draws(modality=name).coin(0.5, "noise", shared=True).tolist() for name in ("x", "y")]
    assert shared[0] == shared[1] and shared[0] != draws(view="b").coin(0.5, "noise", shared=True).tolist()


def test_the_numbers_of_crop_and_flip_are_those_of_version_0_1():
    old = randomness.generator(**KEY, purpose="augment/x").random((6, 3))
    assert np.array_equal(draws(view="").uniform(3), old)
    assert np.array_equal(draws().uniform(3), randomness.generator(**KEY, purpose="augment/x/a").random((6, 3)))


def test_samples_of_different_lengths_have_numbers_up_to_their_end():
    lengths = np.array([3, 1, 4, 4, 2, 4])
    made = draws().of_steps(lengths, "drop")
    for row, length in enumerate(lengths):
        own = randomness.generator(**KEY, shard=row, purpose="augment/x/a/drop/steps").random(length)
        assert made[row, :length].tolist() == own.tolist() and np.isinf(made[row, length:]).all()
    assert draws(slice(0, 0)).of_steps(lengths[:0], "drop").shape == (0, 0)
