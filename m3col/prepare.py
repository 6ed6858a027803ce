"""A config and its data set, judged together before anything is spent."""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m3col import data as datasets
from m3col import methods, metrics
from m3col.config import IN_MEMORY, RunConfig
from m3col.data import cache, looks, naming, splits, suspicions
from m3col.data.columns import Records
from m3col.data.dataset import SPLITS, Dataset, choose
from m3col.data.layout import Layout
from m3col.faults import BadInput, nearest
from m3col.judge import Fault, Where, lines, touches

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
        unknown = [key for key in data if key not in SPLITS]
        faults = [f"data: unknown split {key!r}{nearest(key, SPLITS)}" for key in unknown]
        faults += [
            f"data: {key!r} must be a pair (modalities, labels), but is a {type(pair).__name__}"
            for key, pair in data.items()
            if key in SPLITS and not (isinstance(pair, tuple | list) and len(pair) == 2)
        ]
        if faults:
            raise BadInput(faults)
        return datasets.from_arrays(*data["train"], test=data.get("test"), validation=data.get("validation"))
    raise BadInput(
        ["data: must be a Dataset, a pair (modalities, labels), or a mapping with 'train' and maybe 'test' pairs, "
         f"but got {type(data).__name__}"]
    )  # fmt: skip


def prepare(config: RunConfig, *, data: Any = None, where: Where = "config") -> Prepared:
    """Loads the data set and resolves the config against it. Raises BadInput with every fault of the two together."""
    prepared, faults = examine(config, data=data, where=where)
    if prepared is None:
        raise BadInput(faults)
    return prepared


def examine(
    config: RunConfig, *, data: Any = None, where: Where = "config", faulty: Collection[str] = ()
) -> tuple[Prepared | None, list[str]]:
    """As `prepare`, but with the faults instead of an exception. What depends on the keys in `faulty`, which were found
    wrong before, is not looked at, and nothing is resolved then."""
    dataset, faults = _load(config, data, where, faulty)
    if dataset is None:
        return None, [*faults, *([] if data is not None else lines(_faults_without_data(config, faulty), where))]
    faults += [] if data is None else datasets.unreadable(dataset)
    named = naming.faults(dataset.modalities, dataset.features, dataset.classes, dataset.kinds)
    faults += [f"{dataset.name}: {line}" for line in named]
    faults += [] if touches(faulty, "train.precision") else datasets.value_faults(dataset, config.train.precision)
    kind = config.validation.kind or splits.default_kind(dataset)
    faults += lines(_faults(config, dataset, kind, faulty), where)
    faults += [] if touches(faulty, "data.cache", "data.image") else _cache_faults(config, dataset)
    if faults or faulty:
        return None, faults
    resolved = config.with_overrides(
        {
            "data.name": dataset.name if data is None else IN_MEMORY,
            "data.modalities": list(dataset.modalities),
            "validation.kind": kind,
            "metric": config.metric or f"val/{metrics.default(dataset.num_classes)}",
            **({"data.dir": str(Path(config.data.dir).absolute())} if config.data.dir else {}),
        }
    )
    return Prepared(resolved, with_suspicions(dataset, resolved, in_memory=data is not None)), []


def with_suspicions(dataset: Dataset, config: RunConfig, *, in_memory: bool) -> Dataset:
    """The data set with warnings about its content: samples on both sides of a split or fold, columns that number the
    rows. Pictures in two splits of a folder were told when it was read."""
    splits_told = not in_memory and "image" in dataset.kinds.values()
    found = suspicions.of_training(dataset) if splits_told else suspicions.of_dataset(dataset)
    validation = config.validation
    if validation.kind in ("kfold", "holdout"):
        folds = splits.draw(
            dataset,
            kind=validation.kind,
            folds=validation.folds,
            fraction=validation.fraction,
            seed=validation.seed,
        )
        found += suspicions.across_folds(dataset.name, dataset.train, folds)
    return replace(dataset, warnings=tuple(dict.fromkeys((*dataset.warnings, *found)))) if found else dataset


def layout(config: RunConfig) -> Layout:
    """Where the config says that pictures, texts and labels are."""
    columns = config.data.text.columns
    return Layout(config.data.image.column, None if columns is None else tuple(columns), config.data.label_column)


