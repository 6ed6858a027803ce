"""Texts in classes of similar length: the fewest tokens, the same embeddings, losses and gradients."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from m3col import tasks
from m3col.checks.resolve import resolve
from m3col.config import loading
from m3col.data.splits import pool
from m3col.errors import InputError
from m3col.inputs.specs import Partial, Sequences, with_partners
from m3col.methods.batch import Step
from m3col.models import length_classes
from m3col.training.fold_trainer import FoldTrainer
from tests.models.builders import batch, text_config, text_encoder
from tests.support import pairs


def computed(lengths: np.ndarray, classes: list) -> int:
    return sum(len(rows) * max(1, int(lengths[rows].max())) for rows in classes)


def fewest(lengths: np.ndarray, count: int) -> int:
    """By trying all borders in the order of lengths."""
    ordered, n = np.sort(lengths), len(lengths)
    return min(
        sum(max(1, int(ordered[low:high].max())) * (high - low) for low, high in itertools.pairwise((0, *cut, n)))
        for used in range(min(count, n))
        for cut in itertools.combinations(range(1, n), used)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_the_classes_compute_the_fewest_tokens(n, count):
    for seed in range(6):
        lengths = np.random.default_rng([n, count, seed]).integers(0, 12, n)
        classes = length_classes.split(lengths, count)
        assert sorted(np.concatenate(classes)) == list(range(n)) and len(classes) <= count
        assert all(len(rows) and (np.diff(rows) > 0).all() for rows in classes)
        assert computed(lengths, classes) == fewest(lengths, count)


def test_texts_of_one_length_are_one_class():
    assert [rows.tolist() for rows in length_classes.split(np.full(5, 4), 3)] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("kind", "pool_of"), [("bert", "cls"), ("roberta", "mean"), ("modernbert", "mean")])
def test_each_class_is_cut_to_its_longest_text_and_embeddings_keep_their_order(kind, pool_of, monkeypatch):
    plain = text_encoder(text_config(kind, pool=pool_of, options={"hidden_size": 32}), pad=1).eval()
    classed = text_encoder(text_config(kind, pool=pool_of, options={"hidden_size": 32}, length_classes=3), pad=1).eval()
    lengths = np.array([3, 9, 4, 9, 2])
    tokens = replace(batch(tuple(lengths), pad=1, types=True), lengths=lengths, padded=True)
    shapes: list[tuple[int, int, bool | None]] = []
    encode = classed._encode
    monkeypatch.setattr(
        classed, "_encode", lambda part: (shapes.append((*part.mask.shape, part.padded)), encode(part))[1]
    )
    with torch.no_grad():
        torch.testing.assert_close(classed(tokens), plain(tokens), rtol=0, atol=1e-6)
    assert shapes == [(1, 2, False), (2, 4, True), (2, 9, False)]


def test_the_length_of_a_mixture_is_at_most_that_of_the_longer_text():
    tokens = replace(batch((3, 9, 5, 7)), lengths=np.array([3, 9, 5, 7]))
    partner = np.array([1, 2, 3, 0])
    given = with_partners(Partial(tokens, torch.ones(4, dtype=torch.bool)), partner).rows
    assert given.mixed_lengths.tolist() == [9, 9, 7, 7] and given.lengths is tokens.lengths
    encoder = text_encoder(text_config())
    mixed = encoder.mix(given, torch.tensor(partner), torch.tensor([0.5, 1.0, 0.0, 0.2]))
    assert mixed.lengths is given.mixed_lengths and (mixed.mask.sum(1).numpy() <= mixed.lengths).all()
    steps = Sequences(torch.zeros(4, 2, 3), torch.ones(4, 2, dtype=torch.bool))
    assert with_partners(steps, partner) is steps


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("M3COL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


def gradients(place, classes: int, **changes) -> tuple[dict[str, float], dict[str, torch.Tensor], list[int]]:
    """The losses of a batch, the gradient of each weight, and the numbers of tokens of each call of the encoder."""
    changes = {"train__precision": "float64", "model__text__length_classes": classes, **changes}
    found = resolve(pairs.config(place, **changes))
    trainer = FoldTrainer(
        found.config, pool(found.dataset, "none"), features=found.dataset.features,
        task=tasks.build(classes=found.dataset.classes),
    )  # fmt: skip
    counts: list[int] = []
    model = trainer.method.encoders["text"].model
    model.register_forward_hook(lambda *call: counts.append(call[-1].last_hidden_state[..., 0].numel()))
    (index, *_) = trainer._indices(1)
    losses = trainer.method(trainer._batch(index, [index], 1, 0), Step(0, 0, 1, 0))
    losses["loss"].backward()
    values = {name: value.item() for name, value in losses.items()}
    return values, {name: weight.grad for name, weight in trainer.method.named_parameters()}, counts


PHASES = {"M3Co": {}, "MultiSClip": {"objective__switch_point": 0.0}, "mixup": {"method": "mixup"}}


@pytest.mark.parametrize("changes", PHASES.values(), ids=PHASES)
def test_losses_and_gradients_of_a_batch_are_the_same_with_fewer_tokens(place, changes):
    losses, expected, counts = gradients(place, 1, **changes)
    classed, found, fewer = gradients(place, 3, **changes)
    assert losses == pytest.approx(classed, rel=1e-9) and len(fewer) > len(counts) and sum(fewer) < sum(counts)
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None
            continue
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


def test_compiled_encoders_have_one_class():
    overrides = {"model.compile": True, "model.text.length_classes": 2}
    with pytest.raises(InputError, match=r"model.text.length_classes must be 1 with model.compile: true.* is 2"):
        loading.load({}, overrides=overrides)
    assert loading.load({}, overrides={**overrides, "model.compile": False}).model.text.length_classes == 2
