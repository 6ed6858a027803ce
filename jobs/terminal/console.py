"""Helpers of several commands: parse overrides, locate the runs folder, print tables."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from m3col.config import loading as run_config
from m3col.errors import InputError
from m3col.metrics import spec


def parse_overrides(words: Sequence[str], data_dir: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Parses `key=value` words. Returns the overrides and one fault for each word of another form."""
    overrides: dict[str, Any] = {}
    faults: list[str] = []
    for word in words:
        try:
            key, value = run_config.parse_override(word)
        except InputError as error:
            faults += error.faults
        else:
            overrides[key] = value
    if data_dir is not None:
        overrides["data.dir"] = str(data_dir.absolute())
    return overrides, faults


def refuse(faults: Sequence[str], validate: Callable[[], object]) -> None:
    """Raises InputError with `faults`, if there are any, together with those that `validate` raises."""
    if not faults:
        return
    further: Sequence[str] = ()
    try:
        validate()
    except InputError as error:
        further = error.faults
    raise InputError([*faults, *further])


def config_and_words(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The config, or None, and the override words. A first word of the form `key=value` is an override."""
    words = list(arguments.overrides)
    if arguments.config is not None and "=" in arguments.config:
        return None, [arguments.config, *words]
    return arguments.config, words


def runs_of(arguments: argparse.Namespace) -> Path:
    """The runs folder of --runs-dir, or the default one."""
    from tune.study.directory import runs_folder

    return runs_folder(arguments.runs_dir)


def console(**options: Any) -> Console:
    """A rich console without markup, because names, paths and messages may contain brackets."""
    return Console(markup=False, emoji=False, **options)


def print_metrics(metrics: dict[str, float]) -> None:
    """Prints the metrics `val/...` and `test/...` as a table; nothing if there are none."""
    table = Table("metric", "value")
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        if name.startswith(("val/", "test/")):
            table.add_row(name, spec.text(name, value))
    if table.row_count:
        console().print(table)


def as_table(frame: Any) -> Table:
    """A DataFrame as a table, numbers with four significant digits."""
    table = Table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return table
