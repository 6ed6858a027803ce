"""The examples of the functions that need Ray, on the cluster of these tests."""

import doctest
import importlib

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.dear(reason="the calls of these examples run in test_ray_tune.py and test_ray_train.py as well")
@pytest.mark.parametrize("module", ["tune.api", "tune.engine.train_api"])
def test_examples_run(module, cluster, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 3 and found.failed == 0
