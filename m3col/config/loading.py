"""Loads the typed config of one training run, validated as a whole before anything is computed.

A YAML file contains only the values that differ from the defaults. `load` joins file, overrides and defaults, and
either returns a `RunConfig` or raises `InputError` with every fault.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

from m3col.config import rules, yaml_files
from m3col.config.keys import get, with_value, without, without_keys
from m3col.config.schema import BY_MODALITY, MixConfig, RunConfig
from m3col.config.validation import Fault, lines, places, validate, with_good_keys
from m3col.errors import InputError, nearest
from m3col.methods import registry


def folder() -> Path:
    """The folder of the shipped configs: inside an installed package, else at the top of a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def find(name: str | Path, kind: str, *, where: str = "config") -> Path:
    """The file of a config.

    Args:
        name: path of a file, or name of a shipped config.
        kind: "train" or "search", the kind of a shipped config.
        where: begin of the messages.

    Returns:
        The path of the file.

    Raises:
        InputError: there is no such file and no such shipped config.
    """
    path = Path(name)
    # Not Path.is_file: it raises where a name is too long for a file.
    if path.suffix in (".yaml", ".yml") or os.path.isfile(path):
        # `configs/search/x.yaml` works from any directory, installed or not.
        if not os.path.isfile(path) and path.parts[:1] == ("configs",):
            path = folder().joinpath(*path.parts[1:])
        if not os.path.exists(path):
            beside = [str(other) for other in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
            close = nearest(path, beside)
            raise InputError([f"{where} {str(name)!r}: no such file{close if 'did you mean' in close else ''}"])
        return path
    shipped = {file.stem: file for file in (folder() / kind).glob("*.yaml")}
    if str(name) in shipped:
        return shipped[str(name)]
    raise InputError([f"{where} {str(name)!r}: no such file, and no shipped {kind} config{nearest(name, shipped)}"])


def parse_override(text: str) -> tuple[str, Any]:
    """`objective.beta=0.2` as key and value; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError([f"override {text!r}: must have the form key.path=value"])
    try:
        return key.strip(), yaml_files.parse(value)
    except Exception:  # not valid YAML: the value is the text itself
        return key.strip(), value


def join(
    raw: Mapping[str, Any], overrides: Mapping[str, Any], *, by_name: Collection[str] = BY_MODALITY
) -> dict[str, Any]:
    """`raw` with the values at dotted keys replaced; a mapping as value replaces a whole section. `by_name`: see
    `keys.flatten`."""
    joined = dict(raw)
    for path, value in overrides.items():
        joined = with_value(joined, path, value, by_name=by_name)
    return joined


class _MethodConfig(RunConfig):
    """A run config with the sections of its method. Its class is created at run time: pickle calls `load`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.to_dict(),)


@cache
def model_of(method: str) -> type[RunConfig]:
    """The typed model of a run config with that method. Raises InputError for an unknown method."""
    spec = registry.find(method)
    try:
        sections: dict[str, Any] = {"method": (str, method), "objective": (spec.settings, spec.settings())}
    except pydantic.ValidationError as error:
        lacking = ", ".join(str(detail["loc"][0]) for detail in error.errors())
        raise InputError([f"method {method!r}: fields of its Settings without a default: {lacking}"]) from None
    if spec.mixes:
        sections["mix"] = (MixConfig, MixConfig())
    return pydantic.create_model("RunConfig", __base__=_MethodConfig, **sections)


@dataclass(frozen=True)
class PartialConfig:
    """A config and its faults.

    Attributes:
        config: the config. Where there are faults, it lacks the keys in `faulty`. It then serves to find more faults,
            but not to train.
        faults: one line per fault.
        faulty: the dotted keys with faults.
        place: returns the file or argument that set a dotted key.
    """

    config: RunConfig
    faults: tuple[str, ...]
    faulty: frozenset[str]
    place: Callable[[str], str]


