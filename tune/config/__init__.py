"""The typed config of a search: schema, search space, loading from YAML and overrides."""
