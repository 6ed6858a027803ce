"""File formats: one module per layout of a data set on disk."""
