"""Modules by the names of modalities, which can be any text, such as `rna.seq`, `keys` or `type`."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

from torch import nn

_DOT, _MARK = "%2E", "%"

# Attributes of every torch module: a child of such a name would replace the attribute.
_OWN = frozenset(vars(nn.Module()))


def safe_keys(names: Iterable[str]) -> dict[str, str]:
    """Maps each name to a key without dots, for the names of parameters and tensors.

    A name that is valid as a key is its own key. Different names get different keys, which depend on the order of the
    names.
    """
    all_names = list(names)
    keys = {name: name for name in all_names if name and "." not in name and name not in _OWN}
    taken = set(keys)
    for name in all_names:
        if name in keys:
            continue
        key = name.replace(".", _DOT) or _MARK
        if key in _OWN:
            key = f"{_MARK}{key}"
        while key in taken:
            key += _MARK
        keys[name] = key
        taken.add(key)
    return {name: keys[name] for name in all_names}


class NamedModules(nn.Module):
    """An immutable, ordered mapping from names to modules. Any text is a valid name.

    The parameters of module `name` are called `<safe key of name>.<its own name>`; nn.ModuleDict would do the same, but
    rejects names with a dot and those of its own attributes.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._by_name = safe_keys(modules)
        # Not add_module: it refuses every name that some version of torch has an attribute for.
        self._modules.update({self._by_name[name]: module for name, module in modules.items()})

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[self._by_name[name]]
        assert module is not None
        return module

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
        """Splits the dotted name of a parameter into the name of its module and the parameter's name in that module."""
        key, _, inner_name = path.partition(".")
        return next(name for name, own_key in self._by_name.items() if own_key == key), inner_name
