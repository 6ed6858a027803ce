"""Validates raw mappings by strict typed models. Each fault is one line with key, rule, value and nearest valid key."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import pydantic

from m3col.config.keys import keys
from m3col.errors import nearest, one_line

T = TypeVar("T", bound=pydantic.BaseModel)

Where = str | Callable[[str], str]

# `{depth:3}` is YAML for the key "depth:3" without a value.
_NO_BLANK = re.compile(r"([^:=]+)[:=](\S.*)", re.DOTALL)


class Fault(NamedTuple):
    """A fault of a config.

    Attributes:
        path: the dotted key with the fault; "" for none.
        text: the message, without the file or argument in front.
    """

    path: str
    text: str


def lines(faults: Iterable[Fault], where: Where) -> list[str]:
    """One line per fault. `where`: the file or argument in front, or a function that returns it for a dotted key."""
    texts = [f"{where if isinstance(where, str) else where(fault.path)}: {fault.text}" for fault in faults]
    return list(dict.fromkeys(map(one_line, texts)))


def places(default: str, *layers: tuple[str, Collection[str]]) -> Callable[[str], str]:
    """A function that returns the source of a dotted key.

    Args:
        default: the source of keys that are in no layer.
        layers: pairs (source, its dotted keys); later layers override earlier ones.
    """

    def place(path: str) -> str:
        for name, layer_keys in reversed(layers):
            if any(path == key or path.startswith(f"{key}.") for key in layer_keys):
                return name
        return default

    return place


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _rule(error: Any) -> str:
    """The rule that a pydantic error is about, such as "must be >= 1"."""
    context = error.get("ctx", {})
    bounds = {
        "greater_than": ("gt", ">"),
        "greater_than_equal": ("ge", ">="),
        "less_than": ("lt", "<"),
        "less_than_equal": ("le", "<="),
    }
    if error["type"] in bounds:
        name, sign = bounds[error["type"]]
        return f"must be {sign} {_plain(context[name])}"
    if error["type"] in ("too_short", "too_long"):
        least = error["type"] == "too_short"
        count = context["min_length" if least else "max_length"]
        return f"must have at {'least' if least else 'most'} {count} {'entry' if count == 1 else 'entries'}"
    if error["type"] == "literal_error":
        return f"must be one of {', '.join(_choices(error))}"
    plain = {
        "float_type": "must be a number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "string_too_short": "must not be empty",
        "finite_number": "must be a finite number",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a section with keys of its own",
        "missing": "is missing",
    }
    text = error["msg"].removeprefix("Value error, ")
    return plain.get(error["type"], text[:1].lower() + text[1:])


def _plain(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def _choices(error: Any) -> list[str]:
    return [choice.strip("' ") for choice in error["ctx"]["expected"].replace(" or ", ",").split(",")]


def _nearest_value(error: Any) -> str:
    """A hint with the nearest valid value; "" where there is none."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"; the nearest valid value is {_plain(context.get('ge', context.get('le')))}"
    if kind == "less_than" and isinstance(context["lt"], int):
        return f"; the nearest valid value is {context['lt'] - 1}"
    if kind == "literal_error":
        close = nearest(value, _choices(error))
        return close if "did you mean" in close else ""
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and math.isfinite(value):
        return f"; the nearest valid value is {round(value)}"
    if kind in ("dict_type", "model_type") and isinstance(value, str) and _NO_BLANK.fullmatch(value):
        return "; put a blank after the colon"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _reads_as_number(value):
        return f"; write {value.strip()} without quotes"
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def validate(model: type[T], raw: Mapping[str, Any], *, prefix: str = "") -> tuple[T | None, list[Fault]]:
    """The `model` of `raw` without faults, or None with all faults. `prefix`: put in front of every key in messages."""
    try:
        return model.model_validate(dict(raw)), []
    except pydantic.ValidationError as error:
        return None, _faults(model, error.errors(), prefix)


