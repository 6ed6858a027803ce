"""Rules that involve several fields of a run config. They validate raw values, so all faults are reported together."""

from collections.abc import Mapping
from typing import Any

from m3col.augmentation import registry as augmentations
from m3col.config import yaml_files
from m3col.config.keys import get
from m3col.config.modality_sections import ImageDataConfig
from m3col.config.validation import Fault
from m3col.errors import InputError, nearest
from m3col.methods import registry
from m3col.tasks import registry as tasks

IN_MEMORY = "arrays"  # data.name of a data set that was passed as arrays in Python

OPTIONS = ("model.image.options", "model.text.options")

AUGMENT = {f"data.{kind}.augment": kind for kind in ("image", "numeric", "text", "sequence")}

_ABSENT = object()


def faults(raw: Mapping[str, Any]) -> list[Fault]:
    """All faults of the rules in this module."""
    return [
        fault
        for rule in (
            _task_rules,
            _method_rules,
            _fusion_rules,
            _decision_rules,
            _evaluation_rules,
            _train_rules,
            _data_rules,
            _compile_rules,
            _frozen_rules,
            _option_rules,
        )
        for fault in rule(raw)
    ]


def _task_rules(raw: Mapping[str, Any]) -> list[Fault]:
    name, method = raw.get("task", tasks.DEFAULT), raw.get("method", registry.DEFAULT)
    lines = tasks.faults(name)
    if lines:
        return [Fault("task", line) for line in lines]
    faults = []
    has = registry.find(method).tasks if registry.is_method(method) else None
    if has is not None and name not in has:
        faults.append(Fault("task", f"task {name!r} is not one of method {method!r}; it has {', '.join(has)}"))
    threshold = raw.get("threshold")
    if threshold is not None and not tasks.load(name).has_threshold:
        having = ", ".join(other for other in tasks.names() if tasks.load(other).has_threshold)
        faults.append(Fault("threshold", f"threshold is of task {having}, but the task is {name!r}; leave it out"))
    elif threshold == "validation" and get(raw, "validation.kind") == "none":
        text = "threshold 'validation' needs validation predictions, but validation.kind is 'none'; nearest: 0.5"
        faults.append(Fault("threshold", text))
    column = get(raw, "data.label_column")
    if isinstance(column, list) and (not column or tasks.load(name).label_form == "class"):
        text = "must be one column" if column else "must name at least one column"
        faults.append(Fault("data.label_column", f"data.label_column {text} for task {name!r}, but is {column!r}"))
    return faults


def _method_rules(raw: Mapping[str, Any]) -> list[Fault]:
    method = raw.get("method", registry.DEFAULT)
    try:
        spec, ignored = registry.find(method), registry.ignored_keys(method)
    except InputError as error:
        return [Fault("method", line) for line in error.faults]
    has = ", ".join(sorted(spec.keys)) or "none of its own"
    faults = [
        Fault(path, f"{path} is not a key of method {method!r} (its keys: {has})")
        for path in sorted(ignored)
        if get(raw, path, _ABSENT) is not _ABSENT
    ]
    modalities = get(raw, "data.modalities")
    has_one = isinstance(modalities, list) and len(modalities) == 1
    key = "method" if modalities is None else "data.modalities"
    if spec.one_modality and not has_one:
        text = f"method {method!r} needs data.modalities with exactly one modality, but got {modalities!r}"
        faults.append(Fault(key, text))
    if not spec.one_modality and has_one:
        text = f"method {method!r} needs at least two modalities, but data.modalities is {modalities!r}"
        faults.append(Fault(key, text))
    if spec.most_modalities is not None and isinstance(modalities, list) and len(modalities) > spec.most_modalities:
        text = f"method {method!r} needs data.modalities with {spec.most_modalities} modalities, but got {modalities!r}"
        faults.append(Fault(key, text))
    return faults


