"""Validates a config against its data set, before anything is computed."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m3col.augmentation import registry as augmentations
from m3col.checks.limits import disk_faults, memory_faults
from m3col.config.keys import touches
from m3col.config.loading import with_overrides
from m3col.config.rules import AUGMENT, IN_MEMORY
from m3col.config.schema import RunConfig
from m3col.config.validation import Fault, Where, lines
from m3col.data import arrays, label_tables, loading, modality_kinds, resplits, splits
from m3col.data import catalog as datasets
from m3col.data.checks import data_warnings, dataset_values, naming
from m3col.data.columns import MediaColumn
from m3col.data.dataset import SPLITS, Dataset, choose
from m3col.data.formats.csv_columns import Layout
from m3col.data.images import cache, index
from m3col.data.permuted_labels import permuted
from m3col.errors import InputError, nearest
from m3col.methods import registry
from m3col.methods.settings import SelfSupervisedSettings, stack_share
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task


@dataclass(frozen=True)
class ResolvedRun:
    """A validated config and its data set.

    Attributes:
        config: the config, with the values filled in that depend on the data: validation kind, modalities, metric.
        dataset: the data set.
    """

    config: RunConfig
    dataset: Dataset

    @property
    def task(self) -> Task:
        """The task of the config on this data set."""
        return tasks.of(self.config, self.dataset.classes)


def as_dataset(data: Any, task: str = tasks.DEFAULT) -> Dataset:
    """The data set from data in memory.

    Args:
        data: a `Dataset`, a pair (modalities, labels), or {"train": pair, "test": pair, "validation": pair}, where
            `modalities` maps names to arrays or DataFrames [N, D_m], or to lists of N images, texts or sequences.
        task: what the labels are for, see `m3col.data.from_arrays`.

    Returns:
        The data set.

    Raises:
        InputError: with every fault of the data.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return arrays.from_arrays(*data, task=task)
    if isinstance(data, Mapping) and "train" in data:
        unknown = [key for key in data if key not in SPLITS]
        faults = [f"data: unknown split {key!r}{nearest(key, SPLITS)}" for key in unknown]
        faults += [
            f"data: {key!r} must be a pair (modalities, labels), but is a {type(pair).__name__}"
            for key, pair in data.items()
            if key in SPLITS and not (isinstance(pair, tuple | list) and len(pair) == 2)
        ]
        if faults:
            raise InputError(faults)
        return arrays.from_arrays(*data["train"], test=data.get("test"), validation=data.get("validation"), task=task)
    raise InputError(
        ["data: must be a Dataset, a pair (modalities, labels), or a mapping with 'train' and maybe 'test' pairs, "
         f"but got {type(data).__name__}"]
    )  # fmt: skip


def resolve(config: RunConfig, *, data: Any = None, where: Where = "config") -> ResolvedRun:
    """Loads the data set and fills in the config values that depend on it. Raises InputError with every fault."""
    prepared, faults = check_against_data(config, data=data, where=where)
    if prepared is None:
        raise InputError(faults)
    return prepared


