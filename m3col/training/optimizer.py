"""The optimizer's parameter groups."""

from typing import Any

import torch
from torch import nn

from m3col.config.schema import RunConfig
from m3col.methods.base import Method


def build(config: RunConfig, method: Method) -> torch.optim.Adam:
    """The optimizer that `train.optimizer` names. AdamW applies the weight decay beside the gradient, Adam adds it to
    the gradient."""
    kind = torch.optim.AdamW if config.train.optimizer == "adamw" else torch.optim.Adam
    return kind(parameter_groups(config, method), lr=config.train.learning_rate, fused=True)


def parameter_groups(config: RunConfig, method: Method) -> list[dict[str, Any]]:
    """The parameter groups for the optimizer.

    Encoders may have a learning rate and a weight decay of their own. With `train.decay: weights`, biases and norms
    have no weight decay.

    Args:
        config: the config of the run.
        method: the method with its encoders and heads.

    Returns:
        Groups with `params`, `weight_decay`, and `scale`, the factor of the learning rate.
    """
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
        # A bias may have two dimensions, such as that of relative positions, so its name decides. Only the name inside
        # the encoder counts: a modality may itself be called "bias".
        is_bias = "bias" in (name if part == "encoders" else name.rsplit(".", 1)[-1])
        if train.decay == "weights" and (parameter.ndim < 2 or is_bias):
            decay = 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in groups.items()
    ]  # fmt: skip
