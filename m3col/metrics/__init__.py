"""Metrics of predictions, and their confidence intervals."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "MetricSpec": "m3col.metrics.spec:MetricSpec",
        "names": "m3col.metrics.classification:names",
        "compute": "m3col.metrics.classification:compute",
        "score": "m3col.metrics.classification:score",
        "default": "m3col.metrics.classification:default",
        "higher_is_better": "m3col.metrics.spec:higher_is_better",
        "per_sample": "m3col.metrics.classification:per_sample",
        "cross_validated": "m3col.metrics.classification:cross_validated",
    },
)