def check_against_data(
    config: RunConfig, *, data: Any = None, where: Where = "config", faulty: Collection[str] = ()
) -> tuple[ResolvedRun | None, list[str]]:
    """As `resolve`, but returns the faults instead of raising them.

    Args:
        config: the config.
        data: a data set in memory, see `as_dataset`; None: the config names it.
        where: the file or argument in front of each fault, or a function that returns it for a dotted key.
        faulty: dotted keys whose faults are already known. Values that depend on them are not validated.

    Returns:
        The resolved run, or None where there are faults or `faulty` keys; and one line per fault.
    """
    dataset, faults = _load(config, data, where, faulty)
    if dataset is None:
        return None, [*faults, *([] if data is not None else lines(_faults_without_data(config, faulty), where))]
    faults += [] if data is None else dataset_values.unreadable(dataset)
    form = None if touches(faulty, "task") else tasks.load(config.task).label_form
    label_faults = [] if form is None else label_tables.dataset_faults(dataset, form, config.task)
    if label_faults:  # everything below relies on the form of the labels
        return None, [*faults, *label_faults]
    pretrain_faults = dataset_values.pretrain_faults(dataset)
    if pretrain_faults:
        return None, [*faults, *pretrain_faults]
    named = naming.faults(dataset.modalities, dataset.features, dataset.classes, dataset.kinds)
    faults += [f"{dataset.name}: {line}" for line in named]
    faults += [] if touches(faulty, "train.precision") else dataset_values.value_faults(dataset, config.train.precision)
    kind = config.validation.kind or splits.default_kind(dataset)
    faults += lines(_faults(config, dataset, kind, faulty), where)
    faults += [] if touches(faulty, "data.cache", "data.image") else _cache_faults(config, dataset)
    if faults or faulty:
        return None, faults
    resolved = with_overrides(
        config,
        {
            "data.name": dataset.name if data is None else IN_MEMORY,
            "data.modalities": list(dataset.modalities),
            "validation.kind": kind,
            "metric": config.metric or f"val/{tasks.of(config, dataset.classes).default_metric}",
            **({"data.dir": str(Path(config.data.dir).absolute())} if config.data.dir else {}),
            **({"train.init": str(Path(config.train.init).absolute())} if config.train.init else {}),
        },
    )
    return ResolvedRun(resolved, with_suspicions(dataset, resolved, in_memory=data is not None)), []


def with_suspicions(dataset: Dataset, config: RunConfig, *, in_memory: bool) -> Dataset:
    """The data set with warnings about its content, such as samples in two splits or folds, or columns that number the
    rows."""
    # Loading a folder of images already warns of images that are in two splits.
    splits_compared = not in_memory and "image" in dataset.kinds.values()
    warnings = data_warnings.of_training(dataset) if splits_compared else data_warnings.of_dataset(dataset)
    warnings = [*warnings, *_view_warnings(config, dataset)]
    validation = config.validation
    if validation.kind in ("kfold", "holdout"):
        folds = splits.draw(
            dataset,
            kind=validation.kind,
            folds=validation.folds,
            fraction=validation.fraction,
            seed=validation.seed,
            task=tasks.of(config, dataset.classes),
        )
        warnings += data_warnings.across_folds(dataset.name, dataset.train, folds)
    return replace(dataset, warnings=tuple(dict.fromkeys((*dataset.warnings, *warnings)))) if warnings else dataset


def _view_warnings(config: RunConfig, dataset: Dataset) -> list[str]:
    """A warning if a method compares augmentations of a sample, but no modality of the run is augmented."""
    if not issubclass(registry.find(config.method).settings, SelfSupervisedSettings):
        return []
    from m3col.methods.batch import CLEAN  # imported here, because it imports torch

    views = [view for view in registry.load(config.method).views if view != CLEAN]
    specs = {kind: getattr(config.data, kind).augment for kind in set(dataset.kinds.values())}
    own = [augmentations.of_modality(specs[kind], name) for name, kind in dataset.kinds.items()]
    if not views or any(augmentations.is_used(spec) for spec in own):
        return []
    keys = [f"data.{kind}.augment" for kind in sorted(specs)]
    return [
        f"method {config.method!r} compares augmentations of a sample, but none is set: they are all equal, and it "
        f"learns only to tell samples apart; set {' or '.join(keys)}"
    ]


def layout(config: RunConfig) -> Layout:
    """The columns of images, texts and labels that the config names, and what is drawn."""
    data = config.data
    columns = None if data.text.columns is None else tuple(data.text.columns)
    label = data.label_column if isinstance(data.label_column, str) else tuple(data.label_column)
    return Layout(data.image.column, columns, label, data.trifeatures, tasks.load(config.task).label_form)


