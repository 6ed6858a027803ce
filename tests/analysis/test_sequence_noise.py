"""Noise in place of sequences: the moments of their steps, and values that no other sample of a batch changes."""

import numpy as np
import torch

from m3col import tasks
from m3col.analysis import modality_noise
from m3col.ensemble_member import Member
from m3col.training.fold_trainer import FoldTrainer
from tests.support.helpers import tiny_config
from tests.support.sequence_data import sequence_dataset

DATA = sequence_dataset()


def test_noise_has_the_moments_of_the_steps_and_keeps_the_lengths():
    trainer = FoldTrainer(tiny_config(), DATA.train, features=DATA.features, task=tasks.build(classes=DATA.classes))
    member = Member(trainer.method, trainer.transforms, torch.float32, trainer.task)
    prepared = trainer.transforms["series"].transform(DATA.train.inputs["series"])
    statistics = modality_noise.moments(member, DATA.train.inputs)["series"]
    assert np.allclose(statistics.mean, prepared.table.mean(axis=0), atol=1e-5)
    assert np.allclose(statistics.std, prepared.table.std(axis=0), atol=1e-5)
    source = member.sources(DATA.train.inputs)["series"]
    noisy = modality_noise.replaced(source, "series", statistics, modality_noise.Draw(0, 0), torch.float32)
    together, own = noisy.rows(slice(None)), source.rows(slice(None))
    assert torch.equal(together.mask, own.mask) and not together.values[~own.mask].any()
    assert not torch.equal(together.values, own.values)
    alone = noisy.rows(slice(3, 4))
    assert torch.equal(alone.values[0], together.values[3, : alone.values.shape[1]])
    steps = together.values[together.mask].double().numpy()
    assert np.abs(steps.mean(axis=0) - statistics.mean).max() < 0.3
    assert np.abs(steps.std(axis=0) / statistics.std - 1).max() < 0.3
