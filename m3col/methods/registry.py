"""Methods by name: those of this project, those of installed packages, and any class named as `module:Class`.

A method of this project is one file with a subclass of `m3col.methods.base.Method` and one entry in `TABLE`; the
contract tests run over this table. An installed package registers its methods under the entry point group
`m3col.methods`. A config may also name a class of the user's own: `method: my_package.my_module:MyMethod`.

Entries of `TABLE` name their class as text, so that checking a config of this project's methods does not import torch.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from m3col.config.schema import ObjectiveConfig
from m3col.errors import InputError, nearest, reason_of
from m3col.methods.settings import M3CoLSettings, MixupSettings, SupervisedSettings

if TYPE_CHECKING:
    from m3col.methods.base import Method

ENTRY_POINTS = "m3col.methods"

MIX_KEYS = ("mix.level", "mix.probability")


@dataclass(frozen=True)
class MethodSpec:
    """What a config, a search and a table have to know of a method; see the class attributes of `Method`.

    Attributes:
        target: "module:Class".
        settings: the model of the section `objective:`.
        summary: one line for lists of methods.
        display_name: how tables and studies call it.
        mixes: whether it has the section `mix:`.
        one_modality: whether it takes exactly one modality.
        comparable_from: the field of `settings` with the share of the epochs after which scores can be compared.
        inherits: field -> field whose value it takes where it is None.
    """

    target: str
    settings: type[ObjectiveConfig]
    summary: str
    display_name: str
    mixes: bool = False
    one_modality: bool = False
    comparable_from: str | None = None
    inherits: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> frozenset[str]:
        """The config keys that it reads and other methods may not have."""
        own = set(self.settings.model_fields) - set(ObjectiveConfig.model_fields)
        return frozenset([*(f"objective.{name}" for name in own), *(MIX_KEYS if self.mixes else ())])

    def share_before_pruning(self, settings: ObjectiveConfig) -> float:
        """The share of the epochs before which scores of trials cannot be compared."""
        return COMPARABLE_FROM if self.comparable_from is None else float(getattr(settings, self.comparable_from))

    def load(self) -> "type[Method]":
        """The class."""
        return _class_of(self.target)


TABLE: dict[str, MethodSpec] = {
    "m3col": MethodSpec(
        "m3col.methods.m3col:M3CoL",
        M3CoLSettings,
        "mixup contrast, then soft-clip contrast, with supervised heads (Eq. 16)",
        "m3col",
        mixes=True,
        comparable_from="switch_point",
        inherits={"softclip_temperature": "temperature"},
    ),
    "mixup": MethodSpec(
        "m3col.methods.mixup:Mixup",
        MixupSettings,
        "inputs and targets mixed with one permutation for all modalities, no contrast",
        "mixup",
        mixes=True,
    ),
    "concat": MethodSpec(
        "m3col.methods.concat:Concat",
        SupervisedSettings,
        "concatenated embeddings and supervised heads, no contrast (beta = 0)",
        "concat",
    ),
    "single": MethodSpec(
        "m3col.methods.unimodal:Single", ObjectiveConfig, "one modality alone", "single", one_modality=True
    ),
}

DEFAULT = "m3col"

# The share of the epochs after which scores can be compared, where a method does not say: the one of version 0.1, so
# that studies go on to prune as they did.
COMPARABLE_FROM = 0.33

_NAMED: dict[str, MethodSpec] = {}  # classes that configs of this process named as "module:Class"


def names() -> tuple[str, ...]:
    """All methods that have a name: of this project and of installed packages."""
    return (*TABLE, *_installed())


@cache
def _installed() -> dict[str, str]:
    """Name -> "module:Class" of installed packages' methods; names of this project's methods stay ours."""
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS) if point.name not in TABLE}


def is_method(name: Any) -> bool:
    """Whether `find` knows the method."""
    try:
        find(name)
    except InputError:
        return False
    return True


def split(text: str) -> tuple[str, str]:
    """An entry of a search's `methods`, such as "single:rna", as the method and its modality ("" for none)."""
    head, _, rest = text.partition(":")
    if head in names() or not _is_module(head):
        return head, rest
    target, _, modality = rest.partition(":")
    return f"{head}:{target}", modality


def _is_module(name: str) -> bool:
    """Whether a module of that name can be found, without importing it (but for the packages that it lies in)."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # no such package, or no name of a module
        return False


def find(name: Any, *, trusted: bool = True) -> MethodSpec:
    """The method of that name.

    Args:
        name: a name of `names`, or "module:Class".
        trusted: whether a module may be imported because the name says so. False for what a file from elsewhere
            names, such as a checkpoint: it must have been imported before.

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
        method = _class_of(target)
        _NAMED[name] = MethodSpec(
            target,
            method.Settings,
            method.summary,
            display_name,
            mixes=method.mixes,
            one_modality=method.one_modality,
            comparable_from=method.comparable_from,
            inherits=method.inherits,
        )
    return _NAMED[name]


def _class_of(target: str) -> "type[Method]":
    module, _, attribute = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise InputError([f"method {target!r}: cannot import {module}: {error}"]) from error
    except Exception as error:  # whatever the user's own module raises
        raise InputError([f"method {target!r}: importing {module} fails: {reason_of(error)}"]) from error
    found = getattr(loaded, attribute, None)
    if found is None:
        close = nearest(attribute, [key for key in vars(loaded) if not key.startswith("_")])
        raise InputError([f"method {target!r}: {module} has no {attribute!r}{close}"])
    from m3col.methods.base import Method  # it needs torch

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError([f"method {target!r}: {attribute} is not a subclass of m3col.methods.base.Method"])
    return found


def import_folders() -> tuple[str, ...]:
    """The folders in which this process found the modules of methods that are not of this project."""
    files = [os.path.abspath(str(module.__file__)) for module in own_modules()]
    folders = [os.path.dirname(path) for path in files]
    roots = [
        os.path.dirname(folder) if os.path.basename(path) == "__init__.py" else folder
        for path, folder in zip(files, folders, strict=True)
    ]
    return tuple(dict.fromkeys(roots))


def own_modules() -> list[ModuleType]:
    """The modules, or the packages around them, of methods that configs of this process named and that are neither of
    this project nor of an installed package."""
    heads = {target.partition(":")[0].partition(".")[0] for name in _NAMED if (target := _NAMED[name].target) == name}
    return [module for head in sorted(heads) if getattr(module := importlib.import_module(head), "__file__", None)]


def add_import_folders(folders: Sequence[str]) -> None:
    """Lets this process import from these folders too, after its own; what another machine lacks is left out."""
    sys.path.extend(folder for folder in folders if folder not in sys.path and os.path.isdir(folder))


def ignored_keys(name: str) -> frozenset[str]:
    """Config keys of other methods that method `name` does not have."""
    every = {key for spec in (*TABLE.values(), *_NAMED.values()) for key in spec.keys}
    return frozenset(every) - find(name).keys


def load(name: str) -> "type[Method]":
    """The class of a method. Raises InputError for an unknown one."""
    return find(name).load()
