"""Baselines that are fitted in another process beside the trials are those that this process fits."""

import os
import time

import pandas as pd
import pytest

from m3col.data.splits import pool
from tests.support.driving import prepare_study, small
from tune.results import baseline_process, baseline_rows
from tune.results.baseline_rows import Baselines
from tune.study import partitions


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with baselines worth a process, its data and its folds; nothing is fitted yet."""
    monkeypatch.setattr(baseline_rows, "_FITTED", {})
    config = small(final__baselines=["linear", "cooperative", "svm"], search__confirm=None)
    _, ready = prepare_study(tmp_path, config)
    return ready.config, ready.dataset, partitions.partitions(ready.config, ready.dataset)


def baselines_of(study):
    config, dataset, folds = study
    samples = pool(dataset, str(config.run.validation.kind))
    return Baselines(config.run, dataset, samples, folds["search"], config.settings.final.baselines)


def test_another_process_fits_the_same_to_the_last_bit(study, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # then the folds are fitted by several processes
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with baseline_process.beside(*study) as wait:
        fitted = wait()
    here = baselines_of(study).fit()
    assert list(fitted) == ["search"]
    there = fitted["search"]
    pd.testing.assert_frame_equal(pd.concat(there.frames), pd.concat(here.frames), check_exact=True)
    assert (there.left_out, there.chosen) == (here.left_out, here.chosen)
    assert set(here.chosen) == {"svm", "svm late"}
    handed = baselines_of(study)
    monkeypatch.setattr(Baselines, "fit", lambda self: pytest.fail("fitted again"))
    pd.testing.assert_frame_equal(pd.concat(handed.predictions(there)), pd.concat(here.frames))
    assert handed.chosen == here.chosen


def test_a_process_that_fails_leaves_the_baselines_to_the_study(study, monkeypatch):
    monkeypatch.setattr(baseline_process, "_START", "import sys; {path!r}; sys.exit(1)")
    with baseline_process.beside(*study) as wait:
        assert wait() == {}


def test_the_end_of_the_block_ends_the_process(study, monkeypatch):
    monkeypatch.setattr(baseline_process, "_START", "import time; {path!r}; time.sleep(600)")
    made = []
    once = baseline_process.BaselineProcess.__init__
    monkeypatch.setattr(
        baseline_process.BaselineProcess, "__init__", lambda self, *given: made.append(self) or once(self, *given)
    )
    with pytest.raises(KeyboardInterrupt), baseline_process.beside(*study):
        raise KeyboardInterrupt
    assert made[0]._process.poll() is not None and not made[0]._thread.is_alive()


def test_no_process_starts_where_it_would_save_nothing(study, monkeypatch, tmp_path):
    monkeypatch.setattr(baseline_process, "BaselineProcess", lambda *given: pytest.fail("a process was started"))
    config, dataset, folds = study
    for wanted in (False, ["linear"]):
        _, ready = prepare_study(tmp_path / str(wanted), small(final__baselines=wanted))
        with baseline_process.beside(ready.config, dataset, folds) as wait:
            assert wait() == {}
    monkeypatch.setattr(baseline_rows, "_FITTED", {baselines_of(study)._key: baseline_rows.Fitted([], {}, {})})
    with baseline_process.beside(*study) as wait:
        assert wait() == {}
    with baseline_process.beside(config, dataset, {}) as wait:  # nothing is validated
        assert wait() == {}


def test_a_process_ends_soon_after_its_parent(monkeypatch):
    monkeypatch.setattr(baseline_process, "_PARENT_CHECK_S", 0.05)
    readable, writable = os.pipe()
    parent = os.fork()
    if parent == 0:
        middle = os.getpid()
        if os.fork() == 0:
            baseline_process._end_with(middle)
            time.sleep(600)
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(writable)  # the grandchild has the other end, until it ends
    began = time.monotonic()
    assert os.read(readable, 1) == b"" and time.monotonic() - began < 60
    os.close(readable)


def test_a_worker_that_is_killed_leaves_the_baselines_to_the_study(study, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(baseline_process, "_START", _WITH_A_KILLED_WORKER)
    with baseline_process.beside(*study) as wait:
        assert wait() == {}


_WITH_A_KILLED_WORKER = """
import os, signal, sys
sys.path[:] = {path!r}
from tune.results import baseline_process
os.cpu_count = lambda: 2
baseline_process._part = lambda number: os.kill(os.getpid(), signal.SIGKILL)
baseline_process.main()
"""
