"""M3CoL: multimodal mixup contrastive learning (arXiv 2409.17777), trained, searched and compared honestly.

    import m3col
    result = m3col.train("digits", overrides={"objective.beta": 0.2})
    result.metrics["test/accuracy"], result.predict_proba(views)
    model = m3col.load(result.checkpoint)

Names are resolved on first use, so that `import m3col` (and `m3col --help`) does not wait for torch.
"""

from typing import TYPE_CHECKING

from m3col.runtime import home_folder
from m3col.runtime.lazy_names import lazy_names
from m3col.version import __version__ as __version__

if TYPE_CHECKING:
    from m3col.api import train as train
    from m3col.errors import InputError as InputError
    from m3col.predictor import Predictor as Predictor
    from m3col.predictor import load as load
    from m3col.train_result import TrainResult as TrainResult

    BadInput = InputError

__all__ = ["BadInput", "InputError", "Predictor", "TrainResult", "load", "train"]

home_folder.settle()  # before any library reads the home folder

__getattr__ = lazy_names(
    __name__,
    {
        "train": "m3col.api:train",
        "TrainResult": "m3col.train_result:TrainResult",
        "load": "m3col.predictor:load",
        "Predictor": "m3col.predictor:Predictor",
        "InputError": "m3col.errors:InputError",
        "BadInput": "m3col.errors:InputError",  # its name in version 0.1
        "config": "m3col.config",
        "data": "m3col.data",
        "losses": "m3col.losses",
        "methods": "m3col.methods",
        "metrics": "m3col.metrics",
        "statistics": "m3col.metrics.intervals",
        "tracked": "m3col.tracking.payload",  # models that version 0.1 logged to MLflow import it
    },
)
