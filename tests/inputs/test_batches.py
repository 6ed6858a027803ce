"""Batches of images and texts against a slow reference, and the order of batches by length."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from m3col.augmentation import images as augment
from m3col.augmentation import registry
from m3col.augmentation.draws import Draws
from m3col.data.columns import MediaColumn
from m3col.data.images import cache
from m3col.inputs.base import Placement
from m3col.inputs.batches import ahead
from m3col.inputs.images import ImageTransform
from m3col.inputs.texts import TokenSource, by_length

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(40, 30, 3), (30, 45, 3), (32, 32, 3)]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(draw.integers(0, 255, size, dtype=np.uint8)).save(paths[-1])
    return MediaColumn.of("image", paths)


def source(records, size=16, augment="none", **place):
    return ImageTransform(size, augment).source(records, Placement(CPU, torch.float64, **place))


def test_without_draws_the_middle_is_cut(images):
    batch = source(images).rows(torch.tensor([2, 0]))
    assert batch.shape == (2, 3, 16, 16)
    table = cache.decoded(images, 18)
    for row, number in enumerate((2, 0)):
        whole = table[number]
        top, left = (whole.shape[0] - 16) // 2, (whole.shape[1] - 16) // 2
        for y in range(16):
            for x in range(16):
                expected = torch.tensor(whole[top + y, left + x].astype(float) / 255)
                assert torch.equal(batch[row, :, y, x], expected)


def fixed(*numbers):
    """Draws that are given, not drawn."""
    return SimpleNamespace(uniform=lambda width: np.array([numbers])[:, :width])


def test_draws_move_and_mirror_the_cut(images):
    whole = cache.decoded(images, 18)[0]
    made = source(images[:1], augment="crop_flip")
    corner = made.rows(slice(None), fixed(0.0, 0.0, 0.9))[0]
    assert torch.equal(corner, torch.tensor(whole[:16, :16].transpose(2, 0, 1).astype(float) / 255))
    other = made.rows(slice(None), fixed(0.999, 0.999, 0.1))[0]
    expected = whole[-16:, -16:][:, ::-1].transpose(2, 0, 1).astype(float) / 255
    assert torch.equal(other, torch.tensor(expected))
    still = source(images[:1], augment="flip").rows(slice(None), fixed(0.9, 0.9, 0.9))[0]
    assert torch.equal(still, source(images[:1]).rows(slice(None))[0])


def test_colours_and_blur_change_the_square_in_the_order_of_the_list(images):
    draws = Draws({"seed": 0, "fold": 0, "epoch": 1, "step": 0}, "image", "", 3, slice(0, 3))
    plain = source(images).rows(slice(None))
    for names in (["grey", "jitter"], ["jitter", "grey"]):
        expected = plain
        for name in names:
            expected = getattr(augment, name)(expected, registry.parse(name, kind="image")[0].settings, draws)
        assert torch.equal(source(images, augment=names).rows(slice(None), draws), expected)
        assert not torch.equal(expected, plain)
        assert torch.equal(source(images, augment=names).rows(slice(None)), plain)
    assert source(images, augment="simclr").rows(slice(0, 0), draws).shape == (0, 3, 16, 16)


def test_batches_are_the_same_with_and_without_the_cache(images):
    assert torch.equal(source(images).rows(slice(None)), source(images, cached=False).rows(slice(None)))


def test_texts_are_padded_to_the_longest_of_the_batch():
    rows = [[5, 6, 7], [8], [9, 1, 2, 3]]
    records = MediaColumn.of("text", [" ".join(map(str, row)) for row in rows])
    table = cache.encoded(
        records, lambda texts: [np.array(text.split(), dtype=np.int32) for text in texts], settings="numbers"
    )
    made = TokenSource(table, records[np.array([2, 0, 1])].at, CPU, pad=99)
    batch = made.rows(torch.tensor([1, 2]))
    assert batch.ids.tolist() == [[5, 6, 7], [8, 99, 99]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert made.lengths().tolist() == [4, 3, 1]
    # Compiled encoders see few lengths; none is longer than the encoder takes.
    rounded = TokenSource(table, records.at, CPU, pad=99, multiple=4, longest=6)
    assert rounded.rows(torch.tensor([1])).ids.tolist() == [[8, 99, 99, 99]]
    assert rounded.rows(torch.tensor([1])).mask.tolist() == [[True, False, False, False]]
    cut = TokenSource(table, records.at, CPU, pad=99, multiple=32, longest=6)
    assert cut.rows(slice(None)).ids.shape == (3, 6)


def test_batches_by_length_hold_every_sample_once_and_pad_less():
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 100, 1003)
    order = draw.permutation(1003)
    reordered = by_length(order, lengths, 16, np.random.default_rng(2), buckets=10)
    assert sorted(reordered.tolist()) == list(range(1003))

    def padded(index):
        return sum(int(lengths[index[at : at + 16]].max()) * len(index[at : at + 16]) for at in range(0, 1003, 16))

    assert padded(reordered) < 0.75 * padded(order)
    again = by_length(order, lengths, 16, np.random.default_rng(2), buckets=10)
    assert np.array_equal(reordered, again)
    firsts = [lengths[reordered[at]] for at in range(0, 992, 16)]
    assert firsts != sorted(firsts)  # batches are shuffled, so that an epoch does not begin with the short ones


def test_items_made_ahead_come_in_order_from_another_thread():
    seen = []

    def items():
        for number in range(5):
            seen.append(threading.get_ident())
            yield number

    assert list(ahead(items())) == [0, 1, 2, 3, 4]
    assert set(seen) != {threading.get_ident()}


def test_what_fails_ahead_fails_here():
    def items():
        yield 1
        raise ValueError("broken")

    iterator = ahead(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken"):
        list(iterator)
