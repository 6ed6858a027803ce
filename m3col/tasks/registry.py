"""TABLE of tasks, by the value of the config key `task`.

A new task is one file with a subclass of `m3col.tasks.base.Task`, one entry here, and one entry in
`m3col.metrics.spec` for each metric that is new. Entries name their class as text, so that checking a config imports
none of them.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from m3col.errors import InputError, nearest

if TYPE_CHECKING:
    from m3col.tasks.base import Task

DEFAULT = "single_label"

# name -> "module:Class"
TABLE: dict[str, str] = {
    DEFAULT: "m3col.tasks.single_label:SingleLabel",
    "multi_label": "m3col.tasks.multi_label:MultiLabel",
    "regression": "m3col.tasks.regression:Regression",
}


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


class TaskSettings(Protocol):
    """What a config says of its task, see m3col.config.schema.RunConfig."""

    @property
    def task(self) -> str: ...

    @property
    def threshold(self) -> float | str | None: ...


def of(config: TaskSettings, classes: Sequence[str] | int) -> "Task":
    """The task of a config for one data set, with the settings that the config has for it.

    Args:
        config: the config of a run, or what it says of its task.
        classes: names of the outputs of each head, or their number where names do not matter.

    Returns:
        The task.
    """
    return build(config.task, classes, threshold=config.threshold)


def build(name: str = DEFAULT, classes: Sequence[str] | int = 2, *, threshold: float | str | None = None) -> "Task":
    """The task of a config for one data set.

    Args:
        name: an entry of `TABLE`: the config key `task`.
        classes: names of the outputs of each head, or their number where names do not matter.
        threshold: the config key `threshold`; None: its default.

    Returns:
        The task.

    Raises:
        InputError: for an unknown name, with the nearest known one.

    Example:
        >>> build("single_label", ["cat", "dog"]).default_metric
        'auroc'
    """
    names_of_outputs = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    return load(name)(names_of_outputs, threshold=threshold)
