"""Safe YAML: `1e-4` is a number, a repeated key is an error, and reading a file constructs no Python objects."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from m3col.errors import InputError, reason_of


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


# PyYAML follows YAML 1.1, in which 1e-4 is text, because it has no dot. The dumper needs the same rule, to quote text
# that would be read as a number.
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|\.[0-9]+(?:[eE][-+]?[0-9]+)?)$"),
        list("-+0123456789."),
    )


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Constructs a mapping. Raises ConstructorError for a repeated key and a key that is a list or mapping."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, f"a key must be text, got {key!r}", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError with the file and, where it is known, the line."""
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError([f"{path}: cannot be read ({error.strerror or error})"]) from None
    except UnicodeDecodeError as error:
        raise InputError([f"{path}: must be UTF-8 text, but byte {error.start} is not"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = reason_of(getattr(error, "problem", None) or error, limit=None)
        raise InputError([f"{place}: not valid YAML ({reason})"]) from None
    except (ValueError, RecursionError) as error:  # a date such as 2020-13-45, a number of 5,000 digits, [[[[...
        raise InputError([f"{path}: not valid YAML ({error})"]) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        hint = "; put a blank after each colon" if isinstance(value, str) and re.search(r":\S", value) else ""
        raise InputError([f"{path}: must be a mapping of keys to values, but holds {type(value).__name__}{hint}"])
    return value


def dump(value: Any) -> str:
    """The YAML text of a value, with keys in their own order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def is_finite_number(value: Any) -> bool:
    """Whether a value is a finite number that fits into a float."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
