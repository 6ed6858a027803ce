"""The section `objective:` of each method's config. No torch here: checking a config does not wait for it."""

from typing import Annotated

from pydantic import Field

from m3col.config.schema import NotNegative, ObjectiveConfig, Positive, Share


class SupervisedSettings(ObjectiveConfig):
    """`unimodal_supervision`: whether each modality has a classification head of its own, beside the fused one."""

    unimodal_supervision: bool = True


class MixupSettings(SupervisedSettings):
    """`alpha`: lambda is drawn from Beta(alpha, alpha)."""

    alpha: Positive = 0.15


class M3CoLSettings(MixupSettings):
    """Eq. 16. `beta`: weight of the contrastive term; `switch_point`: share of the epochs trained with M3Co before
    MultiSClip takes over; `softclip_temperature`: tau of MultiSClip, default: `temperature`."""

    beta: NotNegative = 0.1
    temperature: Positive = 0.1
    softclip_temperature: Annotated[float, Field(gt=0)] | None = None
    switch_point: Share = 0.33
