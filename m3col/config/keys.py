"""Nested mappings by dotted key (`objective.alpha`), and the base class of all typed config sections."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args

import pydantic


def touches(faulty: Collection[str], *paths: str) -> bool:
    """Whether one of the dotted keys `paths` equals a key in `faulty`, is inside its section, or contains it."""
    pairs = ((a, b) for a in faulty for b in paths)
    return any(a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.") for a, b in pairs)


class Strict(pydantic.BaseModel):
    """Base of all config models: frozen, no unknown keys, no silent conversion, no NaN or infinity."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def flatten(raw: Mapping[str, Any], prefix: str = "", *, by_name: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys and values of a nested mapping. An empty mapping is a value.

    Args:
        raw: the nested mapping.
        prefix: put in front of every key.
        by_name: dotted keys of mappings whose own keys are names, which may contain dots; each entry is one value.
    """
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if not isinstance(value, Mapping) or not value:
            yield path, value
        elif path in by_name:
            yield from ((f"{path}.{name}", entry) for name, entry in value.items())
        else:
            yield from flatten(value, f"{path}.", by_name=by_name)


def get(raw: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value at a dotted path, or `default` where any part of the path is missing."""
    value: Any = raw
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def with_value(raw: Mapping[str, Any], path: str, value: Any, *, by_name: Collection[str] = ()) -> dict[str, Any]:
    """A copy of `raw` with the value at a dotted path replaced. `by_name`: see `flatten`."""
    for mapping in by_name:
        if path.startswith(f"{mapping}."):
            return _with_value(raw, [*mapping.split("."), path[len(mapping) + 1 :]], value)
    return _with_value(raw, path.split("."), value)


def _with_value(raw: Mapping[str, Any], parts: list[str], value: Any) -> dict[str, Any]:
    head, *rest = parts
    copy = dict(raw)
    if rest:
        inner = copy.get(head)
        copy[head] = _with_value(inner if isinstance(inner, Mapping) else {}, rest, value)
    else:
        copy[head] = value
    return copy


def without_keys(raw: Mapping[str, Any], paths: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """A copy of `raw` without the values at the given dotted paths and without sections that become empty."""
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if path in paths:
            continue
        if isinstance(value, Mapping) and value:
            inner = without_keys(value, paths, f"{path}.")
            if inner:
                kept[key] = inner
        else:
            kept[key] = value
    return kept


def without(raw: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """A copy of `raw` without the given dotted keys and their sections. Sections that become empty are kept."""
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        if str(key) in paths:
            continue
        below = {path.partition(".")[2] for path in paths if path.startswith(f"{key}.")}
        kept[key] = without(value, below) if below and isinstance(value, Mapping) else value
    return kept


def keys(model: type[pydantic.BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys of a model, sections included."""
    dotted: list[str] = []
    for name, field in model.model_fields.items():
        dotted.append(prefix + name)
        section = section_of(field.annotation)
        if section is not None:
            dotted.extend(keys(section, f"{prefix}{name}."))
    return dotted


def section_of(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The config section that an annotation names, or None for a plain value."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, pydantic.BaseModel):
            return candidate
    return None


def field_of(model: type[pydantic.BaseModel], path: str) -> Any:
    """The pydantic field at a dotted path, or None where the model has no such value."""
    head, _, rest = path.partition(".")
    field = model.model_fields.get(head)
    if field is None or not rest:
        return field
    section = section_of(field.annotation)
    return field_of(section, rest) if section is not None else None