def _load(config: RunConfig, data: Any, where: Where, faulty: Collection[str]) -> tuple[Dataset | None, list[str]]:
    """The data set; or None and the faults, without those of keys in `faulty`."""
    modalities = None if touches(faulty, "data.modalities") else config.data.modalities
    try:
        if data is not None:
            if touches(faulty, "task") and not isinstance(data, Dataset):
                return None, []  # nothing says what its labels are for
            dataset = as_dataset(data, config.task)
            if config.data.resplit is not None and not touches(faulty, "data.resplit", "task"):
                # before modalities are left out: one of them may hold the groups
                task = tasks.of(config, dataset.classes)
                dataset = resplits.apply(dataset, config.data.resplit, task=task)
            if config.data.permuted_labels is not None and not touches(faulty, "data.permuted_labels"):
                dataset = permuted(dataset, config.data.permuted_labels)
            return dataset if modalities is None else dataset.select(modalities), []
        if touches(faulty, "data.name", "data.dir", "data.modalities"):
            return None, []
        if config.data.name == IN_MEMORY:
            text = f"data.name is {IN_MEMORY!r}: these are arrays in memory; hand them over as `data`"
            return None, lines([Fault("data.name", text)], where)
        folder = None if config.data.dir is None else Path(config.data.dir)
        if folder is not None and not os.path.isdir(folder):  # False also for a name that is too long
            return None, lines([Fault("data.dir", f"data.dir (--data-dir) {folder} is not a folder")], where)
        return loading.load(
            config.data.name, data_dir=folder, modalities=modalities, layout=layout(config), images=True,
            resplit=None if touches(faulty, "data.resplit", "task") else config.data.resplit,
            permutation=None if touches(faulty, "data.permuted_labels") else config.data.permuted_labels,
            task=config.task,
        ), []  # fmt: skip
    except InputError as error:
        named = [Fault(text.partition(":")[0], text) for text in error.faults if text.startswith("data.")]
        return None, [*lines(named, where), *(text for text in error.faults if not text.startswith("data."))]


def _faults(config: RunConfig, dataset: Dataset, kind: str, faulty: Collection[str]) -> list[Fault]:
    """The faults of the config for this data set."""
    faults: list[Fault] = []
    task = tasks.of(config, dataset.classes)
    if not touches(faulty, "data.preprocess"):
        texts = dataset_values.faults(dataset, config.data.preprocess, precision=config.train.precision)
        faults += [Fault("data.preprocess", text) for text in texts]
    if kind != "none" and not touches(faulty, "validation"):
        validation = config.validation
        texts = splits.faults(dataset, kind=kind, folds=validation.folds, fraction=validation.fraction, task=task)
        faults += [Fault(text.partition(":")[0], text) for text in texts]
    if not faults and not touches(faulty, "objective", "validation", "method"):
        faults += _stacking_faults(config, dataset, kind, task)
    if not touches(faulty, "method", "data.modalities"):
        faults += _modality_faults(config, dataset) or _method_faults(config, dataset, task, faulty)
    faults += _per_modality_faults(config, dataset.modalities, (*dataset.modalities, *dataset.unselected))
    faults += _augment_faults(config, dataset, faulty)
    model_faults = _model_faults(config, set(dataset.kinds.values()), faulty)
    if not model_faults and not touches(faulty, "model", "data.image", "data.text"):
        model_faults = memory_faults(with_overrides(config, {"validation.kind": kind}), dataset)
        if not touches(faulty, "method", "objective"):
            model_faults += _training_faults(config, dataset)
    faults += model_faults
    if not touches(faulty, "metric", "method", "objective.unimodal_supervision", "data.modalities"):
        faults += _metric_faults(config, dataset)
    if config.train.init is not None and not touches(faulty, "train.init", "data.modalities"):
        from m3col.training import initial_weights  # imported here, because it imports torch

        features = {name: dataset.features[name] for name in dataset.modalities}
        faults += [Fault("train.init", line) for line in initial_weights.faults(config, features)]
    weight_fault = task.class_weight_fault(config.objective.class_weight)
    return [*faults, *([Fault("objective.class_weight", weight_fault)] if weight_fault else [])]


