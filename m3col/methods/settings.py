"""The config section `objective:` of each method. Does not import torch, so that checking a config is fast."""

from typing import Annotated, Literal

from pydantic import Field

from m3col.config.schema import Count, NotNegative, ObjectiveConfig, Positive, RunConfig, Share

TrainedTemperature = Annotated[float, Field(ge=0.01, le=1)]


class DecisionSettings(ObjectiveConfig):
    """Settings of methods with a head per modality, or an equal of it, and a fused output.

    Attributes:
        decision: what predicts: "fused": the fused output; "mean_of_heads": the mean of the predictions of all heads;
            "stacked": the heads with weights that are fitted on held-out samples of the training fold, see
            docs/protocol.md.
        stack_share: the share of a training fold that is held out for these weights, with decision "stacked".
    """

    decision: Literal["fused", "mean_of_heads", "stacked"] = "fused"
    stack_share: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2


def stack_share(config: RunConfig) -> float | None:
    """The share of a training fold that is held out to weight the heads; None: nothing is held out."""
    settings = config.objective
    stacked = isinstance(settings, DecisionSettings) and settings.decision == "stacked"
    return settings.stack_share if isinstance(settings, DecisionSettings) and stacked else None


class SupervisedSettings(DecisionSettings):
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


class SelfSupervisedSettings(ObjectiveConfig):
    """Settings of methods that learn without labels.

    Attributes:
        evaluations: how often a training fits and validates the linear classifier, evenly spaced; the last time after
            the last epoch.
    """

    evaluations: Literal[1, 2, 5, 10, 25, 50] = 10


class ProjectionSettings(SelfSupervisedSettings):
    """Settings of methods that compare projections of embeddings.

    Attributes:
        projector_dim: output width of the projections, P.
    """

    projector_dim: Count = 256


class ContrastSettings(ProjectionSettings):
    """Settings of methods with NT-Xent on the output of an MLP.

    Attributes:
        temperature: tau.
        projector_hidden: hidden width of the MLP.
    """

    temperature: Positive = 0.1
    projector_hidden: Count = 512


class TransformerSettings(ObjectiveConfig):
    """Settings of a fusion transformer.

    Attributes:
        fusion_layers: layers of the fusion transformer.
        fusion_heads: attention heads of the fusion transformer; must divide `model.embedding_dim`.
    """

    fusion_layers: Count = 1
    fusion_heads: Count = 8


class FusedSettings(SelfSupervisedSettings, TransformerSettings):
    """Settings of methods that evaluate the embedding of a fusion transformer."""


class CoMMSettings(ContrastSettings, FusedSettings):
    """Settings of CoMM.

    Attributes:
        form: "code": NT-Xent, the form that gave the published figures; "paper": InfoNCE and the sum of the equations.
        terms: which terms the loss has: "all"; "full": only the one between the embeddings of all modalities (L_0);
            "masked": only those with one modality alone (L_1..L_M).
    """

    form: Literal["code", "paper"] = "code"
    terms: Literal["all", "full", "masked"] = "all"


class CrossSettings(ProjectionSettings):
    """Settings of Cross.

    Attributes:
        temperature: tau at the start, from 0.01 to 1, between which it is trained.
    """

    temperature: TrainedTemperature = 0.07


class CrossSelfSettings(ContrastSettings):
    """Settings of Cross+Self.

    Attributes:
        self_weight: weight of the terms within a modality.
    """

    self_weight: NotNegative = 1.0


class SLIPSettings(CrossSelfSettings):
    """Settings of SLIP.

    Attributes:
        clip_temperature: tau of the term between modalities at the start, from 0.01 to 1, between which it is trained.
    """

    clip_temperature: TrainedTemperature = 0.07


class CMCSettings(ProjectionSettings):
    """Settings of CMC.

    Attributes:
        temperature: tau.
    """

    temperature: Positive = 0.1