def _decision_rules(raw: Mapping[str, Any]) -> list[Fault]:
    """A decision of several heads needs heads."""
    method, decision, key = raw.get("method", registry.DEFAULT), get(raw, "objective.decision"), "unimodal_supervision"
    if decision not in ("mean_of_heads", "stacked") or not registry.is_method(method):
        return []
    default = registry.find(method).settings.model_fields.get(key)
    if get(raw, f"objective.{key}", True if default is None else default.default) is not False:
        return []
    text = (
        f"objective.decision {decision!r} needs a head per modality, but objective.{key} is false; nearest valid: "
        f"'fused', or objective.{key}: true"
    )
    return [Fault("objective.decision", text)]


def _fusion_rules(raw: Mapping[str, Any]) -> list[Fault]:
    """The heads of a fusion transformer must divide its width."""
    width, heads = get(raw, "model.embedding_dim", 256), get(raw, "objective.fusion_heads")
    method = raw.get("method", registry.DEFAULT)
    if not registry.is_method(method) or "objective.fusion_heads" not in registry.find(method).keys:
        return []
    heads = registry.find(method).settings.model_fields["fusion_heads"].default if heads is None else heads
    if not (_is_int(width) and _is_int(heads) and width >= 1 and heads >= 1) or width % heads == 0:
        return []
    near = min((n for n in range(1, width + 1) if width % n == 0), key=lambda number: abs(number - heads))
    text = f"objective.fusion_heads must divide model.embedding_dim ({width}), but is {heads}; nearest valid: {near}"
    return [Fault("objective.fusion_heads", text)]


def _evaluation_rules(raw: Mapping[str, Any]) -> list[Fault]:
    """Rules of methods whose predictions come from a linear classifier on their embeddings."""
    method = raw.get("method", registry.DEFAULT)
    keys = registry.find(method).keys if registry.is_method(method) else frozenset[str]()
    faults = []
    if "objective.evaluations" in keys and get(raw, "train.batch_size") == 1:
        text = f"train.batch_size must be >= 2 for method {method!r}, which compares samples, but is 1; nearest: 2"
        faults.append(Fault("train.batch_size", text))
    if keys & {"objective.fusion_layers", "objective.image_tokens"} and get(raw, "model.compile") is True:
        text = f"model.compile must be false for method {method!r}: the tokens of its encoders are not compiled"
        faults.append(Fault("model.compile", text))
    return faults


def _train_rules(raw: Mapping[str, Any]) -> list[Fault]:
    faults = []
    shards, batch = get(raw, "train.shards", 1), get(raw, "train.batch_size")
    if _is_int(shards) and _is_int(batch) and shards > batch >= 1:
        text = f"train.shards must be <= train.batch_size, but got {shards}; the nearest valid value is {batch}"
        faults.append(Fault("train.shards", text))
    if get(raw, "train.schedule.kind") == "plateau" and get(raw, "validation.kind") == "none":
        text = "train.schedule.kind 'plateau' follows a validation metric, but validation.kind is 'none'"
        faults.append(Fault("train.schedule.kind", text))
    if get(raw, "train.schedule.kind") == "warmup_cosine":
        epochs, warmup = get(raw, "train.epochs", 100), get(raw, "train.schedule.warmup", 10)
        if _is_int(epochs) and _is_int(warmup) and warmup >= epochs >= 1:
            text = f"train.schedule.warmup must be < train.epochs ({epochs}), but is {warmup}"
            near = "train.schedule.kind: none" if epochs == 1 else str(epochs - 1)
            faults.append(Fault("train.schedule.warmup", f"{text}; nearest valid: {near}"))
    weights = get(raw, "objective.class_weight")
    if isinstance(weights, list) and weights and all(yaml_files.is_finite_number(w) and w == 0 for w in weights):
        text = f"objective.class_weight must have a positive weight, but got {weights!r}"
        faults.append(Fault("objective.class_weight", text))
    return faults


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _data_rules(raw: Mapping[str, Any]) -> list[Fault]:
    # Imported here, because the data package imports numpy and pandas, which `m3col --help` does not need.
    from m3col.data import catalog, preprocessing
    from m3col.data.formats import trifeatures

    faults = []
    name = get(raw, "data.name", "digits")
    if isinstance(name, str) and name not in catalog.names() and name != IN_MEMORY:
        faults.append(Fault("data.name", f"data.name {name!r} is unknown{nearest(name, catalog.names())}"))
    target = get(raw, "data.trifeatures.target")
    faults += [Fault("data.trifeatures.target", text) for text in trifeatures.target_faults(name, target)]
    side, size = get(raw, "data.image.short_side"), get(raw, "data.image.size", ImageDataConfig().size)
    if _is_int(side) and _is_int(size) and side < size:
        text = f"data.image.short_side must be >= data.image.size ({size}), but got {side}; the nearest valid value is"
        faults.append(Fault("data.image.short_side", f"{text} {size}"))
    if get(raw, "data.resplit") is not None and get(raw, "validation.kind") == "given":
        text = (
            "validation.kind 'given' is the data set's own validation split, but data.resplit pools all samples and "
            "divides them anew; nearest valid: 'kfold'"
        )
        faults.append(Fault("validation.kind", text))
    steps = get(raw, "data.preprocess")
    if steps is not None:
        faults += [Fault("data.preprocess", text) for text in preprocessing.faults(steps, "data.preprocess")]
    return faults + _augment_rules(raw)


