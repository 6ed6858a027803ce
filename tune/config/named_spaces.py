"""Search spaces by name: the ranges of one method, shipped as configs/space/<method>.yaml.

`space: tmc` takes those of one method, `space: default` those of each method of the search.
"""

from collections.abc import Mapping
from typing import Any

from m3col.config import loading as run_config
from m3col.config import yaml_files
from m3col.config.schema import RunConfig
from m3col.errors import InputError, nearest
from tune.config import search_space as spaces

DEFAULT = "default"  # the value of `space` that means each method's own


def names() -> tuple[str, ...]:
    """The methods whose ranges are shipped."""
    return tuple(sorted(path.stem for path in (run_config.folder() / "space").glob("*.yaml")))


def faults(space: Any, overrides: Mapping[str, Any], *, where: str) -> list[str]:
    """Faults of a named space that do not depend on a method; [] for a space that names its keys.

    Args:
        space: the value of `space` in the file or command.
        overrides: those of the search, by dotted key.
        where: the file.
    """
    if not isinstance(space, str):
        return []
    lines = [
        f"overrides: {key}: the space is {space!r}, whose ranges are fixed; write all ranges into the file"
        for key in overrides
        if key.startswith("space.")
    ]
    if space != DEFAULT and space not in names():
        lines.append(f"{where}: space {space!r} is unknown{nearest(space, (DEFAULT, *names()))}")
    return lines


def of_method(space: str, method: str, *, where: str) -> dict[str, Any]:
    """The raw space with that name.

    Args:
        space: a name of `names`, or "default".
        method: the method of the study, for "default".
        where: the file that names the space, for the fault.

    Returns:
        Ranges by config key, as in a file; none for an unknown name, which `faults` reports.

    Raises:
        InputError: the method has no ranges.
    """
    name = method if space == DEFAULT else space
    if name not in names() and space != DEFAULT:
        return {}
    if name not in names():
        known = ", ".join(names())
        raise InputError(
            [
                f"{where}: space {space!r}: method {method!r} has no ranges of its own; methods that have: {known}; or "
                "name keys and ranges below space"
            ]
        )
    return yaml_files.read(run_config.folder() / "space" / f"{name}.yaml")


def fitted(raw: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """The raw space, changed so that it has the point of a base config, which is always trial 0.

    A range is widened to the value of the base config, and choices get it. A range of a key whose value there is no
    number, such as a learning rate of encoders that is not set, is left out, and so is a logarithmic range where it is
    0.

    Args:
        raw: ranges by config key.
        config: the base config.

    Returns:
        Ranges by config key.
    """
    changed: dict[str, Any] = {}
    for path, spec in raw.items():
        if path not in spaces.searchable(config.method):  # reported where the space is parsed
            changed[path] = spec
            continue
        default = spaces.default_value(config, path)
        if isinstance(spec, list):
            changed[path] = spec if default in spec else [default, *spec]
        elif not isinstance(spec, Mapping) or not {"low", "high"} <= spec.keys():
            changed[path] = spec  # reported, or understood, where the space is parsed
        elif yaml_files.is_finite_number(default) and not (spec.get("log") and default <= 0):
            changed[path] = {**spec, "low": min(spec["low"], default), "high": max(spec["high"], default)}
    return changed
