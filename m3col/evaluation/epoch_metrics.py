"""Metrics of one epoch: the reported ones, the one that ranks trials, and the window for its average."""

import math
from collections.abc import Sequence

from m3col.config.schema import RunConfig
from m3col.methods import registry
from m3col.tasks.base import Task


def default_metric(config: RunConfig, task: Task) -> str:
    """The metric that ranks trials: the config's `metric`, or the task's default on validation samples."""
    return config.metric or f"val/{task.default_metric}"


def known_metrics(config: RunConfig, modalities: Sequence[str], task: Task) -> list[str]:
    """Names of all values that a training with validation reports per epoch, as method and task declare them.

    Args:
        config: of the run; its method has the outputs.
        modalities: names in the order of the data set.
        task: has the metrics of the primary output and those of each output.

    Returns:
        Names such as `val/accuracy` and `val/ce_fused`, and `train/loss`.
    """
    method = registry.load(config.method)
    primary, names = method.primary_output, list[str]()
    if primary is not None:
        names = [*task.metrics, *task.output_metric_names(method.output_names(config, modalities), primary)]
    return [*(f"val/{name}" for name in names), "train/loss"]


def window(epochs: int) -> int:
    """The number of last epochs over which a score is averaged: a tenth of the configured number, at least 1."""
    return max(1, math.ceil(epochs / 10))
