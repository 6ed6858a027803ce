"""The typed config of one training run: schema, rules across fields, loading from YAML and overrides."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "RunConfig": "m3col.config.schema:RunConfig",
        "load": "m3col.config.loading:load",
    },
)
