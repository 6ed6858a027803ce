"""Metrics of one epoch: which are known, which is watched by default, and how they are computed from logits."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from m3col.config.schema import RunConfig
from m3col.methods import registry
from m3col.methods.supervised import FUSED
from m3col.metrics import classification


def evaluate(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Cross-entropy of each head, their sum as "loss", and the accuracy of each modality's own head."""
    found: dict[str, float] = {}
    for name, value in logits.items():
        probabilities = classification.softmax(value)
        picked = probabilities[np.arange(len(labels)), labels]
        found[f"ce_{name}"] = float(-np.log(np.maximum(picked, np.finfo(float).tiny)).mean())
        if name != FUSED:
            found[f"accuracy_{name}"] = float((value.argmax(1) == labels).mean())
    found["loss"] = sum(value for name, value in found.items() if name.startswith("ce_"))
    return found


def default_metric(config: RunConfig, num_classes: int) -> str:
    """The config's `metric`, or val/auroc for two classes and val/macro_f1 for more."""
    return config.metric or f"val/{classification.default(num_classes)}"


def known_metrics(config: RunConfig, modalities: Sequence[str], num_classes: int) -> list[str]:
    """All names under which a training with validation reports numbers per epoch."""
    heads = registry.load(config.method).output_names(config, modalities)
    names = [f"val/{name}" for name in classification.names(num_classes)]
    names += [f"val/ce_{head}" for head in heads] + [f"val/accuracy_{head}" for head in heads if head != FUSED]
    return [*names, "val/loss", "train/loss"]


def window(epochs: int) -> int:
    """Epochs over which a score is averaged: the last tenth of the configured number."""
    return max(1, math.ceil(epochs / 10))
