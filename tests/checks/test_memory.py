"""The memory of the models of a training, counted before anything is computed."""

from types import SimpleNamespace

import psutil
import pytest

from m3col import devices
from m3col.checks import limits
from m3col.checks.resolve import resolve
from m3col.config.loading import with_overrides
from tests.support import pairs


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("M3COL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve(pairs.config(pairs.folder(tmp_path_factory.mktemp("pairs") / "data")))


def changed(resolved, **changes):
    return with_overrides(resolved.config, {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"validation__kind": "kfold"}, ["weights", "gradients", "moment", "moment"]),
        ({"validation__kind": "given"}, ["weights", "gradients", "moment", "moment", "best weights"]),
        ({"validation__kind": "kfold", "train__accumulate": 2}, ["weights", "gradients", "moment", "moment"]),
        ({"validation__kind": "kfold", "train__shards": 2}, ["weights", "gradients", "moment", "moment"]),
        ({"validation__kind": "kfold", "train__shards": 2, "train__accumulate": 2},
         ["weights", "gradients", "moment", "moment", "buffers of the exchange"]),
        ({"validation__kind": "given", "train__shards": 4, "train__accumulate": 3, "train__precision": "float64"},
         ["weights", "gradients", "moment", "moment", "best weights", "buffers of the exchange"]),
    ],
)  # fmt: skip
def test_what_is_counted(resolved, changes, kept):
    config = changed(resolved, **changes)
    each = 8 if config.train.precision == "float64" else 4
    assert limits.model_bytes(config, 1000) == sum(1000 * each for _ in kept)


def test_folds_in_lockstep_and_a_single_model_are_held_against_a_gpu(resolved, monkeypatch):
    count = limits._parameters(resolved.config, resolved.dataset)
    folds = changed(resolved, validation__kind="kfold", validation__folds=3)
    one = changed(resolved, validation__kind="holdout")
    best = changed(resolved, validation__kind="given")

    def faults(config, room):
        monkeypatch.setattr(devices, "gpu_memory", lambda: room)
        return [str(fault.text) for fault in limits.memory_faults(config, resolved.dataset)]

    assert faults(folds, 3 * 4 * 4 * count) == []
    (line,) = faults(folds, 3 * 4 * 4 * count - 1)
    assert "3 models in lockstep" in line and "use 'holdout'" in line
    assert faults(one, 4 * 4 * count) == [] and faults(best, 5 * 4 * count) == []
    (line,) = faults(one, 4 * 4 * count - 1)
    assert line.startswith("model: one takes") and "the GPU has" in line
    assert len(faults(best, 5 * 4 * count - 1)) == 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1))
    assert faults(one, None) == [], "one model is held against a GPU alone"
    (line,) = faults(folds, None)
    assert "0.0 GB are free" in line