def parse(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    overrides: Mapping[str, Any] | None = None,
    where: str | Callable[[str], str] | None = None,
) -> PartialConfig:
    """Parses the config of one run and collects all its faults.

    Args:
        source: name of a shipped config, a file, a mapping, or a config.
        overrides: values by dotted key.
        where: the file or argument in front of each fault, or a function that returns it for a dotted key.

    Returns:
        The config and its faults.

    Raises:
        InputError: a file cannot be read, or is the config of a search.
    """
    if isinstance(source, RunConfig):
        raw: Mapping[str, Any] = source.to_dict()
    elif isinstance(source, Mapping):
        raw = source
    else:
        path = find(source, "train")
        raw, where = yaml_files.read(path), where or str(path)
        if "space" in raw:
            raise InputError([f"{path}: is the config of a search, because it has a 'space'; use `m3col search`"])
    overrides = overrides or {}
    place = where if callable(where) else places(where or "config", ("overrides", overrides))
    joined, faults = with_good_keys(join(raw, overrides))
    config, model_faults = _validated(joined)
    faults += model_faults
    faulty = frozenset(fault.path for fault in faults)
    remaining = joined
    for _ in range(3):  # dropping a faulty key can reveal a fault of another one
        if config is not None:
            break
        remaining = without(remaining, faulty)
        config, model_faults = _validated(remaining)
        faulty |= {fault.path for fault in model_faults}
    return PartialConfig(config or load({}), tuple(lines(faults, place)), faulty, place)


def load_stored(raw: Mapping[str, Any], *, where: str) -> RunConfig:
    """The config of a run that this project wrote, with a checkpoint or in a study. Raises InputError.

    Older versions accepted values that they did not use: keys that the method lacks, and options without a value. These
    are dropped.
    """
    kept = known_keys_of_method(raw, raw.get("method"))
    for key in rules.OPTIONS:
        options = get(kept, key)
        if isinstance(options, Mapping):
            kept = with_value(kept, key, {name: value for name, value in options.items() if value is not None})
    return load(kept, where=where)


def _validated(raw: Mapping[str, Any]) -> tuple[RunConfig | None, list[Fault]]:
    """Validates types and rules. Returns the config, or None where there are faults, and the faults."""
    method = raw.get("method", registry.DEFAULT)
    if not registry.is_method(method):
        method = registry.DEFAULT  # the method with the most keys, so that as few keys as possible are unknown
    elif not registry.find(method).mixes and raw.get("mix") == {}:
        raw = {key: value for key, value in raw.items() if key != "mix"}
    config, faults = validate(model_of(method), raw)
    rule_faults = rules.faults(raw)
    # For these keys the messages of the rules are more helpful than those of the types.
    refused = registry.ignored_keys(method)
    faults = [fault for fault in faults if fault.path not in refused]
    ruled = {fault.path for fault in rule_faults} & {"data.preprocess", *rules.AUGMENT}
    faults = [fault for fault in faults if not any(fault.path.startswith(key) for key in ruled)]
    faults += rule_faults
    return (None if faults else config), faults


def load(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    overrides: Mapping[str, Any] | None = None,
    where: str | None = None,
) -> RunConfig:
    """Loads and validates the config of one run.

    Args:
        source: name of a shipped config, a file, a mapping, or a config.
        overrides: values by dotted key.
        where: the file or argument in front of each fault.

    Returns:
        The config.

    Raises:
        InputError: with every fault: unknown keys, wrong types, values out of range, keys that the method lacks.
    """
    parsed = parse(source, overrides=overrides, where=where)
    if parsed.faults:
        raise InputError(parsed.faults)
    return parsed.config


def trusted(raw: Mapping[str, Any]) -> RunConfig:
    """The config from what its `to_dict` returned. Only types are validated: the rules across fields were checked
    before."""
    return model_of(str(raw["method"])).model_validate(raw)


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The config with the values at dotted keys replaced. Keys that a new `method` lacks are dropped."""
    raw = known_keys_of_method(config.to_dict(), overrides.get("method", config.method))
    return load(raw, overrides=overrides, where="overrides")


def with_shards(config: RunConfig, workers: int) -> RunConfig:
    """The config with `train.shards` set to the number of workers, unless the config sets it."""
    return config if config.train.shards is not None else with_overrides(config, {"train.shards": workers})


def known_keys_of_method(raw: Mapping[str, Any], method: Any) -> dict[str, Any]:
    """`raw` without the keys that the method lacks; unchanged for an unknown method."""
    return without_keys(raw, registry.ignored_keys(method)) if registry.is_method(method) else dict(raw)


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a config's plain values."""
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
