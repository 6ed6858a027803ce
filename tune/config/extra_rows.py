"""The rows of the test table that a search's config asks for: a name, and what differs from the base config."""

from collections.abc import Collection, Mapping
from typing import Any

from m3col.config import schema
from m3col.config.keys import flatten, get
from m3col.config.loading import with_overrides
from m3col.config.schema import RunConfig
from m3col.data.checks import naming
from m3col.errors import InputError
from tune.config.schema import slug
from tune.study.run_spec import folder_fault

TAKEN = ("winner", "default", "ensemble", "majority")  # rows that every test table may have


def parse(raw: Mapping[str, Any], run: RunConfig, *, where: str) -> tuple[dict[str, RunConfig], list[str]]:
    """The configs of `final.rows` by name, from a search's raw config and its base run, and all faults."""
    rows: dict[str, RunConfig] = {}
    faults: list[str] = []
    wanted = get(raw, "final.rows", {})
    for key, overrides in (wanted or {}).items() if isinstance(wanted, Mapping) else ():
        name = str(key)
        fault = _row_fault(name, rows)
        if fault is not None:
            faults.append(f"{where}: final.rows.{name}: {fault}")
            continue
        try:
            rows[name] = with_overrides(run, dict(dotted(overrides)))
        except InputError as error:
            faults += [f"{where}: final.rows.{name}: {line.partition(': ')[2] or line}" for line in error.faults]
    return rows, faults


def _row_fault(name: str, others: Collection[str]) -> str | None:
    """Why there can be no row of this name beside `others`. Not every file system tells small letters from capitals."""
    folder = naming.folded(slug(name))
    if folder in TAKEN or name.strip().startswith("logistic"):
        return "this name is taken by a row of its own"
    twins = [other for other in others if naming.folded(slug(other)) == folder]
    if twins:
        return f"needs the same folder ({slug(name)}) as the row {twins[0]!r}"
    return folder_fault(name)


def dotted(section: Any) -> list[tuple[str, Any]]:
    """Dotted keys of a run config and their values, from a section with nested or dotted keys."""
    return list(flatten(section, by_name=schema.BY_MODALITY)) if isinstance(section, Mapping) else []
