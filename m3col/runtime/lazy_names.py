"""Public names of a package that are imported on first use, so that importing the package costs nothing."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module `__getattr__` for `package`.

    Args:
        package: name of the package, for the error message.
        homes: public name -> "module" for a submodule, or "module:name" for a name inside a module.

    Returns:
        A function that imports the module of a name and returns what the name stands for. It raises AttributeError
        for names that are not in `homes`.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        imported = importlib.import_module(module)
        return getattr(imported, attribute) if attribute else imported

    return find
