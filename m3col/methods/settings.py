"""The config section `objective:` of each method. Does not import torch, so that checking a config is fast."""

from typing import Annotated

from pydantic import Field

from m3col.config.schema import NotNegative, ObjectiveConfig, Positive, Share


class SupervisedSettings(ObjectiveConfig):
    """Settings of methods with heads.

    Attributes:
        unimodal_supervision: whether each modality has a classification head of its own, beside the fused one.
    """

    unimodal_supervision: bool = True


class MixupSettings(SupervisedSettings):
    """Settings of Mixup.

    Attributes:
        alpha: lambda is drawn from Beta(alpha, alpha).
    """

    alpha: Positive = 0.15


class M3CoLSettings(MixupSettings):
    """Settings of M3CoL (Eq. 16).

    Attributes:
        beta: weight of the contrastive term.
        temperature: tau of M3Co.
        softclip_temperature: tau of MultiSClip; None: `temperature`.
        switch_point: share of the epochs that are trained with M3Co; the others are trained with MultiSClip.
    """

    beta: NotNegative = 0.1
    temperature: Positive = 0.1
    softclip_temperature: Annotated[float, Field(gt=0)] | None = None
    switch_point: Share = 0.33
