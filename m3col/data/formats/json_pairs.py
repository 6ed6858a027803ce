"""Helpers for layouts whose pairs are JSON objects."""

import json
from pathlib import Path
from typing import Any

from m3col.data.formats.pairs import FaultCollector

_LARGEST = 500_000_000  # bytes of one file

FAULT = object()  # what is returned in place of a value that cannot be read; None is JSON's null


def read_object(path: Path, faults: FaultCollector) -> Any:
    """The content of a JSON file; FAULT, with a fault, if it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST:
            faults.add(path, "json", f"has more than {_LARGEST:,} bytes")
            return FAULT
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        faults.add(path, "json", "is missing")
        return FAULT
    except UnicodeDecodeError as error:
        faults.add(path, "json", f"is not UTF-8 (byte {error.start + 1}); save it as UTF-8")
        return FAULT
    except OSError as error:
        faults.add(path, "json", f"cannot be read ({error.strerror or error})")
        return FAULT
    return parse(text, path, faults)


def parse(text: str, path: Path, faults: FaultCollector, row: int | None = None) -> Any:
    """The value of a JSON text; FAULT, with a fault, if it is none."""
    try:
        # Floats, because int() raises for more than 4,300 digits.
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
    except json.JSONDecodeError as error:
        faults.add(path, "json", f"is not JSON ({error.msg}, line {error.lineno}, column {error.colno})", row)
    except RecursionError:
        faults.add(path, "json", "is not JSON of this layout (lists within lists without end)", row)
    return FAULT


def described(value: object) -> str:
    """The kind of a JSON value, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