def _augment_rules(raw: Mapping[str, Any]) -> list[Fault]:
    faults = [
        Fault(key, text)
        for key, kind in AUGMENT.items()
        if (spec := get(raw, key)) is not None
        for text in augmentations.faults(spec, kind=kind, where=key)
    ]
    area, key = get(raw, "data.image.crop_area"), "data.image.crop_area"
    spec = get(raw, "data.image.augment", ImageDataConfig().augment)
    if area is not None and spec is not None and not any(fault.path == "data.image.augment" for fault in faults):
        faults += [Fault(key, text) for text in augmentations.crop_area_faults(area, spec, where=key)]
    return faults


def _compile_rules(raw: Mapping[str, Any]) -> list[Fault]:
    classes = get(raw, "model.text.length_classes", 1)
    if get(raw, "model.compile") is not True or not _is_int(classes) or classes <= 1:
        return []
    text = "must be 1 with model.compile: true, which would compile each class anew, but is"
    return [Fault("model.text.length_classes", f"model.text.length_classes {text} {classes}; nearest: 1")]


def _frozen_rules(raw: Mapping[str, Any]) -> list[Fault]:
    """Random weights that would never be trained."""
    faults = []
    for kind in ("image", "text"):
        key = f"model.{kind}.frozen"
        if get(raw, key) is True and get(raw, f"model.{kind}.pretrained") is False:
            faults.append(
                Fault(key, f"{key} must be false with model.{kind}.pretrained: false, whose weights are random")
            )
    return faults


def _option_rules(raw: Mapping[str, Any]) -> list[Fault]:
    """Faults of encoder options that YAML cannot express or that have no value: the libraries ignore some of these."""
    faults: list[Fault] = []
    for key in OPTIONS:
        options = get(raw, key)
        for name, value in options.items() if isinstance(options, Mapping) else ():
            if value is None:
                text = "must have a value, but got None; leave it out for the default"
            elif not _is_plain(value):
                text = f"must be text, a finite number, true or false, or a list or mapping of these, but got {value!r}"
            else:
                continue
            faults.append(Fault(f"{key}.{name}", f"{key}.{name} {text}"))
    return faults


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | bool) or yaml_files.is_finite_number(value)


def shard_faults(shards: int | None, workers: int) -> list[str]:
    """Faults of a number of workers that does not divide `train.shards` (None: it is set to the number of workers)."""
    if workers < 1:
        return [f"workers must be >= 1, but got {workers}"]
    if shards is None or shards % workers == 0:
        return []
    fewer = max(count for count in range(1, workers) if shards % count == 0)
    near = f"{fewer} workers, or train.shards={-(-shards // workers) * workers}"
    return [f"train.shards must be a multiple of the number of workers ({workers}), but is {shards}; nearest: {near}"]
