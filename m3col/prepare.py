"""A config and its data set, judged together before anything is spent."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3col import data as datasets
from m3col import methods, metrics
from m3col.config import IN_MEMORY, RunConfig
from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.faults import BadInput, nearest

_MARGIN = 1.5  # free disk asked for, over what the files are expected to take


@dataclass(frozen=True)
class Prepared:
    """`config` with everything resolved that depends on the data: validation kind, modalities, metric."""

    config: RunConfig
    dataset: Dataset


def as_dataset(data: Any) -> Dataset:
    """A `Dataset`, a pair (modalities, labels), or {"train": pair, "test": pair, "validation": pair}.

    `modalities` maps names to arrays or DataFrames [N, D_m]. Raises BadInput.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return datasets.from_arrays(*data)
    if isinstance(data, Mapping) and "train" in data:
        unknown = [key for key in data if key not in ("train", "test", "validation")]
        if unknown:
            raise BadInput([f"data: unknown split {key!r}{nearest(key, ('train', 'test', 'validation'))}" for key in unknown])
        return datasets.from_arrays(*data["train"], test=data.get("test"), validation=data.get("validation"))
    raise BadInput(
        ["data: must be a Dataset, a pair (modalities, labels), or a mapping with 'train' and maybe 'test' pairs, "
         f"but got {type(data).__name__}"]
    )  # fmt: skip


def prepare(config: RunConfig, *, data: Any = None, where: str = "config") -> Prepared:
    """Loads the data set and resolves the config against it. Raises BadInput with every fault of the two together."""
    if data is not None:
        dataset = as_dataset(data)
        if config.data.modalities is not None:
            dataset = dataset.select(config.data.modalities)
    elif config.data.name == IN_MEMORY:
        raise BadInput([f"{where}: data.name is {IN_MEMORY!r}: these are arrays in memory; hand them over as `data`"])
    else:
        folder = None if config.data.dir is None else Path(config.data.dir)
        dataset = datasets.load(config.data.name, data_dir=folder, modalities=config.data.modalities)
    kind = config.validation.kind or splits.default_kind(dataset)
    faults = datasets.faults(dataset, config.data.preprocess)
    if kind != "none":
        faults += splits.faults(
            dataset, kind=kind, folds=config.validation.folds, fraction=config.validation.fraction
        )
    faults += _rules(config, dataset, kind)
    if faults:
        raise BadInput([f"{where}: {fault}" for fault in faults])
    resolved = config.with_overrides(
        {
            "data.name": dataset.name if data is None else IN_MEMORY,
            "data.modalities": list(dataset.modalities),
            "validation.kind": kind,
            "metric": config.metric or f"val/{metrics.default(dataset.num_classes)}",
            **({"data.dir": str(Path(config.data.dir).absolute())} if config.data.dir else {}),
        }
    )
    return Prepared(resolved, dataset)


def _rules(config: RunConfig, dataset: Dataset, kind: str) -> list[str]:
    # Imported here: the module needs torch, which a config with a misspelt key should not have to wait for.
    from m3col.training import known_metrics

    faults = []
    count = len(dataset.modalities)
    if methods.TABLE[config.method].one_modality and count != 1:
        faults.append(f"method {config.method!r} needs exactly one modality, but the data has {count}")
    if not methods.TABLE[config.method].one_modality and count < 2:
        faults.append(f"method {config.method!r} needs at least two modalities, but the data has {count}")
    known = known_metrics(config, dataset.modalities, dataset.num_classes)
    if config.metric is not None and config.metric not in known:
        faults.append(f"metric {config.metric!r} is never reported{nearest(config.metric, known)}")
    elif config.metric is not None and config.metric.startswith("train/"):
        faults.append(f"metric {config.metric!r} is of the training samples; choose one that starts with val/")
    weights = config.objective.class_weight
    if isinstance(weights, list) and len(weights) != dataset.num_classes:
        faults.append(
            f"objective.class_weight must have one weight for each of the {dataset.num_classes} classes, "
            f"but has {len(weights)}"
        )
    if config.train.schedule.kind == "plateau" and kind == "none":
        faults.append("train.schedule.kind 'plateau' follows a validation metric, but validation.kind is 'none'")
    return faults


def disk_faults(folder: Path, needed_bytes: int, *, what: str) -> list[str]:
    """Whether `folder` can be written and has room; the nearest existing parent stands for one that is not there."""
    existing = folder
    while not existing.exists():
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
        faults.append(
            f"{folder}: {what} needs about {needed_bytes * _MARGIN / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free"
        )
    return faults


def parameter_count(config: RunConfig, features: Mapping[str, int], num_classes: int) -> int:
    """Weights of one model, from its sizes alone: an upper bound, preprocessing may drop features."""
    width, hidden = config.model.embedding_dim, config.model.classifier_dim
    encoders = sum((count + 1) * width + (width + 1) * width for count in features.values())
    heads = len(features) * ((width + 1) * hidden + (hidden + 1) * num_classes)
    return encoders + heads + (width * len(features) + 1) * hidden + (hidden + 1) * num_classes


def checkpoint_bytes(config: RunConfig, dataset: Dataset, *, folds: int) -> int:
    """Size of one training checkpoint: weights and Adam's two moments of every fold."""
    features = {name: len(values) for name, values in dataset.features.items()}
    size = 8 if config.train.precision == "float64" else 4
    return 3 * size * folds * parameter_count(config, features, dataset.num_classes)