class SupConSettings(ProjectionSettings):
    """Settings of SupCon.

    Attributes:
        temperature: T.
    """

    temperature: Positive = 0.5


class CoMMSupConSettings(FusedSettings):
    """Settings of the supervised contrast of fused embeddings.

    Attributes:
        temperature: T.
    """

    temperature: Positive = 0.07


class FactorCLSettings(SelfSupervisedSettings):
    """Settings of FactorCL.

    Attributes:
        critic_hidden: hidden width of the critics.
    """

    critic_hidden: Count = 512


class LateSettings(DecisionSettings):
    """Settings of late fusion.

    Attributes:
        fused_weight: weight of the loss of the mean prediction; 0: each modality is trained as if alone.
        decision: what predicts: "fused": the mean; "stacked": see `DecisionSettings`.
    """

    fused_weight: NotNegative = 0.0
    decision: Literal["fused", "stacked"] = "fused"


class TMCSettings(DecisionSettings):
    """Settings of TMC.

    Attributes:
        kl_share: T as a share of the epochs, over which the weight of KL grows to `kl_weight`.
        kl_weight: weight of KL from epoch T on.
        evidence: what makes evidence >= 0 of the outputs of a head; "exp" is cut off at exp(10).
        pseudo_view: whether a head on the concatenated embeddings gives one more opinion (ETMC).
    """

    kl_share: Share = 0.1
    kl_weight: NotNegative = 1.0
    evidence: Literal["softplus", "exp", "relu"] = "softplus"
    pseudo_view: bool = False


class DynamicsSettings(DecisionSettings):
    """Settings of Multimodal Dynamics.

    Attributes:
        sparsity: weight of the mean gate, l1.
        confidence: weight of the squared error of the confidences, l2.
        detach: whether the probability that a confidence aims at has no gradient.
        bounded_confidence: whether confidences go through a sigmoid.
    """

    sparsity: NotNegative = 1.0
    confidence: NotNegative = 1.0
    detach: bool = False
    bounded_confidence: bool = False


class GMUSettings(SupervisedSettings):
    """Settings of the gated multimodal unit.

    Attributes:
        unimodal_supervision: whether each modality has a classification head of its own; the original has none.
        width: H, the width of the unit.
        tied: whether the gates of two modalities add up to 1.
    """

    unimodal_supervision: bool = False
    width: Count = 256
    tied: bool = False


class UniSMMCSettings(DecisionSettings):
    """Settings of UniS-MMC.

    Attributes:
        contrast_weight: weight of the contrast.
        temperature: tau of the contrast.
    """

    contrast_weight: NotNegative = 0.1
    temperature: Positive = 0.07


class VCDNSettings(DecisionSettings):
    """Settings of the view correlation discovery network.

    Attributes:
        activation: what makes predictions of the outputs of a modality's head.
        end_to_end: whether the loss of the fused prediction also trains encoders and heads.
        hidden: hidden width; None: the number of products, C^M.
    """

    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    end_to_end: bool = False
    hidden: Count | None = None


class MOGONETSettings(VCDNSettings):
    """Settings of MOGONET.

    Attributes:
        neighbours: k: so many training samples are within the largest distance of an edge in the mean, the sample
            itself among them.
        graph_width: width of the first two graph layers; the third has `model.embedding_dim`.
        store_training_rows: whether checkpoints may have the values of the training samples. The method cannot be
            trained without them.
    """

    neighbours: Annotated[int, Field(ge=2)] = 2
    graph_width: Count = 200
    store_training_rows: bool = False


class CentralNetSettings(DecisionSettings):
    """Settings of CentralNet.

    Attributes:
        unimodal_weight: b, weight of the losses of single modalities.
    """

    unimodal_weight: NotNegative = 1.0


class MMBTSettings(ObjectiveConfig):
    """Settings of MMBT.

    Attributes:
        image_tokens: K, the number of tokens of an image.
    """

    image_tokens: Annotated[int, Field(ge=1, le=16)] = 3
