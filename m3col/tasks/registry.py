"""TABLE of tasks, by the value of the config key `task`.

A new task is one file with a subclass of `m3col.tasks.base.Task`, one entry here, and one entry in
`m3col.metrics.spec` for each metric that is new. Entries name their class as text, so that checking a config imports
none of them.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3col.errors import InputError, nearest

if TYPE_CHECKING:
    from m3col.tasks.base import Task

DEFAULT = "single_label"

# name -> "module:Class"
TABLE: dict[str, str] = {DEFAULT: "m3col.tasks.single_label:SingleLabel"}


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(TABLE)


def faults(name: object) -> list[str]:
    """One line unless `name` is the name of a task."""
    if isinstance(name, str) and name in TABLE:
        return []
    return [f"task {name!r} is unknown{nearest(str(name), TABLE)}"]


def load(name: str) -> "type[Task]":
    """The class of a task. Raises InputError for an unknown name, with the nearest known one."""
    if faults(name):
        raise InputError(faults(name))
    module, _, attribute = TABLE[name].partition(":")
    task: type[Task] = getattr(importlib.import_module(module), attribute)
    return task


def build(name: str = DEFAULT, classes: Sequence[str] | int = 2) -> "Task":
    """The task of a config for one data set.

    Args:
        name: an entry of `TABLE`: the config key `task`.
        classes: names of the outputs of each head, or their number where names do not matter.

    Returns:
        The task.

    Raises:
        InputError: for an unknown name, with the nearest known one.

    Example:
        >>> build("single_label", ["cat", "dog"]).default_metric
        'auroc'
    """
    names_of_outputs = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    return load(name)(names_of_outputs)