def _faults_without_data(config: RunConfig, faulty: Collection[str]) -> list[Fault]:
    """Faults of modalities, encoders and tokenizers, where the files of the data set cannot be used and only its entry
    in the table of data sets is known."""
    entry = datasets.TABLE.get(config.data.name)
    if entry is None or entry.modalities is None or touches(faulty, "data.name"):
        return []
    names: Sequence[str] = entry.default or entry.modalities
    if config.data.modalities is not None and not touches(faulty, "data.modalities"):
        names = choose(config.data.modalities, entry.modalities)[0] or names
    faults = _per_modality_faults(config, names, entry.modalities)
    return faults + _model_faults(config, {entry.kinds.get(name, modality_kinds.NUMERIC) for name in names}, faulty)


def _model_faults(config: RunConfig, kinds: Collection[str], faulty: Collection[str]) -> list[Fault]:
    """Faults of the encoders of images, texts and sequences whose settings have no known faults."""
    shared_keys = ("model.embedding_dim", "model.gradient_checkpointing")
    checked = [kind for kind in modality_kinds.TABLE if kind in kinds and not modality_kinds.of(kind).is_table]
    checked = [kind for kind in checked if not touches(faulty, f"model.{kind}", f"data.{kind}", *shared_keys)]
    if not checked:
        return []
    import m3col.checks.encoders as encoders  # imported here, because it imports torch, timm and transformers

    return encoders.faults(config.model, config.data, checked)


def _training_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    """A fault of a method without labels whose evaluated embeddings no training changes."""
    if not (config.model.image.frozen or config.model.text.frozen):
        return []
    from m3col.checks import trained_weights  # imported here, because it imports torch

    return trained_weights.faults(config, dataset)


def _cache_faults(config: RunConfig, dataset: Dataset) -> list[str]:
    """Faults of the cache folder: no space for the decoded images, or not writable. Tokens need little space."""
    columns = [column for column in dataset.train.inputs.values() if isinstance(column, MediaColumn)]
    if not config.data.cache or not columns:
        return []
    from m3col.inputs.images import ImageTransform  # imported here, because it imports torch

    image = config.data.image
    side = ImageTransform(image.size, "none", image.short_side).short_side
    needed = sum(cache.needed_bytes(column, side) for column in columns if column.kind == "image")
    if not needed and all(column.kind == "image" for column in columns):
        return []
    faults = disk_faults(index.folder(), needed, what="the cache of decoded images")
    return [f"{line}; or name another folder in M3COL_CACHE, or set data.cache=false" for line in faults]


def _modality_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    # The rules of the config already require that a method for one modality names it.
    spec, modalities = registry.find(config.method), dataset.modalities
    kinds = [dataset.kinds[name] for name in modalities]
    if spec.kinds is not None and sorted(kinds) != sorted(spec.kinds):
        there = ", ".join(f"{name} ({kind})" for name, kind in zip(modalities, kinds, strict=True))
        rule = f"method {config.method!r} takes one modality of each of {', '.join(spec.kinds)}"
        return [Fault("method", f"{rule}, but the data has {there}")]
    if config.data.modalities is None and spec.most_modalities is not None and len(modalities) > spec.most_modalities:
        near = f"nearest valid: data.modalities: {[*modalities[: spec.most_modalities]]}"
        rule = f"method {config.method!r} takes {spec.most_modalities} modalities"
        return [Fault("method", f"{rule}, but the data has {len(modalities)} ({', '.join(modalities)}); {near}")]
    if len(modalities) > 1 or spec.one_modality:
        return []
    only = ", ".join(modalities)
    return [Fault("method", f"method {config.method!r} needs at least two modalities, but the data has one ({only})")]