def with_good_keys(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """`raw` without invalid keys at any depth, and a fault for each invalid key.

    Invalid are keys that contain their value, because the blank after the colon is missing (`{depth:3}` is YAML for the
    key "depth:3" with the value null), and keys that cannot be encoded as text.
    """
    faults: list[Fault] = []
    return _with_good_keys(raw, "", faults, {}), faults


def _with_good_keys(raw: Any, path: str, faults: list[Fault], seen: dict[int, Any]) -> Any:
    """As `with_good_keys`. `seen`: the result for each list and mapping by its id, because YAML aliases can repeat one
    so often that visiting each repetition would take forever."""
    if not isinstance(raw, list | Mapping):
        return raw
    if id(raw) not in seen:
        walk = _items_with_good_keys if isinstance(raw, list) else _mapping_with_good_keys
        seen[id(raw)] = walk(raw, path, faults, seen)
    return seen[id(raw)]


def _items_with_good_keys(raw: Any, path: str, faults: list[Fault], seen: dict[int, Any]) -> list[Any]:
    items = [_with_good_keys(item, f"{path}[{at}]", faults, seen) for at, item in enumerate(raw)]
    return [new for old, new in zip(raw, items, strict=True) if new or not isinstance(old, Mapping) or not old]


def _mapping_with_good_keys(raw: Any, path: str, faults: list[Fault], seen: dict[int, Any]) -> dict[Any, Any]:
    kept: dict[Any, Any] = {}
    for key, value in raw.items():
        below = f"{path}.{key}" if path else str(key)
        fault = _key_fault(key, value) if isinstance(key, str) else None
        if fault is None:
            kept[key] = _with_good_keys(value, below, faults, seen)
        else:
            faults.append(Fault(re.sub(r"\[\d+\]", "", below), f"{path}: {fault}" if path else fault))
    return kept


def _key_fault(key: str, value: Any) -> str | None:
    if any("\ud800" <= sign <= "\udfff" for sign in key):
        return f"key {key!r} is no text: it has half a character"
    match = _NO_BLANK.fullmatch(key) if value is None else None
    if match is None:
        return None
    return f"key {key!r} has no value; put a blank after the colon: {{{match[1]}: {match[2]}}}"


class _ModelError(NamedTuple):
    """A pydantic error with its dotted key, the key as shown in messages, and whether a union has branches there."""

    path: str
    shown: str
    in_union: bool
    error: Any


def _faults(model: type[pydantic.BaseModel], errors: Iterable[Any], prefix: str) -> list[Fault]:
    """Faults from pydantic's errors, with one fault per key."""
    model_errors: list[_ModelError] = []
    faults: list[Fault] = []
    for error in errors:
        if error["type"] == "extra_forbidden":
            faults.append(_unknown_key(model, [str(part) for part in error["loc"]], prefix))
        elif error["type"] == "invalid_key" or error["loc"][-1] == "[key]":
            parts = [str(part) for part in error["loc"] if part != "[key]"]
            faults.append(Fault(".".join(parts), f"{prefix}{'.'.join(parts)}: a key must be text; put it in quotes"))
        else:
            model_errors.append(_ModelError(*_place(model, error["loc"]), error))
    by_key: dict[str, list[_ModelError]] = {}
    for item in model_errors:
        # A value that fits no branch of a union: the error deepest inside the value is the most helpful one.
        deeper = (other.shown.startswith((f"{item.shown}.", f"{item.shown}[")) for other in model_errors)
        if not (item.in_union and any(deeper)):
            by_key.setdefault(item.shown, []).append(item)
    for shown, items in by_key.items():
        rules = list(dict.fromkeys(_rule(item.error) for item in items))
        rule = " or ".join([rules[0], *(later.removeprefix("must be ") for later in rules[1:])])
        hints = [hint for item in items if (hint := _nearest_value(item.error))]
        got = "" if rule == "is missing" else f", but got {_short(items[0].error['input'])}{(hints or [''])[0]}"
        faults.append(Fault(items[0].path, f"{prefix}{shown} {rule}{got}"))
    return faults


def _place(model: Any, location: tuple[int | str, ...]) -> tuple[str, str, bool]:
    """The dotted key, the key as shown (with positions in lists), and whether a union has branches there.

    pydantic's location contains names of union branches between the keys. The expected type at each position tells
    the two apart, because the keys of a mapping can be any text.
    """
    names: list[str] = []
    shown, in_union, in_list = "", False, False
    expected: Any = model
    for part in location:
        choices = _choices_of(expected)
        if len(choices) > 1:
            in_union, expected = True, _branch(choices, str(part))
        elif isinstance(part, int):
            shown, in_list = f"{shown}[{part}]", True
            expected = (get_args(choices[0]) or (Any,))[0]
        else:
            shown = f"{shown}.{part}" if shown else str(part)
            if not in_list:
                names.append(str(part))
            expected = _below(choices[0], str(part))
    return ".".join(names), shown, in_union


def _choices_of(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [choice for choice in get_args(annotation) if choice is not type(None)]


def _branch(choices: list[Any], name: str) -> Any:
    """The list or mapping type of a union that pydantic calls `name`; Any for other types, which contain no keys."""
    containers = {"dict": dict, "list": list}
    container = containers.get(name.partition("[")[0])
    return next((choice for choice in choices if container is not None and get_origin(choice) is container), Any)


def _below(annotation: Any, name: str) -> Any:
    """The expected type of the value `name` in a model or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        field = annotation.model_fields.get(name)
        return Any if field is None else field.annotation
    return get_args(annotation)[1] if get_origin(annotation) is dict else Any


def _unknown_key(model: type[pydantic.BaseModel], parts: list[str], prefix: str) -> Fault:
    """The fault of an unknown key, with a hint at the nearest key of its section, or at the same name elsewhere."""
    known = keys(model)
    path, parent = ".".join(parts), ".".join(parts[:-1])
    if parts[-1] in known and "." in parts[-1]:
        hint = f"; write {parts[-1].rpartition('.')[2]!r} below a line '{parts[-1].rpartition('.')[0]}:'"
    else:
        hint = nearest(path, [key for key in known if key.rpartition(".")[0] == parent])
        same = [key for key in known if key.rpartition(".")[2] == parts[-1]]
        if same and "did you mean" not in hint:
            hint = nearest(path, same) if len(same) > 1 else f"; did you mean {same[0]!r}?"
    return Fault(path, f"unknown key '{prefix}{path}'{hint}")
