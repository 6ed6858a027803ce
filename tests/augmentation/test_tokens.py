"""Masking of tokens: which, how many, and never the ends of a text."""

import numpy as np
import pytest

from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Mask
from m3col.augmentation.tokens import mask

CLS, SEP, MASK = 2, 3, 4


def draws(n, rows=None):
    return Draws({"seed": 0, "fold": 0, "epoch": 1, "step": 0}, "text", "", n, rows or slice(0, n))


def masked(texts, p, **options):
    made = mask(texts, Mask(p=p), options.get("draws") or draws(len(texts)), token=MASK, kept={0, CLS, SEP})
    assert all(row.dtype == np.int32 for row in made)
    return [row.tolist() for row in made]


TEXTS = [np.array([CLS, *range(10, 10 + length), SEP], np.int32) for length in (3, 1, 8, 5)]


def test_tokens_with_a_number_below_the_probability_are_masked():
    numbers = draws(4).of_steps(np.array([len(text) for text in TEXTS]), "mask")
    expected = [
        [
            MASK if token not in (CLS, SEP) and numbers[row, at] < 0.5 else token
            for at, token in enumerate(text.tolist())
        ]
        for row, text in enumerate(TEXTS)
    ]
    assert masked(TEXTS, 0.5) == expected and TEXTS[2].tolist() == [CLS, *range(10, 18), SEP]
    assert masked(TEXTS, 1.0) == [[CLS, *[MASK] * (len(text) - 2), SEP] for text in TEXTS]
    assert masked(TEXTS, 0.0) == [text.tolist() for text in TEXTS]


def test_the_probability_is_the_share_of_the_tokens():
    many = [np.array([CLS, *range(10, 60), SEP], np.int32)] * 200
    share = np.mean([[token == MASK for token in text[1:-1]] for text in masked(many, 0.15)])
    assert share == pytest.approx(0.15, abs=0.01)


def test_two_ranks_mask_what_one_masks():
    whole = masked(TEXTS, 0.5)
    assert [
        *masked(TEXTS[:1], 0.5, draws=draws(4, slice(0, 1))),
        *masked(TEXTS[1:], 0.5, draws=draws(4, slice(1, 4))),
    ] == whole