def _method_faults(config: RunConfig, dataset: Dataset, task: Task, faulty: Collection[str]) -> list[Fault]:
    """What the method itself refuses of this data set."""
    if touches(faulty, "task", "objective"):
        return []
    kinds = {name: dataset.kinds[name] for name in dataset.modalities}
    return [Fault("method", line) for line in registry.load(config.method).data_faults(config, kinds, task)]


def _stacking_faults(config: RunConfig, dataset: Dataset, kind: str, task: Task) -> list[Fault]:
    """Classes with too few samples to hold one out of each training fold, where the config asks for it."""
    if stack_share(config) is None:
        return []
    of, pool, key = config.validation, splits.pool(dataset, kind), "objective.stack_share"
    folds = splits.draw(dataset, kind=kind, folds=of.folds, fraction=of.fraction, seed=of.seed, task=task)
    texts = [text for fold in folds for text in splits.held_out_faults(pool.take(fold.train), task, where=key)]
    return [Fault(key, text) for text in dict.fromkeys(texts)]


def _per_modality_faults(config: RunConfig, modalities: Sequence[str], known: Sequence[str]) -> list[Fault]:
    """Faults of values by modality. `known`: all modalities of the data set, of which a run may use a part only."""
    level = config.mix.level if config.mix is not None else ""
    rates = config.train.encoder_learning_rate
    faults = [
        Fault(key, f"{key}: modality {name!r} is unknown{nearest(name, known)}")
        for key, by_modality in (("mix.level", level), ("train.encoder_learning_rate", rates))
        for name in (by_modality if isinstance(by_modality, dict) else ())
        if name not in known
    ]
    missing = [name for name in modalities if isinstance(level, dict) and name not in level]
    if missing:
        faults.append(Fault("mix.level", f"mix.level must name every modality, but lacks {', '.join(missing)}"))
    return faults


def _augment_faults(config: RunConfig, dataset: Dataset, faulty: Collection[str]) -> list[Fault]:
    """Augmentations by modality that name one which the data set lacks, or which is of another kind."""
    faults = []
    for key, kind in AUGMENT.items():
        spec = getattr(config.data, kind).augment
        for name in spec if isinstance(spec, dict) and not touches(faulty, key) else ():
            of_kind = [modality for modality, own in dataset.kinds.items() if own == kind]
            if name in dataset.unselected or name in of_kind:
                continue
            text = f"is {dataset.kinds[name]}, not {kind}" if name in dataset.kinds else "is unknown"
            faults.append(Fault(key, f"{key}: modality {name!r} {text}{nearest(name, of_kind)}"))
    return faults


def _metric_faults(config: RunConfig, dataset: Dataset) -> list[Fault]:
    # Imported here, because the module imports torch, which takes seconds that a misspelt key should not cost.
    from m3col.evaluation.epoch_metrics import known_metrics

    name, task = config.metric, tasks.of(config, dataset.classes)
    known = [m for m in known_metrics(config, dataset.modalities, task) if m.startswith("val/")]
    if name is None or name in known:
        return []
    default = f"val/{task.default_metric}"
    if name.startswith("train/"):
        text = f"metric {name!r} is of the training samples; choose one that starts with val/, such as {default!r}"
    elif name in known_metrics(config, dataset.modalities, tasks.of(config, 2)):
        text = f"metric {name!r} is for two classes, but the data has {task.width}; use {default!r}"
    elif other := _task_of_metric(name.partition("/")[2]):
        text = f"metric {name!r} is of task {other}, but the task is {config.task!r}; use {default!r}"
    else:
        text = f"metric {name!r} is never reported{nearest(name, known)}"
    return [Fault("metric", text)]


def _task_of_metric(name: str) -> str:
    """The tasks that have a metric; "" if none has."""
    return ", ".join(repr(task) for task in tasks.names() if name in tasks.build(task, 2).metrics)
