"""Sequences as model input: what is fitted on the training fold, padding, batches of similar length."""

import numpy as np
import pytest
import torch

from m3col.config.modality_sections import SequenceDataConfig
from m3col.data.dataset import build_split
from m3col.data.sequences.column import SequenceColumn
from m3col.errors import InputError
from m3col.inputs import fitting, length_groups, sequences
from m3col.inputs.base import Placement
from m3col.inputs.specs import Partial, Sequences, one_like
from m3col.tasks import registry as tasks
from m3col.training.fold_trainer import FoldTrainer
from tests.support.helpers import tiny_config
from tests.support.sequence_data import draw_sequences, sequence_dataset

CPU = Placement(torch.device("cpu"), torch.float32)
GAPS = [np.array([[1.0, np.nan, 7], [3, 4, 7]]), np.array([[np.nan, 8, 7], [100, 100, 7], [8, 0, np.nan]])]


def by_loops(series: list[np.ndarray], scale: str, longest: int | None, cut: str) -> list[np.ndarray]:
    """The prepared sequences, computed value by value."""
    kept = [s if longest is None else (s[:longest] if cut == "end" else s[-longest:]) for s in series]
    prepared = [np.zeros(s.shape) for s in kept]
    for feature in range(kept[0].shape[1]):
        known = sorted(float(v) for s in kept for v in s[:, feature] if not np.isnan(v))
        count = len(known)
        if not count:
            continue
        median = known[count // 2] if count % 2 else (known[count // 2 - 1] + known[count // 2]) / 2
        mean = sum(known) / count
        deviation = (sum((v - mean) ** 2 for v in known) / count) ** 0.5
        shift, spread = {"standard": (mean, deviation), "minmax": (known[0], known[-1] - known[0]), "none": (0, 1)}[
            scale
        ]
        for target, source in zip(prepared, kept, strict=True):
            for step, value in enumerate(source[:, feature]):
                filled = median if np.isnan(value) else value
                target[step, feature] = (filled - shift) / spread if spread else 0.0
    return prepared


@pytest.mark.parametrize("scale", ["standard", "minmax", "none"])
@pytest.mark.parametrize(("longest", "cut"), [(None, "end"), (2, "end"), (2, "front")])
def test_each_feature_is_filled_and_scaled_by_the_steps_that_remain(scale, longest, cut):
    config = SequenceDataConfig(scale=scale, max_length=longest, cut=cut)
    column = SequenceColumn.of(GAPS)
    transform = sequences.fit_column(config, column, ("a", "b", "c"))
    prepared = transform.transform(column)
    for row, wanted in enumerate(by_loops(GAPS, scale, longest, cut)):
        assert np.allclose(prepared.sequence(row), wanted, rtol=1e-6, atol=1e-6)


def test_a_feature_that_is_constant_or_missing_in_training_becomes_zero_for_all():
    column = SequenceColumn.of([np.array([[5.0, np.nan], [5, np.nan]])])
    transform = sequences.fit_column(SequenceDataConfig(), column, ("a", "b"))
    other = transform.transform(SequenceColumn.of([np.array([[9.0, 3.0], [np.nan, np.nan]])]))
    assert np.array_equal(other.table, np.zeros((2, 2)))


def test_placeholders_of_absent_samples_do_not_count():
    column = SequenceColumn.of([np.array([[1.0], [3.0]]), np.array([[1000.0]])])
    split = build_split({"s": column}, np.array([0, 1]), "train")
    split.present["s"][1] = False
    transform = fitting.fit(tiny_config(), split, {"s": ("x",)})["s"]
    assert transform.shift.tolist() == [2.0] and transform.scale.tolist() == [1.0]


def test_a_value_that_overflows_when_scaled_is_refused_with_its_feature():
    column = SequenceColumn.of([np.array([[0.0], [1e-30]])])
    transform = sequences.fit_column(SequenceDataConfig(scale="minmax"), column, ("x",))
    with pytest.raises(InputError, match="modality 's', feature 'x': a value is too far"):
        fitting.source_of("s", transform, SequenceColumn.of([np.array([[1e30]])]), CPU)


def test_the_state_restores_the_transform_and_damage_is_refused():
    config = SequenceDataConfig(max_length=2, cut="front")
    transform = sequences.fit_column(config, SequenceColumn.of(GAPS), ("a", "b", "c"))
    described, arrays = transform.state()
    restored = fitting.from_state(described, arrays)
    column = SequenceColumn.of(draw_sequences(4))
    assert np.array_equal(restored.transform(column).table, transform.transform(column).table)
    assert restored.transform(column).lengths.max() == 2 and restored.spec == transform.spec
    for damage in ({"feature_names": 3}, {"cut": "x"}, {"max_length": 0}, {"max_length": True}):
        with pytest.raises(InputError, match="stored preprocessing"):
            fitting.from_state({**described, **damage}, arrays)
    with pytest.raises(InputError, match="fill must have the shape"):
        fitting.from_state(described, {**arrays, "fill": np.zeros(2)})


@pytest.mark.parametrize("multiple", [1, 4])
def test_a_batch_is_padded_behind_with_zeros(multiple):
    series = draw_sequences(6, longest=6)
    place = Placement(torch.device("cpu"), torch.float64, length_multiple=multiple)
    source = sequences.SequenceSource(SequenceColumn.of(series), place)
    for index in (torch.tensor([5, 0, 3]), slice(1, 4), slice(None)):
        batch = source.rows(index)
        rows = np.arange(6)[index if isinstance(index, slice) else index.numpy()]
        longest = max(len(series[row]) for row in rows)
        length = -(-longest // multiple) * multiple
        assert batch.values.shape == (len(rows), length, 3) and batch.values.dtype == torch.float64
        for position, row in enumerate(rows):
            count = len(series[row])
            assert np.array_equal(batch.values[position, :count].numpy(), series[row])
            assert not batch.values[position, count:].any()
            assert batch.mask[position].tolist() == [True] * count + [False] * (length - count)
    limited = sequences.SequenceSource(SequenceColumn.of(series), place, longest=6).rows(slice(None))
    assert limited.values.shape[1] == max(map(len, series)) == 6  # not 8: no sequence is longer than the limit
    empty = source.rows(slice(0, 0))
    assert len(empty) == 0 and empty.values.shape[2] == 3
    assert one_like(empty).values.shape == (1, 1, 3) and one_like(empty).mask.all()


def test_a_batch_can_be_cut_and_moved_and_its_shapes_must_agree():
    batch = Sequences(torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool))
    assert torch.equal(batch[1:].to("cpu").values, batch.values[1:]) and len(batch[1:]) == 2
    assert isinstance(Partial(batch, torch.ones(3, dtype=torch.bool)).to("cpu").rows, Sequences)
    with pytest.raises(InputError, match="values \\[n, L, F\\]"):
        Sequences(torch.randn(3, 4, 2), torch.ones(3, 5, dtype=torch.bool))


def test_batches_have_sequences_of_similar_length_where_the_config_says_so():
    dataset = sequence_dataset()
    task = tasks.build(classes=2)
    spreads = {}
    for grouped in (False, True):
        config = tiny_config(train__batch_size=8, data__sequence__group_by_length=grouped)
        trainer = FoldTrainer(config, dataset.train, features=dataset.features, task=task)
        lengths = length_groups.lengths(config.data, trainer._inputs)
        assert (lengths is not None) == grouped
        batches = [dataset.train.inputs["series"].lengths[index.numpy()] for index in trainer._indices(1)]
        assert sum(map(len, batches)) == len(dataset.train)
        spreads[grouped] = sum(int(np.ptp(batch)) for batch in batches)
    assert spreads[True] < spreads[False] / 2
