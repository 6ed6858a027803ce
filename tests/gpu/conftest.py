"""Every test of this folder needs CUDA; `make test-gpu` runs them, and says where there is none."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder: the hook of a folder sees those of all folders."""
    here = Path(__file__).parent
    without = pytest.mark.skip(reason="torch.cuda is not available: no NVIDIA GPU, or no driver for it")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(without)
