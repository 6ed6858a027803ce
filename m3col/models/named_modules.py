"""Modules by the names that people give to their modalities, which may be anything: `rna.seq`, `keys`, `type`."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

from torch import nn

_DOT, _MARK = "%2E", "%"

# What every module keeps about itself: torch would take a child of such a name for it.
_OWN = frozenset(vars(nn.Module()))


def safe_keys(names: Iterable[str]) -> dict[str, str]:
    """name -> key without dots, for names of parameters and tensors; different names get different keys.

    A name that needs no change is its own key, so that most keys are the names. `names` in the same order give the same
    keys.
    """
    every = list(names)
    keys = {name: name for name in every if name and "." not in name and name not in _OWN}
    taken = set(keys)
    for name in every:
        if name in keys:
            continue
        key = name.replace(".", _DOT) or _MARK
        if key in _OWN:
            key = f"{_MARK}{key}"
        while key in taken:
            key += _MARK
        keys[name] = key
        taken.add(key)
    return {name: keys[name] for name in every}


class NamedModules(nn.Module):
    """Modules by name, in the order given, as a mapping that cannot change. Any text is a name.

    The parameters of module `name` are called `<safe key of name>.<its own name>`; nn.ModuleDict would do the same, but
    refuses names with a dot and those of its own attributes.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._by_name = safe_keys(modules)
        # Not add_module: it refuses every name that some version of torch has an attribute for.
        self._modules.update({self._by_name[name]: module for name, module in modules.items()})

    def __getitem__(self, name: str) -> nn.Module:
        found = self._modules[self._by_name[name]]
        assert found is not None
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def _by_names(self) -> dict[str, nn.Module]:
        return {name: self[name] for name in self}

    def items(self) -> ItemsView[str, nn.Module]:
        return self._by_names().items()

    def values(self) -> ValuesView[nn.Module]:
        return self._by_names().values()

    def split(self, path: str) -> tuple[str, str]:
        """Of the dotted name of a parameter below this module: the name of the module it is in, and its name there."""
        key, _, rest = path.partition(".")
        return next(name for name, own in self._by_name.items() if own == key), rest
