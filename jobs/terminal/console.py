"""What several commands do with the words on their line, and how numbers are shown."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from m3col.config import loading as run_config
from m3col.errors import InputError


def parse_overrides(words: Sequence[str], data_dir: Path | None) -> tuple[dict[str, Any], list[str]]:
    """`key=value` words as overrides, and the faults of those that do not have that form."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for word in words:
        try:
            key, value = run_config.parse_override(word)
        except InputError as error:
            faults += error.faults
        else:
            found[key] = value
    if data_dir is not None:
        found["data.dir"] = str(data_dir.absolute())
    return found, faults


def refuse(faults: Sequence[str], judge: Callable[[], object]) -> None:
    """Raises InputError with `faults`, if there are any, and with what `judge` has to say beside them."""
    if not faults:
        return
    more: Sequence[str] = ()
    try:
        judge()
    except InputError as error:
        more = error.faults
    raise InputError([*faults, *more])


def config_and_words(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The first word is the config unless it has the form of an override."""
    words = list(arguments.overrides)
    if arguments.config is not None and "=" in arguments.config:
        return None, [arguments.config, *words]
    return arguments.config, words


def runs_of(arguments: argparse.Namespace) -> Path:
    from tune.study.directory import runs_folder

    return runs_folder(arguments.runs_dir)


def console(**given: Any) -> Console:
    """Where something is shown as it is: names, paths and other libraries' messages may hold brackets, which rich would
    read as its own marks."""
    return Console(markup=False, emoji=False, **given)


def print_metrics(metrics: dict[str, float]) -> None:
    table = Table("metric", "value")
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        if name.startswith(("val/", "test/")):
            table.add_row(name, f"{value:.4f}")
    if table.row_count:
        console().print(table)


def as_table(frame: Any) -> Table:
    table = Table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return table
