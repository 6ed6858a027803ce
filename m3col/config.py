"""One typed config for one training run, judged whole before anything is spent.

A YAML file holds only what differs from the defaults below. `load` joins file, overrides and defaults and either
returns a `RunConfig` or raises `BadInput` with every fault.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from m3col import methods, rules, yamlio
from m3col.faults import BadInput, nearest
from m3col.judge import (
    Fault,
    Strict,
    get,
    judge,
    lines,
    places,
    with_good_keys,
    with_value,
    without,
    without_keys,
)
from m3col.sections import ImageDataConfig, ImageModelConfig, TextDataConfig, TextModelConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Level = Literal["input", "embedding"]
Steps = list[str | dict[str, Any]]

IN_MEMORY = rules.IN_MEMORY
# Mappings whose keys are modalities, which may hold dots.
BY_MODALITY = ("data.preprocess", "mix.level", "train.encoder_learning_rate")


class DataConfig(Strict):
    """`name`: entry of the data table; `dir`: folder looked in first; `modalities`: names or 1-based numbers, default:
    the entry's own; `preprocess`: steps for all numeric modalities, or a list of steps per modality; default: minmax.
    `label_column`: of the CSV of `image_text`. `cache`: decoded pictures and tokens are kept on disk."""

    name: str = "digits"
    dir: str | None = None
    modalities: list[str | int] | None = None
    preprocess: Steps | dict[str, Steps] = ["minmax"]  # noqa: RUF012 - pydantic copies it
    label_column: str = "label"
    image: ImageDataConfig = ImageDataConfig()
    text: TextDataConfig = TextDataConfig()
    cache: bool = True


class ModelConfig(Strict):
    """`encoder`: of numeric modalities; `embedding_dim`: D, shared by all modalities; `classifier_dim`: hidden width H
    of each head; `classifier_layers`: linear layers of each head."""

    encoder: Literal["mlp"] = "mlp"
    embedding_dim: Count = 256
    classifier_dim: Count = 256
    classifier_layers: Annotated[int, Field(ge=2, le=3)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    image: ImageModelConfig = ImageModelConfig()
    text: TextModelConfig = TextModelConfig()
    gradient_checkpointing: bool = False
    compile: bool = False


class ObjectiveConfig(Strict):
    """Eq. 16. `switch_point`: share of the epochs trained with M3Co before MultiSClip takes over;
    `softclip_temperature`: tau of MultiSClip, default: `temperature`."""

    alpha: Positive = 0.15
    beta: NotNegative = 0.1
    temperature: Positive = 0.1
    softclip_temperature: Positive | None = None
    switch_point: Share = 0.33
    unimodal_supervision: bool = True
    class_weight: Literal["none", "balanced"] | list[NotNegative] = "none"


class MixConfig(Strict):
    """`level`: what is mixed, for all modalities or for each; the input of a text are its word embeddings.
    `probability`: share of the samples that are mixed at all (the others have lambda 1)."""

    level: Level | dict[str, Level] = "input"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0


class ScheduleConfig(Strict):
    """Learning rate over epochs. `step`: times `gamma` every `step_size` epochs; `plateau`: times `gamma` after
    `patience` epochs without a better search metric."""

    kind: Literal["none", "step", "plateau"] = "step"
    step_size: Count = 250
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    patience: Annotated[int, Field(ge=0)] = 2


class TrainConfig(Strict):
    """`batch_size`: global batch, default: all training samples; `shards`: groups of it within which samples are mixed,
    a multiple of the number of workers, default: that number. `accumulate`: batches whose gradients make one step.
    `encoder_learning_rate` (one, or one for each modality that wants another than the rest), `encoder_weight_decay`: of
    the encoders, default: those of the rest. `decay`: what is decayed, everything, or weights only (neither biases nor
    norms). `precision`: bfloat16 means autocast."""

    epochs: Count = 100
    batch_size: Count | None = None
    accumulate: Count = 1
    shards: Count | None = None
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-3
    encoder_learning_rate: Positive | dict[str, Positive] | None = None
    encoder_weight_decay: NotNegative | None = None
    decay: Literal["all", "weights"] = "all"
    schedule: ScheduleConfig = ScheduleConfig()
    seed: Seed = 0
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ValidationConfig(Strict):
    """How the training split is divided: `kfold`, `holdout` (`fraction`), `given` (the data set's own), `none`."""

    kind: Literal["kfold", "holdout", "given", "none"] | None = None
    folds: Annotated[int, Field(ge=2)] = 5
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 0


class CheckpointConfig(Strict):
    """`every_s`: least seconds between two checkpoints of a running training."""

    every_s: NotNegative = 60.0


class ResourcesConfig(Strict):
    """`threads` is part of the config, because the order of sums, hence the last bits, depends on it."""

    threads: Count = 1


class RunConfig(Strict):
    """All that determines one training run. `metric`: what the plateau schedule, the history's `value` and a search
    look at; default: val/auroc for two classes, val/macro_f1 for more."""

    method: str = "m3col"
    task: Literal["single_label"] = "single_label"
    metric: str | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    mix: MixConfig = MixConfig()
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the keys that the method does not have: `load` takes it back."""
        return without_keys(self.model_dump(), methods.ignored_keys(self.method))

    def to_yaml(self) -> str:
        return yamlio.dump(self.to_dict())

    def with_overrides(self, overrides: Mapping[str, Any]) -> "RunConfig":
        """This config with dotted keys replaced. A new `method` drops the keys that it does not have."""
        method = overrides.get("method", self.method)
        raw = self.to_dict()
        raw = _fitting(raw, method)
        return load(raw, overrides=overrides, where="overrides")


def folder() -> Path:
    """Where the shipped configs lie: inside an installed package, else at the top of a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def find(name: str | Path, kind: str, *, where: str = "config") -> Path:
    """The file of a config given by path, or by the name of a shipped one (`kind`: train or search).

    Raises BadInput that begins with `where`, for a file that is not there.
    """
    path = Path(name)
    # Not Path.is_file and the like, which raise where a name is too long for a file.
    if path.suffix in (".yaml", ".yml") or os.path.isfile(path):
        # `configs/search/x.yaml` works from any directory, installed or not.
        if not os.path.isfile(path) and path.parts[:1] == ("configs",):
            path = folder().joinpath(*path.parts[1:])
        if not os.path.exists(path):
            beside = [str(other) for other in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
            close = nearest(path, beside)
            raise BadInput([f"{where} {str(name)!r}: no such file{close if 'did you mean' in close else ''}"])
        return path
    shipped = {file.stem: file for file in (folder() / kind).glob("*.yaml")}
    if str(name) in shipped:
        return shipped[str(name)]
    raise BadInput([f"{where} {str(name)!r}: no such file, and no shipped {kind} config{nearest(name, shipped)}"])


def parse_override(text: str) -> tuple[str, Any]:
    """`objective.beta=0.2` as key and value; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise BadInput([f"override {text!r}: must have the form key.path=value"])
    try:
        return key.strip(), yamlio.parse(value)
    except Exception:  # any YAML error: the text stands for itself
        return key.strip(), value


def join(
    raw: Mapping[str, Any], overrides: Mapping[str, Any], *, by_name: Collection[str] = BY_MODALITY
) -> dict[str, Any]:
    """`raw` with dotted keys replaced; a mapping as value replaces a whole section. `by_name`: dotted keys of mappings
    whose own keys may hold dots."""
    joined = dict(raw)
    for path, value in overrides.items():
        joined = with_value(joined, path, value, by_name=by_name)
    return joined


@dataclass(frozen=True)
class Draft:
    """A judged config. Where there are `faults` (lines), `config` is what is left without the keys in `faulty`: good
    enough to look for faults elsewhere, never to train with. `place` says who gave a key."""

    config: RunConfig
    faults: tuple[str, ...]
    faulty: frozenset[str]
    place: Callable[[str], str]


def draft(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    overrides: Mapping[str, Any] | None = None,
    where: str | Callable[[str], str] | None = None,
) -> Draft:
    """The config of one run and all its faults. Raises BadInput only for a file that cannot be read."""
    if isinstance(source, RunConfig):
        raw: Mapping[str, Any] = source.to_dict()
    elif isinstance(source, Mapping):
        raw = source
    else:
        path = find(source, "train")
        raw, where = yamlio.read(path), where or str(path)
        if "space" in raw:
            raise BadInput([f"{path}: is the config of a search, because it has a 'space'; use `m3col search`"])
    overrides = overrides or {}
    place = where if callable(where) else places(where or "config", ("overrides", overrides))
    joined, found = with_good_keys(join(raw, overrides))
    config, more = _judged(joined)
    found += more
    faulty = frozenset(fault.path for fault in found)
    rest = joined
    for _ in range(3):  # a key that is dropped may have hidden what another one breaks
        if config is not None:
            break
        rest = without(rest, faulty)
        config, more = _judged(rest)
        faulty |= {fault.path for fault in more}
    return Draft(config or RunConfig(), tuple(lines(found, place)), faulty, place)


def _fitting(raw: Mapping[str, Any], method: Any) -> dict[str, Any]:
    """`raw` without the keys that the method lacks, where there is such a method."""
    is_known = isinstance(method, str) and method in methods.TABLE
    return without_keys(raw, methods.ignored_keys(method)) if is_known else dict(raw)


def load_stored(raw: Mapping[str, Any], *, where: str) -> RunConfig:
    """The config of a run as this project has written it, beside a checkpoint or in a study's record. Raises BadInput.

    What older versions took without using it is left out: keys that the method lacks, and options without a value.
    """
    kept = _fitting(raw, raw.get("method"))
    for key in rules.OPTIONS:
        options = get(kept, key)
        if isinstance(options, Mapping):
            kept = with_value(kept, key, {name: value for name, value in options.items() if value is not None})
    return load(kept, where=where)


def _judged(raw: Mapping[str, Any]) -> tuple[RunConfig | None, list[Fault]]:
    config, faults = judge(RunConfig, raw)
    crossed = rules.faults(raw)
    if any(fault.path == "data.preprocess" for fault in crossed):  # these say more than the types alone
        faults = [fault for fault in faults if not fault.path.startswith("data.preprocess")]
    faults += crossed
    return (None if faults else config), faults


def load(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    overrides: Mapping[str, Any] | None = None,
    where: str | None = None,
) -> RunConfig:
    """The config of one run. `source`: a shipped name, a file, a mapping or a config.

    Raises BadInput with every fault: unknown keys, wrong types, values out of range, keys that the method lacks.
    """
    found = draft(source, overrides=overrides, where=where)
    if found.faults:
        raise BadInput(found.faults)
    return found.config


def with_shards(config: "RunConfig", workers: int) -> "RunConfig":
    """The config with `train.shards` said: the number of workers, where the config leaves it open."""
    return config if config.train.shards is not None else config.with_overrides({"train.shards": workers})


def shard_faults(shards: int | None, workers: int) -> list[str]:
    """Why so many DDP workers cannot divide `train.shards` (None: it follows the workers)."""
    if workers < 1:
        return [f"workers must be >= 1, but got {workers}"]
    if shards is None or shards % workers == 0:
        return []
    fewer = max(count for count in range(1, workers) if shards % count == 0)
    near = f"{fewer} workers, or train.shards={-(-shards // workers) * workers}"
    return [f"train.shards must be a multiple of the number of workers ({workers}), but is {shards}; nearest: {near}"]


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a config's plain values."""
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