def _load(config: RunConfig, data: Any, where: Where, faulty: Collection[str]) -> tuple[Dataset | None, list[str]]:
    """The data set, or None and why it cannot be had (no line where that is told by `faulty`)."""
    wanted = None if touches(faulty, "data.modalities") else config.data.modalities
    try:
        if data is not None:
            dataset = as_dataset(data)
            return dataset if wanted is None else dataset.select(wanted), []
        if touches(faulty, "data.name", "data.dir", "data.modalities"):
            return None, []
        if config.data.name == IN_MEMORY:
            text = f"data.name is {IN_MEMORY!r}: these are arrays in memory; hand them over as `data`"
            return None, lines([Fault("data.name", text)], where)
        folder = None if config.data.dir is None else Path(config.data.dir)
        if folder is not None and not os.path.isdir(folder):  # False also for a name that is too long
            return None, lines([Fault("data.dir", f"data.dir (--data-dir) {folder} is not a folder")], where)
        return datasets.load(
            config.data.name, data_dir=folder, modalities=wanted, layout=layout(config), pictures=True
        ), []  # fmt: skip
    except BadInput as error:
        named = [Fault(text.partition(":")[0], text) for text in error.faults if text.startswith("data.")]
        return None, [*lines(named, where), *(text for text in error.faults if not text.startswith("data."))]


def _faults(config: RunConfig, dataset: Dataset, kind: str, faulty: Collection[str]) -> list[Fault]:
    """All that the config and the data set forbid each other."""
    faults: list[Fault] = []
    if not touches(faulty, "data.preprocess"):
        found = datasets.faults(dataset, config.data.preprocess, precision=config.train.precision)
        faults += [Fault("data.preprocess", text) for text in found]
    if kind != "none" and not touches(faulty, "validation"):
        validation = config.validation
        found = splits.faults(dataset, kind=kind, folds=validation.folds, fraction=validation.fraction)
        faults += [Fault(text.partition(":")[0], text) for text in found]
    if not touches(faulty, "method", "data.modalities"):
        faults += _modality_faults(config, dataset.modalities)
    faults += _per_modality_faults(config, dataset.modalities, (*dataset.modalities, *dataset.unselected))
    of_models = _model_faults(config, set(dataset.kinds.values()), faulty)
    if not of_models and not touches(faulty, "model", "data.image", "data.text"):
        of_models = memory_faults(config.with_overrides({"validation.kind": kind}), dataset)
    faults += of_models
    if not touches(faulty, "metric", "method", "objective.unimodal_supervision", "data.modalities"):
        faults += _metric_faults(config, dataset)
    weights = config.objective.class_weight
    if isinstance(weights, list) and len(weights) != dataset.num_classes:
        text = f"objective.class_weight must have one weight for each of the {dataset.num_classes} classes"
        faults.append(Fault("objective.class_weight", f"{text}, but has {len(weights)}: {weights!r}"))
    return faults


def _faults_without_data(config: RunConfig, faulty: Collection[str]) -> list[Fault]:
    """What the config and the data set forbid each other as far as the name of the data set tells, when its files
    cannot be used: of modalities, encoders and tokenisers."""
    entry = datasets.TABLE.get(config.data.name)
    if entry is None or entry.modalities is None or touches(faulty, "data.name"):
        return []
    names: Sequence[str] = entry.default or entry.modalities
    if config.data.modalities is not None and not touches(faulty, "data.modalities"):
        names = choose(config.data.modalities, entry.modalities)[0] or names
    faults = _per_modality_faults(config, names, entry.modalities)
    return faults + _model_faults(config, {entry.kinds.get(name, "numeric") for name in names}, faulty)


def _model_faults(config: RunConfig, kinds: Collection[str], faulty: Collection[str]) -> list[Fault]:
    """Of the encoders of these kinds whose settings were not found wrong before."""
    both = ("model.embedding_dim", "model.gradient_checkpointing")
    judged = [kind for kind in ("image", "text") if kind in kinds]
    judged = [kind for kind in judged if not touches(faulty, f"model.{kind}", f"data.{kind}", *both)]
    if not judged:
        return []
    import m3col.models.hub as hub  # it needs torch and more

    return hub.faults(config.model, config.data, judged)


def _cache_faults(config: RunConfig, dataset: Dataset) -> list[str]:
    """Whether decoded pictures and tokens can be kept where they belong. Nothing is asked for pictures that are there;
    tokens take little room."""
    columns = [column for column in dataset.train.inputs.values() if isinstance(column, Records)]
    if not config.data.cache or not columns:
        return []
    from m3col.preparing import Pictures  # it needs torch

    side = Pictures(config.data.image.size, config.data.image.augment).short_side
    needed = sum(cache.needed_bytes(column, side) for column in columns if column.kind == "image")
    if not needed and all(column.kind == "image" for column in columns):
        return []
    found = disk_faults(looks.folder(), needed, what="the cache of decoded pictures")
    return [f"{line}; or name another folder in M3COL_CACHE, or set data.cache=false" for line in found]


