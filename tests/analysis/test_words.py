"""Modalities that are called like a word of an analysis stand apart from it."""

import numpy as np
import pytest

import m3col
from m3col.analysis import modality_errors, robustness, umap_plot
from m3col.analysis.context import AnalysisContext, Options
from m3col.data.arrays import from_arrays
from tests.support.helpers import TINY

NAMES = ("all", "none", "joint", "heads", "fused_right", "share_wrong")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 2
    views = {name: draw.normal(size=(60, 4)) + labels[:, None] for name in NAMES}
    held = {name: value[40:] for name, value in views.items()}
    dataset = from_arrays({name: x[:40] for name, x in views.items()}, labels[:40], test=(held, labels[40:]))
    result = m3col.train(TINY, data=dataset, overrides={"train.epochs": 1, "validation.kind": "holdout"},
                         runs=tmp_path_factory.mktemp("runs"), tracking_uri="none")  # fmt: skip
    return AnalysisContext(result.predictor, dataset, Options(repeats=2))


def test_errors_count_every_sample_once_and_each_head_twice(case):
    table = modality_errors.count(case)
    joint = table[table["heads"] == "all"]
    assert joint[["fused_right", "fused_wrong"]].to_numpy().sum() == len(case.test)
    for name in NAMES:
        shown = name if name in ("none", "joint") else f"{name} (modality)"
        some = table[table["heads"] == shown]
        assert len(some) == 2 and some[["fused_right", "fused_wrong"]].to_numpy().sum() == len(case.test)


def test_noise_in_a_modality_called_none_is_not_the_clean_row(case):
    table = robustness.accuracies(case)
    assert len(table) == (1 + len(NAMES)) * (1 + len(NAMES))
    assert set(table["replaced"]) == {*NAMES, "none (modality)"}
    assert (table[table["replaced"] == "none"]["draws"] == 1).all()
    assert (table[table["replaced"] == "none (modality)"]["draws"] == 2).all()


def test_the_embedding_of_a_modality_called_joint_is_its_own(case, monkeypatch):
    seen = []
    monkeypatch.setattr(umap_plot, "project", lambda x, seed: seen.append(x) or np.zeros((len(x), 2)))
    monkeypatch.setattr(umap_plot, "_draw", lambda table, case: None)
    table = umap_plot.run(case).table
    assert set(table["embedding"]) == {*NAMES, "joint (modality)"}
    assert sorted(x.shape[1] for x in seen) == [8] * 6 + [48]
