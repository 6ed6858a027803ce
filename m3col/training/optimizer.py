"""The optimizer's parameter groups."""

from typing import Any

from torch import nn

from m3col.config.schema import RunConfig
from m3col.methods.base import Method


def parameter_groups(config: RunConfig, method: Method) -> list[dict[str, Any]]:
    """The optimiser's groups, each with its `weight_decay` and its `scale` of the learning rate: encoders may have a
    rate of their own, and biases and norms may be left undecayed."""
    train = config.train
    encoder_decay = train.weight_decay if train.encoder_weight_decay is None else train.encoder_weight_decay
    rates = train.encoder_learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, name = path.partition(".")
        scale, decay = 1.0, train.weight_decay
        if part == "encoders":
            modality, name = method.encoders.split(name)
            own = rates.get(modality) if isinstance(rates, dict) else rates
            scale, decay = (own or train.learning_rate) / train.learning_rate, encoder_decay
        # A bias may be a table, as that of relative positions. A modality may be called anything.
        is_bias = "bias" in (name if part == "encoders" else name.rsplit(".", 1)[-1])
        if train.decay == "weights" and (parameter.ndim < 2 or is_bias):
            decay = 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": found, "scale": scale, "weight_decay": decay} for (scale, decay), found in groups.items()
    ]  # fmt: skip
