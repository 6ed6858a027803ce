"""Data sets: read from files, bundled with scikit-learn, or built from arrays and DataFrames."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "TABLE": "m3col.data.catalog:TABLE",
        "names": "m3col.data.catalog:names",
        "Entry": "m3col.data.formats.entry:Entry",
        "Dataset": "m3col.data.dataset:Dataset",
        "Split": "m3col.data.dataset:Split",
        "concat": "m3col.data.dataset:concat",
        "from_arrays": "m3col.data.arrays:from_arrays",
        "load": "m3col.data.loading:load",
        "locate": "m3col.data.loading:locate",
    },
)
