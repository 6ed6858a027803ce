"""A training that starts from the weights of another one: `train.init`, for fine-tuning.

Encoders are loaded, and the fusion transformer where both methods have one. Heads and projectors start anew, and so
does everything that is fitted to data: scaling follows the training fold of the new run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from m3col.config.keys import get
from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed
from m3col.training import checkpoint
from m3col.training.loop import LockstepTrainer

_PARTS = ("encoders.", "transformer.")

# Settings that make another function of the same weights.
_SETTINGS = (
    "data.preprocess", "model.embedding_dim", "model.encoder", "model.numeric", "model.image.name",
    "model.image.options",
    "model.text.name", "model.text.options", "model.sequence", "objective.fusion_layers", "objective.fusion_heads",
)  # fmt: skip

_SELECTING = ("anova", "variance")  # steps of preprocessing that select columns by the training fold

_SHOWN = 8  # tensors that a message lists

_NAMES = 3  # columns that a message lists


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
    lines = _setting_faults(where, config, description["config"])
    if len(description["members"]) > 1:
        rule = "has the models of several folds or seeds, each of which may have seen other samples"
        lines.append(f"{where}: {rule}; train it with validation.kind: none")
    lines += [f"{where}: has no modality {name!r}; it has {', '.join(known)}" for name in features if name not in known]
    lines += [
        f"{where}: modality {name!r} has other columns there ({len(known[name])}: {_shown(known[name])}) than here "
        f"({len(columns)}: {_shown(columns)})"
        for name, columns in features.items()
        if name in known and list(known[name]) != list(columns)
    ]
    return lines


def _setting_faults(where: str, config: RunConfig, stored: Mapping[str, Any]) -> list[str]:
    """One line for each setting that makes another function of the same weights."""
    own = config.to_dict()
    lines = [
        f"{where}: {key} is {get(stored, key)!r} there, but {get(own, key)!r} here"
        for key in _SETTINGS
        if get(stored, key) is not None and get(own, key) is not None and get(stored, key) != get(own, key)
    ]
    selecting = [step for step in _SELECTING if step in str(get(own, "data.preprocess"))]
    if selecting:
        lines.append(f"{where}: the step {selecting[0]} of data.preprocess may select other columns here than there")
    return lines


def _shown(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMES], *(["..."] if len(names) > _NAMES else [])])


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

    What an encoder has for pooled embeddings or for tokens alone is left as it is where the checkpoint has none, as
    after a method of the other kind.
    """
    if name.startswith("transformer."):
        return any(other.startswith("transformer.") for other in stored)
    return name in stored or not _is_optional(name)


def _is_optional(name: str) -> bool:
    """Whether a weight of an encoder is there for methods with pooling alone, or for those without."""
    return ".projection." in name or ".feature_tokens." in name


def _misfits(where: str, wanted: Mapping[str, Any], stored: Mapping[str, Tensor]) -> list[str]:
    lines = [f"{where}: has no tensor {name}" for name in wanted if name not in stored]
    # "encoders.<modality>." and "transformer."
    prefixes = {".".join(name.split(".")[: 2 if name.startswith("encoders.") else 1]) + "." for name in wanted}
    lines += [
        f"{where}: tensor {name} has no place in the model"
        for name in stored
        if name not in wanted and name.startswith(tuple(prefixes)) and not _is_optional(name)
    ]
    lines += [
        f"{where}: tensor {name} has the shape {[*stored[name].shape]}, but the model has {[*value.shape]}"
        for name, value in wanted.items()
        if name in stored and stored[name].shape != value.shape
    ]
    more = len(lines) - _SHOWN
    return lines if more <= 0 else [*lines[:_SHOWN], f"{where}: {more} more tensors do not fit"]
