"""Tasks: what a model predicts. `registry` lists them; each is one file."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "TABLE": "m3col.tasks.registry:TABLE",
        "Task": "m3col.tasks.base:Task",
        "build": "m3col.tasks.registry:build",
        "of": "m3col.tasks.registry:of",
        "names": "m3col.tasks.registry:names",
    },
)
