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
from m3col.methods.settings import (
    CMCSettings,
    CoMMSettings,
    CoMMSupConSettings,
    ContrastSettings,
    CrossSelfSettings,
    CrossSettings,
    FactorCLSettings,
    M3CoLSettings,
    MixupSettings,
    SLIPSettings,
    SupConSettings,
    SupervisedSettings,
    TransformerSettings,
)

if TYPE_CHECKING:
    from m3col.methods.base import Method

ENTRY_POINTS = "m3col.methods"

MIX_KEYS = ("mix.level", "mix.probability")


@dataclass(frozen=True)
class MethodSpec:
    """The properties of a method, known without importing its class; see the class attributes of `Method`.

    Attributes:
        target: "module:Class".
        settings: the pydantic model of the config section `objective:`.
        summary: one line for lists of methods.
        display_name: its name in tables and studies.
        mixes: whether it has the config section `mix:`.
        one_modality: whether it takes exactly one modality.
        most_modalities: the largest number of modalities that it takes; None: any.
        comparable_from: the field of `settings` with the share of the epochs after which scores are comparable; None:
            `COMPARABLE_FROM`.
        inherits: field of `settings` -> the field whose value replaces it where it is None.
        tasks: names of the tasks that it can be trained on; None: any.
    """

    target: str
    settings: type[ObjectiveConfig]
    summary: str
    display_name: str
    mixes: bool = False
    one_modality: bool = False
    most_modalities: int | None = None
    comparable_from: str | None = None
    inherits: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """The config keys of this method beyond those that every method has."""
        own = set(self.settings.model_fields) - set(ObjectiveConfig.model_fields)
        return frozenset([*(f"objective.{name}" for name in own), *(MIX_KEYS if self.mixes else ())])

    def share_before_pruning(self, settings: ObjectiveConfig) -> float:
        """The share of the epochs during which a search prunes no trial, because scores are not comparable yet."""
        return COMPARABLE_FROM if self.comparable_from is None else float(getattr(settings, self.comparable_from))

    def load(self) -> "type[Method]":
        """Imports and returns the class."""
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
    "comm": MethodSpec(
        "m3col.methods.comm:CoMM",
        CoMMSettings,
        "fused embeddings of two augmentations are similar, and those of each modality alone",
        "comm",
    ),
    "comm_supcon": MethodSpec(
        "m3col.methods.comm:CoMMSupCon",
        CoMMSupConSettings,
        "samples of one class have similar fused embeddings; fine-tuning of comm with labels",
        "comm_supcon",
        tasks=("single_label",),
    ),
    "fusion_transformer": MethodSpec(
        "m3col.methods.fusion_transformer:Transformer",
        TransformerSettings,
        "a fusion transformer with a linear head; fine-tuning of comm",
        "fusion_transformer",
    ),
    "cross": MethodSpec(
        "m3col.methods.contrast:Cross",
        CrossSettings,
        "the two modalities of a sample have similar embeddings (CLIP)",
        "cross",
        most_modalities=2,
    ),
    "cross_self": MethodSpec(
        "m3col.methods.contrast:CrossSelf",
        CrossSelfSettings,
        "similar embeddings of the two modalities of a sample, and of two augmentations of each",
        "cross_self",
        most_modalities=2,
    ),
    "simclr": MethodSpec(
        "m3col.methods.contrast:SimCLR",
        ContrastSettings,
        "two augmentations of one modality have similar embeddings",
        "simclr",
        one_modality=True,
    ),
    "slip": MethodSpec(
        "m3col.methods.contrast:SLIP",
        SLIPSettings,
        "similar embeddings of the two modalities of a sample, and of two augmentations of the first",
        "slip",
        most_modalities=2,
    ),
    "cmc": MethodSpec(
        "m3col.methods.contrast:CMC", CMCSettings, "every two modalities of a sample have similar embeddings", "cmc"
    ),
    "supcon": MethodSpec(
        "m3col.methods.contrast:SupCon",
        SupConSettings,
        "samples of one class have similar embeddings across modalities; needs labels",
        "supcon",
        tasks=("single_label",),
    ),
    "factorcl": MethodSpec(
        "m3col.methods.factorcl:FactorCL",
        FactorCLSettings,
        "bounds of shared and unique information of two modalities",
        "factorcl",
        most_modalities=2,
    ),
    "factorcl_sup": MethodSpec(
        "m3col.methods.factorcl:FactorCLSup",
        FactorCLSettings,
        "bounds of shared and unique information of two modalities, with labels",
        "factorcl_sup",
        most_modalities=2,
        tasks=("single_label",),
    ),
}

DEFAULT = "m3col"

# The default share of the epochs after which scores of trials are comparable. It is the value of version 0.1, so that
# resumed studies prune as before.
COMPARABLE_FROM = 0.33

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
        method = _class_of(target)
        _NAMED[name] = MethodSpec(
            target,
            method.Settings,
            method.summary,
            display_name,
            mixes=method.mixes,
            one_modality=method.one_modality,
            most_modalities=method.most_modalities,
            comparable_from=method.comparable_from,
            inherits=method.inherits,
            tasks=method.tasks,
        )
    return _NAMED[name]


def _class_of(target: str) -> "type[Method]":
    module, _, attribute = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise InputError([f"method {target!r}: cannot import {module}: {error}"]) from error
    except Exception as error:  # a user's module can raise anything
        raise InputError([f"method {target!r}: importing {module} fails: {reason_of(error)}"]) from error
    method = getattr(loaded, attribute, None)
    if method is None:
        close = nearest(attribute, [key for key in vars(loaded) if not key.startswith("_")])
        raise InputError([f"method {target!r}: {module} has no {attribute!r}{close}"])
    from m3col.methods.base import Method  # imported here, because it imports torch

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError([f"method {target!r}: {attribute} is not a subclass of m3col.methods.base.Method"])
    return method


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


def load(name: str) -> "type[Method]":
    """Imports and returns the class of a method. Raises InputError for an unknown one."""
    return find(name).load()
