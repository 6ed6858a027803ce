"""Parses `final.rows`: extra rows of the test table, each a name with overrides of the base config."""

from collections.abc import Collection, Mapping
from typing import Any

from m3col.config import schema
from m3col.config.keys import flatten, get
from m3col.config.loading import with_overrides
from m3col.config.schema import RunConfig
from m3col.data.checks import naming
from m3col.errors import InputError
from m3col.evaluation import baseline_table
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from tune.config.schema import slug
from tune.study.run_spec import folder_fault

TAKEN = ("winner", "default", "ensemble")  # rows that every test table may have, beside the baselines


def parse(raw: Mapping[str, Any], run: RunConfig, *, where: str) -> tuple[dict[str, RunConfig], list[str]]:
    """Returns the run config of each entry of `final.rows` by name, and all faults."""
    rows: dict[str, RunConfig] = {}
    faults: list[str] = []
    section = get(raw, "final.rows", {})
    for key, overrides in (section or {}).items() if isinstance(section, Mapping) else ():
        name = str(key)
        fault = _row_fault(name, rows, tasks.load(run.task))
        if fault is not None:
            faults.append(f"{where}: final.rows.{name}: {fault}")
            continue
        try:
            rows[name] = with_overrides(run, dict(dotted(overrides)))
        except InputError as error:
            faults += [f"{where}: final.rows.{name}: {line.partition(': ')[2] or line}" for line in error.faults]
            continue
        if rows[name].data.resplit != run.data.resplit:
            faults.append(f"{where}: final.rows.{name}: data.resplit must be that of the other rows; leave it out")
    return rows, faults


def _row_fault(name: str, others: Collection[str], task: "type[Task]") -> str | None:
    """Why a row cannot have this name beside `others`. Names are compared without case, as some file systems do."""
    folder = naming.folded(slug(name))
    words = [naming.folded(word) for word in baseline_table.reserved(task)]
    if folder in TAKEN or any(f"{naming.folded(name)} ".startswith(f"{word} ") for word in words):
        return "this name is reserved for a row of the test table"
    twins = [other for other in others if naming.folded(slug(other)) == folder]
    if twins:
        return f"needs the same folder ({slug(name)}) as the row {twins[0]!r}"
    return folder_fault(name)


def dotted(section: Any) -> list[tuple[str, Any]]:
    """Returns (dotted key, value) pairs of a run config, from a section with nested or dotted keys."""
    return list(flatten(section, by_name=schema.BY_MODALITY)) if isinstance(section, Mapping) else []
