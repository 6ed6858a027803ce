"""Refuses a training that cannot change the embeddings that it is evaluated by, because all encoders are frozen."""

from collections.abc import Mapping
from typing import Any

import torch

from m3col.checks import encoders
from m3col.config.schema import RunConfig
from m3col.config.validation import Fault
from m3col.data.dataset import Dataset
from m3col.inputs.specs import ImageInput, MediaSpec, TextInput, Tokens
from m3col.methods import registry
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task

_LENGTH = 4  # tokens of the text of a dry run


def faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    """A fault where no trained weight has a part in the embeddings that the linear classifier is fitted to.

    The model is built and run without memory for weights, so that methods of users are checked as well. Its encoders
    must have no faults.

    Args:
        config: the config of the run.
        dataset: its data set.
    """
    kinds = sorted(set(dataset.kinds.values()))
    if not all(getattr(getattr(config.model, kind, None), "frozen", False) for kind in kinds):
        return []
    method = registry.load(config.method)
    if not issubclass(method, SelfSupervisedMethod):
        return []
    specs: dict[str, MediaSpec] = {
        name: ImageInput(config.data.image.size) if kind == "image" else encoders.text_input(config.model, config.data)
        for name, kind in dataset.kinds.items()
    }
    if _are_trained(method, config, specs, tasks.of(config, dataset.classes)):
        return []
    keys = [f"model.{kind}.frozen" for kind in kinds]
    text = (
        f"{keys[0]}: method {config.method!r} is evaluated by the embeddings of its encoders, which no training "
        f"changes where {' and '.join(keys)} {'are' if len(keys) > 1 else 'is'} true; set {keys[0]}=false, or "
        f"another model.embedding_dim than {config.model.embedding_dim}, so that a trained projection follows"
    )
    return [Fault(keys[0], text)]


def _are_trained(
    method: type[SelfSupervisedMethod], config: RunConfig, specs: Mapping[str, MediaSpec], task: Task
) -> bool:  # fmt: skip
    """Whether the evaluated embeddings depend on a weight that is trained."""
    try:
        with torch.device("meta"):
            return _depend_on_training(method, config, specs, task)
    except (RuntimeError, NotImplementedError):  # a model that reads values of tensors
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _depend_on_training(method, config, specs, task)


def _depend_on_training(
    method: type[SelfSupervisedMethod], config: RunConfig, specs: Mapping[str, MediaSpec], task: Task
) -> bool:  # fmt: skip
    # With something stored, no pretrained weights are read.
    built = method(config, features=specs, task=task, stored={}).eval()
    with torch.enable_grad():
        return built.features({name: _row(spec) for name, spec in specs.items()}).requires_grad


def _row(spec: MediaSpec) -> Any:
    """One sample, on the current default device."""
    if isinstance(spec, ImageInput):
        return torch.zeros(1, 3, spec.size, spec.size)
    assert isinstance(spec, TextInput)
    length = min(_LENGTH, spec.max_length)
    ids = torch.zeros(1, length, dtype=torch.long)
    return Tokens(ids, torch.ones(1, length, dtype=torch.bool), padded=False)
