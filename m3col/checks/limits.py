"""Checks that this machine has enough disk and memory for a training."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from m3col import devices
from m3col.config.schema import RunConfig
from m3col.config.validation import Fault
from m3col.data import modality_kinds
from m3col.data.dataset import Dataset
from m3col.tasks import registry as tasks

_MARGIN = 1.5  # free disk that is required, over the expected size of the files


def disk_faults(folder: Path, needed_bytes: int, *, what: str) -> list[str]:
    """Faults of a folder that cannot be written or lacks space. A folder that does not exist yet: of its parent.

    Args:
        folder: the folder.
        needed_bytes: expected size of the files.
        what: the purpose of the files, for messages.
    """
    existing = folder
    while not os.path.exists(existing):  # False also inside a folder without permission
        existing = existing.parent
    if not existing.is_dir():
        return [f"{folder}: cannot be written, because {existing} is a file"]
    faults = []
    probe = existing / f".m3col-{id(folder)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        faults.append(f"{folder}: cannot be written ({error.strerror})")
    free = shutil.disk_usage(existing).free
    if free < _MARGIN * needed_bytes:
        needed = f"{needed_bytes * _MARGIN / 1e6:,.0f} MB"
        faults.append(f"{folder}: {what} needs about {needed}, but only {free / 1e6:,.0f} MB are free; free some")
    return faults


def parameter_count(
    config: RunConfig, features: Mapping[str, int], outputs: int, *, encoders: Mapping[str, int] | None = None
) -> int:  # fmt: skip
    """An upper bound of the number of weights of one model; preprocessing may drop features.

    Args:
        config: the config of the run.
        features: number of columns by modality.
        outputs: number of outputs of each head.
        encoders: number of weights of the encoders of images, texts and sequences, by modality.
    """
    width, hidden = config.model.embedding_dim, config.model.classifier_dim
    others = encoders or {}
    count = sum(others.values())
    tables = [size for name, size in features.items() if name not in others]
    count += sum(config.model.numeric.parameter_count(size, width) for size in tables)
    between = (config.model.classifier_layers - 2) * (hidden + 1) * hidden
    count += len(features) * ((width + 1) * hidden + between + (hidden + 1) * outputs)
    return count + (width * len(features) + 1) * hidden + between + (hidden + 1) * outputs


def _parameters(config: RunConfig, dataset: Dataset) -> int:
    sizes = {name: len(values) for name, values in dataset.features.items()}
    kinds, outputs = dataset.kinds, tasks.of(config, dataset.classes).width
    if modality_kinds.all_tables(kinds.values()):
        return parameter_count(config, sizes, outputs)
    from m3col.checks import encoders as checks  # imported here, because it imports torch

    by_kind = checks.parameter_counts(config.model, config.data, modality_kinds.media(kinds.values()))
    encoders = {name: by_kind[kind] for name, kind in kinds.items() if kind in by_kind}
    for name, kind in kinds.items():
        if modality_kinds.of(kind).has_steps:
            encoders[name] = checks.sequence_parameters(config.model, sizes[name])
    return parameter_count(config, sizes, outputs, encoders=encoders)


def checkpoint_bytes(config: RunConfig, dataset: Dataset, *, folds: int) -> int:
    """The size of one training checkpoint: the weights and both Adam moments of every fold."""
    size = 8 if config.train.precision == "float64" else 4
    return 3 * size * folds * _parameters(config, dataset)


def model_bytes(config: RunConfig, parameters: int) -> int:
    """The memory of one model in training, without that of a batch.

    Counts the weights, the gradients, which stay while other folds are trained, and both Adam moments. With
    `validation.kind: given` a refit also keeps a copy of the best weights. Gradients of several workers are views of
    the buffers in which they are exchanged; only where gradients of several batches are accumulated are there both.
    A checkpoint that is written in the background takes no memory of the GPU, and the CPU's only where there is room.

    Args:
        config: of the run. More than one of `train.shards` means several workers.
        parameters: number of weights.
    """
    size = 8 if config.train.precision == "float64" else 4
    copies = 4
    copies += config.validation.kind == "given"
    copies += (config.train.shards or 1) > 1 and config.train.accumulate > 1
    return copies * size * parameters


def memory_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    """Faults of a training whose models, trained in lockstep, do not fit into memory; see `model_bytes`.

    Checked for images and texts only, because other models are small; a single model against the memory of a GPU alone.
    """
    if not modality_kinds.media(dataset.kinds.values()):
        return []
    folds = config.validation.folds if config.validation.kind == "kfold" else 1
    import psutil

    card = devices.gpu_memory() if config.train.device != "cpu" else None
    if card is None and config.validation.kind != "kfold":
        return []
    room = psutil.virtual_memory().available if card is None else card
    each = model_bytes(config, _parameters(config, dataset))
    if folds * each <= room:
        return []
    if config.validation.kind != "kfold":
        size, card_size = f"{each / 1e9:.1f} GB", f"{room / 1e9:.1f} GB"
        line = f"model: one takes {size} without its batches, but the GPU has {card_size}; use smaller encoders"
        return [Fault("model", line)]
    where = f"{room / 1e9:.1f} GB are free" if card is None else f"the GPU has {room / 1e9:.1f} GB"
    text = (f"validation.kind 'kfold': {folds} models in lockstep take {folds * each / 1e9:.1f} GB without their "
            f"batches, but {where}; use 'holdout'")  # fmt: skip
    return [Fault("validation.kind", text)]
