"""A training that starts from the weights of another one: `train.init`, for fine-tuning.

Encoders are loaded, and the fusion transformer where both methods have one. Heads and projectors start anew, and so
does everything that is fitted to data: scaling follows the training fold of the new run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed
from m3col.training import checkpoint
from m3col.training.loop import LockstepTrainer

_PARTS = ("encoders.", "transformer.")

_SHOWN = 8  # tensors that a message lists


def model_folder(path: str) -> Path:
    """The folder of the model checkpoint in `path`, which may be that of a run."""
    folder = Path(path)
    return folder / "model" if (folder / "model" / checkpoint.DESCRIPTION).is_file() else folder


def faults(config: RunConfig, features: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each reason why a training cannot start from `train.init`, as far as its description shows.

    Args:
        config: the config of the run.
        features: names of the columns by modality.
    """
    if config.train.init is None:
        return []
    where = f"train.init {config.train.init!r}"
    try:
        description = checkpoint.describe(model_folder(config.train.init), "model")
    except InputError as error:
        return [f"{where}: {scrubbed(line)}" for line in error.faults]
    known: Mapping[str, Sequence[str]] = description["features"]
    lines = [f"{where}: has no modality {name!r}; it has {', '.join(known)}" for name in features if name not in known]
    lines += [
        f"{where}: modality {name!r} has {len(known[name])} columns there, but {len(columns)} here"
        for name, columns in features.items()
        if name in known and len(known[name]) != len(columns)
    ]
    return lines


def load(training: LockstepTrainer) -> None:
    """Loads the weights that `train.init` names into the models of all folds, if it names any.

    Raises:
        InputError: the checkpoint cannot be read, or lacks tensors, or has them in other shapes; each is named.
    """
    config = training.config
    if config.train.init is None:
        return
    folder = model_folder(config.train.init)
    description = checkpoint.describe(folder, "model")
    tensors = checkpoint.read_tensors(folder / description["members"][0]["file"])
    stored = {name.removeprefix("weights."): value for name, value in tensors.items() if name.startswith("weights.")}
    for trainer in training.trainers:
        own = trainer.method.state_dict()
        wanted = {name: value for name, value in own.items() if name.startswith(_PARTS) and _is_shared(name, stored)}
        where = f"train.init {config.train.init!r}"
        lines = _misfits(where, wanted, stored)
        for name, transform in trainer.transforms.items():
            if transform.kind == "text" and transform.state()[0] != description["members"][0]["preprocess"].get(name):
                lines.append(
                    f"{where}: the texts of {name!r} have another tokenizer there, so its word embeddings do not fit"
                )
        if lines:
            raise InputError(lines)
        trainer.method.load_state_dict({**own, **{name: stored[name] for name in wanted}})


def _is_shared(name: str, stored: Mapping[str, Tensor]) -> bool:
    """Whether a weight is loaded: all of the encoders, and the transformer where the checkpoint has one.

    The projection of an encoder is left as it is where the checkpoint has none, as after a method without pooling.
    """
    if name.startswith("transformer."):
        return any(other.startswith("transformer.") for other in stored)
    return name in stored or ".projection." not in name


def _misfits(where: str, wanted: Mapping[str, Any], stored: Mapping[str, Tensor]) -> list[str]:
    lines = [f"{where}: has no tensor {name}" for name in wanted if name not in stored]
    lines += [
        f"{where}: tensor {name} has the shape {[*stored[name].shape]}, but the model has {[*value.shape]}"
        for name, value in wanted.items()
        if name in stored and stored[name].shape != value.shape
    ]
    more = len(lines) - _SHOWN
    return lines if more <= 0 else [*lines[:_SHOWN], f"{where}: {more} more tensors do not fit"]
