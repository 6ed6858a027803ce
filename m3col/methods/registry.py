"""Methods by name: those of this project, those of installed packages, and any class named as `module:Class`.

A method of this project is one file with a subclass of `m3col.methods.base.Method` and one entry in `TABLE`
(`m3col.methods.table`). An installed package registers its methods under the entry point group
`m3col.methods`. A config may also name a class of the user's own: `method: my_package.my_module:MyMethod`.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from m3col.errors import InputError, nearest
from m3col.methods.spec import MethodSpec, class_of
from m3col.methods.table import TABLE

if TYPE_CHECKING:
    from m3col.methods.base import Method

ENTRY_POINTS = "m3col.methods"

DEFAULT = "m3col"

_NAMED: dict[str, MethodSpec] = {}  # classes that configs of this process named as "module:Class"


def names() -> tuple[str, ...]:
    """The names of all methods of this project and of installed packages."""
    return (*TABLE, *_installed())


@cache
def _installed() -> dict[str, str]:
    """Name -> "module:Class" of the methods of installed packages. They cannot replace a method of this project."""
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS) if point.name not in TABLE}


def is_method(name: Any) -> bool:
    """Whether `find` knows the method."""
    try:
        find(name)
    except InputError:
        return False
    return True


def split(text: str) -> tuple[str, str]:
    """Splits an entry of a search's `methods`, such as "single:rna", into method and modality ("" for none)."""
    head, _, tail = text.partition(":")
    if head in names() or not _is_module(head):
        return head, tail
    target, _, modality = tail.partition(":")
    return f"{head}:{target}", modality


def _is_module(name: str) -> bool:
    """Whether a module of that name exists. It is not imported, but the packages that contain it are."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # no such package, or not a valid module name
        return False


def find(name: Any, *, trusted: bool = True) -> MethodSpec:
    """The method of that name.

    Args:
        name: a name of `names`, or "module:Class".
        trusted: whether the module in the name may be imported. False for a name from a file, such as a checkpoint:
            reading a file must not run code, so its module must have been imported before.

    Returns:
        The properties of the method.

    Raises:
        InputError: nothing has that name, the module cannot be imported, or its class is no method.
    """
    if isinstance(name, str) and name in TABLE:
        return TABLE[name]
    if isinstance(name, str) and name in _installed():
        return _of_class(name, _installed()[name], display_name=name)
    module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not (colon and module and attribute.isidentifier()):
        hint = "; name a class of your own as my_package.my_module:MyMethod" if "." in str(name) else ""
        raise InputError([f"method {name!r} is unknown{nearest(name, names())}{hint}"])
    if not trusted and module not in sys.modules:
        raise InputError(
            [
                f"method {name!r} is not of m3col; write `import {module}` first, or give the command "
                f"--import {module}: loading a file imports no code"
            ]
        )
    return _of_class(name, name, display_name=attribute)


def _of_class(name: str, target: str, *, display_name: str) -> MethodSpec:
    if name not in _NAMED:
        method = class_of(target)
        _NAMED[name] = MethodSpec(
            target,
            method.Settings,
            method.summary,
            display_name,
            mixes=method.mixes,
            one_modality=method.one_modality,
            most_modalities=method.most_modalities,
            kinds=method.kinds,
            comparable_from=method.comparable_from,
            inherits=method.inherits,
            tasks=method.tasks,
        )
    return _NAMED[name]


def import_folders() -> tuple[str, ...]:
    """The folders from which this process imported the modules of `own_modules`; other processes need them too."""
    files = [os.path.abspath(str(module.__file__)) for module in own_modules()]
    folders = [os.path.dirname(path) for path in files]
    roots = [
        os.path.dirname(folder) if os.path.basename(path) == "__init__.py" else folder
        for path, folder in zip(files, folders, strict=True)
    ]
    return tuple(dict.fromkeys(roots))


def own_modules() -> list[ModuleType]:
    """The top-level modules or packages of the user's own methods: those that a config named as "module:Class"."""
    heads = {target.partition(":")[0].partition(".")[0] for name in _NAMED if (target := _NAMED[name].target) == name}
    return [module for head in sorted(heads) if getattr(module := importlib.import_module(head), "__file__", None)]


def add_import_folders(folders: Sequence[str]) -> None:
    """Appends these folders to the import path of this process; folders that this machine lacks are left out."""
    sys.path.extend(folder for folder in folders if folder not in sys.path and os.path.isdir(folder))


def ignored_keys(name: str) -> frozenset[str]:
    """The config keys of other methods that method `name` does not have."""
    every = {key for spec in (*TABLE.values(), *_NAMED.values()) for key in spec.keys}
    return frozenset(every) - find(name).keys


def worker_faults(name: str, workers: int) -> list[str]:
    """The fault of a method that several workers cannot train; [] where they can, and for one worker."""
    if workers < 2 or load(name).several_workers:
        return []
    return [f"method {name!r} is trained by one worker, but got {workers}; nearest valid: 1"]


def load(name: str) -> "type[Method]":
    """Imports and returns the class of a method. Raises InputError for an unknown one."""
    return find(name).load()
