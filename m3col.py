"""M3CoL: multimodal mixup contrastive learning (arXiv 2409.17777), trained, searched and compared honestly.

    import m3col
    result = m3col.train("digits", overrides={"objective.beta": 0.2})
    result.metrics["test/accuracy"], result.predict_proba(views)
    model = m3col.load(result.checkpoint)

Names are resolved on first use, so that `import m3col` (and `m3col --help`) does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any
from m3col.runtime import home_folder
if TYPE_CHECKING:
    from m3col.train_result import TrainResult as TrainResult
    from m3col.api import train as train
    from m3col.errors import InputError as BadInput
    from m3col.predictor import Predictor as Predictor
    from m3col.predictor import load as load

__all__ = ["BadInput", "Predictor", "TrainResult", "load", "train"]


_HOMES = {
    "train": "m3col.api",
    "TrainResult": "m3col.api",
    "load": "m3col.predictor",
    "Predictor": "m3col.predictor",
    "BadInput": "m3col.faults",
}

_SUBMODULES = ("config", "data", "losses", "methods", "metrics", "statistics")


home_folder.settle()  # before any library asks



def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"m3col.{name}")
    raise AttributeError(f"module 'm3col' has no attribute {name!r}")
