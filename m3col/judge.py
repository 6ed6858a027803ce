"""Raw mappings against strict typed models: every fault as one line with key, rule, value and nearest valid key."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

import pydantic

from m3col.faults import nearest

T = TypeVar("T", bound=pydantic.BaseModel)


class Strict(pydantic.BaseModel):
    """Base of all config models: frozen, no unknown keys, no silent conversion, no NaN or infinity."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def flatten(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping; an empty mapping is a value."""
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def get(raw: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value at a dotted path, or `default` where any part of the path is missing."""
    value: Any = raw
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def with_value(raw: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `raw` with the value at a dotted path set; the original stays as it is."""
    head, _, rest = path.partition(".")
    copy = dict(raw)
    if rest:
        inner = copy.get(head)
        copy[head] = with_value(inner if isinstance(inner, Mapping) else {}, rest, value)
    else:
        copy[head] = value
    return copy


def without_keys(raw: Mapping[str, Any], paths: frozenset[str]) -> dict[str, Any]:
    """A copy of `raw` without the values at the given dotted paths; sections left empty go as well."""
    kept: dict[str, Any] = {}
    for path, value in flatten(raw):
        if path not in paths:
            kept = with_value(kept, path, value)
    return kept


def keys(model: type[pydantic.BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys of a model, sections included."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        section = section_of(field.annotation)
        if section is not None:
            found.extend(keys(section, f"{prefix}{name}."))
    return found


def section_of(annotation: Any) -> type[pydantic.BaseModel] | None:
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _rule(error: Any) -> str:
    context = error.get("ctx", {})
    bounds = {
        "greater_than": ("gt", ">"),
        "greater_than_equal": ("ge", ">="),
        "less_than": ("lt", "<"),
        "less_than_equal": ("le", "<="),
    }
    if error["type"] in bounds:
        name, sign = bounds[error["type"]]
        return f"must be {sign} {context[name]}"
    plain = {
        "float_type": "must be a number",
        "int_type": "must be a whole number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "finite_number": "must be a finite number",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a section with keys of its own",
    }
    return plain.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])


def _closest_bound(error: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("greater_than_equal", "less_than_equal"):
        return f"; the nearest valid value is {context.get('ge', context.get('le'))}"
    return ""


def judge(model: type[T], raw: Mapping[str, Any], *, where: str, prefix: str = "") -> tuple[T | None, list[str]]:
    """`raw` as a `model`, or None and all faults. `where` is the file (or argument) named in each line."""
    try:
        return model.model_validate(dict(raw)), []
    except pydantic.ValidationError as error:
        lines: dict[str, str] = {}
        for item in error.errors():
            lines.update([_line(model, item, where=where, prefix=prefix)])
        return None, list(lines.values())


def _line(model: type[pydantic.BaseModel], item: Any, *, where: str, prefix: str) -> tuple[str, str]:
    # In a union, pydantic adds the branch's name to the place: keep the part that is a key of ours.
    known = set(keys(model))
    parts = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        path = ".".join(parts)
        parent = ".".join(parts[:-1])
        inside = [key for key in known if key.rpartition(".")[0] == parent] or sorted(known)
        close = nearest(path, inside)
        if "choose" in close:
            close = nearest(parts[-1], [key.rpartition(".")[2] for key in known]) if not inside else close
        return path, f"{where}: unknown key '{prefix}{path}'{close}"
    path = ""
    for part in parts:
        longer = f"{path}.{part}" if path else part
        if longer not in known and not part.isdigit():
            break
        path = longer
    if item["type"] == "missing":
        return path, f"{where}: {prefix}{path or parts[-1]} is missing"
    value = item["input"]
    shown = "NaN" if isinstance(value, float) and math.isnan(value) else _short(value)
    if item["type"] == "literal_error":
        choices = [choice.strip("' ") for choice in item["ctx"]["expected"].replace(" or ", ",").split(",")]
        return path, f"{where}: {prefix}{path} must be one of {', '.join(choices)}, but got {shown}" + (
            nearest(value, choices) if "did you mean" in nearest(value, choices) else ""
        )
    return path, f"{where}: {prefix}{path} {_rule(item)}, but got {shown}{_closest_bound(item)}"
