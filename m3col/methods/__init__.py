"""Methods, which compute the loss terms of a batch. `registry` lists them; each is one file."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "TABLE": "m3col.methods.registry:TABLE",
        "names": "m3col.methods.registry:names",
        "find": "m3col.methods.registry:find",
        "load": "m3col.methods.registry:load",
        "Method": "m3col.methods.base:Method",
        "SupervisedMethod": "m3col.methods.supervised:SupervisedMethod",
        "SupervisedSettings": "m3col.methods.settings:SupervisedSettings",
    },
)
