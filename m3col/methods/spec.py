"""What is known of a method without importing its class.

The registry and its table use it; checking a config of this project's methods then does not import torch.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from m3col.config.schema import ObjectiveConfig
from m3col.errors import InputError, nearest, reason_of

if TYPE_CHECKING:
    from m3col.methods.base import Method

# The default share of the epochs after which scores of trials are comparable. It is the value of version 0.1, so that
# resumed studies prune as before.
COMPARABLE_FROM = 0.33

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
        kinds: the kinds of its modalities, one of each in any order; None: any.
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
    kinds: tuple[str, ...] | None = None
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
        return class_of(self.target)


def class_of(target: str) -> "type[Method]":
    """The class at "module:Class". Raises InputError where there is none, or it is no method."""
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
