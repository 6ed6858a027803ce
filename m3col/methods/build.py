"""The class of a method by its name in the registry."""

import importlib
from typing import TYPE_CHECKING

from m3col.methods.registry import TABLE

if TYPE_CHECKING:
    from m3col.methods.base import Method


def load(name: str) -> "type[Method]":
    """The class of an entry."""
    module, _, attribute = TABLE[name].target.partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found