def _modality_faults(config: RunConfig, modalities: Sequence[str]) -> list[Fault]:
    # A method for one modality has named it in its config: nothing is left to compare.
    if len(modalities) > 1 or methods.TABLE[config.method].one_modality:
        return []
    only = ", ".join(modalities)
    return [Fault("method", f"method {config.method!r} needs at least two modalities, but the data has one ({only})")]


def _per_modality_faults(config: RunConfig, modalities: Sequence[str], known: Sequence[str]) -> list[Fault]:
    """What is given for each modality. A row of the test table may leave one of the `known` ones out that the rest of
    its config names."""
    level, rates = config.mix.level, config.train.encoder_learning_rate
    faults = [
        Fault(key, f"{key}: modality {name!r} is unknown{nearest(name, known)}")
        for key, given in (("mix.level", level), ("train.encoder_learning_rate", rates))
        for name in (given if isinstance(given, dict) else ())
        if name not in known
    ]
    missing = [name for name in modalities if isinstance(level, dict) and name not in level]
    if missing:
        faults.append(Fault("mix.level", f"mix.level must name every modality, but lacks {', '.join(missing)}"))
    return faults


def _metric_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    # Imported here: the module needs torch, which a config with a misspelt key should not have to wait for.
    from m3col.training import known_metrics

    name = config.metric
    known = [m for m in known_metrics(config, dataset.modalities, dataset.num_classes) if m.startswith("val/")]
    if name is None or name in known:
        return []
    default = f"val/{metrics.default(dataset.num_classes)}"
    if name.startswith("train/"):
        text = f"metric {name!r} is of the training samples; choose one that starts with val/, such as {default!r}"
    elif name in known_metrics(config, dataset.modalities, 2):
        text = f"metric {name!r} is for two classes, but the data has {dataset.num_classes}; use {default!r}"
    else:
        text = f"metric {name!r} is never reported{nearest(name, known)}"
    return [Fault("metric", text)]


def disk_faults(folder: Path, needed_bytes: int, *, what: str) -> list[str]:
    """Whether `folder` can be written and has room; the nearest existing parent stands for one that is not there."""
    existing = folder
    while not os.path.exists(existing):  # False also below a folder that may not be entered
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
    config: RunConfig, features: Mapping[str, int], num_classes: int, *, encoders: Mapping[str, int] | None = None
) -> int:  # fmt: skip
    """Weights of one model, from its sizes alone: an upper bound, preprocessing may drop features. `encoders`: those of
    the encoders of pictures and texts, by modality."""
    width, hidden = config.model.embedding_dim, config.model.classifier_dim
    given = encoders or {}
    count = sum(given.values())
    count += sum((size + 1) * width + (width + 1) * width for name, size in features.items() if name not in given)
    between = (config.model.classifier_layers - 2) * (hidden + 1) * hidden
    count += len(features) * ((width + 1) * hidden + between + (hidden + 1) * num_classes)
    return count + (width * len(features) + 1) * hidden + between + (hidden + 1) * num_classes


def _parameters(config: RunConfig, dataset: Dataset) -> int:
    sizes = {name: len(values) for name, values in dataset.features.items()}
    kinds = dataset.kinds
    if set(kinds.values()) == {"numeric"}:
        return parameter_count(config, sizes, dataset.num_classes)
    import m3col.models.hub as hub

    by_kind = hub.parameter_counts(config.model, config.data, set(kinds.values()))
    encoders = {name: by_kind[kind] for name, kind in kinds.items() if kind != "numeric"}
    return parameter_count(config, sizes, dataset.num_classes, encoders=encoders)


def checkpoint_bytes(config: RunConfig, dataset: Dataset, *, folds: int) -> int:
    """Size of one training checkpoint: weights and Adam's two moments of every fold."""
    size = 8 if config.train.precision == "float64" else 4
    return 3 * size * folds * _parameters(config, dataset)


def memory_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    """Whether the models of all folds, trained in lockstep, fit into this machine: weights, gradients and Adam's two
    moments, without what a batch takes. Only asked of pictures and texts: other models are small."""
    folds = config.validation.folds
    if config.validation.kind != "kfold" or set(dataset.kinds.values()) == {"numeric"}:
        return []
    import psutil
    import torch

    on_gpu = config.train.device != "cpu" and torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[1] if on_gpu else psutil.virtual_memory().available
    each = 4 * (8 if config.train.precision == "float64" else 4) * _parameters(config, dataset)
    if folds * each <= free:
        return []
    text = (f"validation.kind 'kfold': {folds} models in lockstep take {folds * each / 1e9:.1f} GB without their "
            f"batches, but {free / 1e9:.1f} GB are free; use 'holdout'")  # fmt: skip
    return [Fault("validation.kind", text)]
