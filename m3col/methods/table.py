"""TABLE of the methods of this project, by name.

A method is one file with a subclass of `m3col.methods.base.Method` and one entry here. Entries name their class as
text, so that checking a config does not import torch. The contract tests run over this table.
"""

from m3col.config.schema import ObjectiveConfig
from m3col.methods.settings import (
    CentralNetSettings,
    CMCSettings,
    CoMMSettings,
    CoMMSupConSettings,
    ContrastSettings,
    CrossSelfSettings,
    CrossSettings,
    DynamicsSettings,
    FactorCLSettings,
    GMUSettings,
    LateSettings,
    M3CoLSettings,
    MixupSettings,
    MMBTSettings,
    MOGONETSettings,
    SLIPSettings,
    SupConSettings,
    SupervisedSettings,
    TMCSettings,
    TransformerSettings,
    UniSMMCSettings,
    VCDNSettings,
)
from m3col.methods.spec import MethodSpec

TABLE: dict[str, MethodSpec] = {
    "m3col": MethodSpec(
        "m3col.methods.m3col:M3CoL",
        M3CoLSettings,
        "mixup contrast, then soft-clip contrast, with supervised heads (Eq. 16)",
        "m3col",
        mixes=True,
        comparable_from="switch_point",
        inherits={"softclip_temperature": "temperature"},
    ),
    "mixup": MethodSpec(
        "m3col.methods.mixup:Mixup",
        MixupSettings,
        "inputs and targets mixed with one permutation for all modalities, no contrast",
        "mixup",
        mixes=True,
    ),
    "concat": MethodSpec(
        "m3col.methods.concat:Concat",
        SupervisedSettings,
        "concatenated embeddings and supervised heads, no contrast (beta = 0)",
        "concat",
    ),
    "late": MethodSpec(
        "m3col.methods.late:Late",
        LateSettings,
        "the mean of the predictions of a classifier per modality",
        "late",
    ),
    "tmc": MethodSpec(
        "m3col.methods.tmc:TMC",
        TMCSettings,
        "evidence of each modality, combined by Dempster's rule (with pseudo_view: ETMC)",
        "tmc",
        tasks=("single_label",),
    ),
    "dynamics": MethodSpec(
        "m3col.methods.dynamics:Dynamics",
        DynamicsSettings,
        "gates for features, and embeddings weighted by the confidence of each modality",
        "dynamics",
        tasks=("single_label",),
    ),
    "gmu": MethodSpec(
        "m3col.methods.gmu:GMU", GMUSettings, "a sum of modalities, weighted by gates that see all of them", "gmu"
    ),
    "unis_mmc": MethodSpec(
        "m3col.methods.unis_mmc:UniSMMC",
        UniSMMCSettings,
        "heads, and agreement of modalities where one of them alone is right",
        "unis_mmc",
        tasks=("single_label",),
    ),
    "vcdn": MethodSpec(
        "m3col.methods.vcdn:VCDN",
        VCDNSettings,
        "a network on all products of the class probabilities of the modalities",
        "vcdn",
        tasks=("single_label",),
    ),
    "mogonet": MethodSpec(
        "m3col.methods.mogonet:MOGONET",
        MOGONETSettings,
        "graph networks over the training samples of each table, then products of class probabilities",
        "mogonet",
        tasks=("single_label",),
    ),
    "centralnet": MethodSpec(
        "m3col.methods.centralnet:CentralNet",
        CentralNetSettings,
        "a central network that sees weighted sums of the layers of all encoders",
        "centralnet",
    ),
    "cf": MethodSpec(
        "m3col.methods.concat:CF", ObjectiveConfig, "concatenated embeddings, one head; the row CF of the papers", "cf"
    ),
    "uniconcat": MethodSpec(
        "m3col.methods.concat:UniConcat",
        ObjectiveConfig,
        "concatenated embeddings of images and texts, one head; the row UniConcat of the papers",
        "uniconcat",
    ),
    "n24news": MethodSpec(
        "m3col.methods.concat:N24News",
        ObjectiveConfig,
        "concatenated embeddings with a head per modality; the row N24News of the papers",
        "n24news",
    ),
    "mmbt": MethodSpec(
        "m3col.methods.mmbt:MMBT",
        MMBTSettings,
        "the tokens of an image in front of a text, in one text encoder",
        "mmbt",
        most_modalities=2,
        kinds=("image", "text"),
    ),
    "single": MethodSpec(
        "m3col.methods.unimodal:Single", ObjectiveConfig, "one modality alone", "single", one_modality=True
    ),
    "comm": MethodSpec(
        "m3col.methods.comm:CoMM",
        CoMMSettings,
        "fused embeddings of two augmentations are similar, and those of each modality alone",
        "comm",
    ),
    "comm_supcon": MethodSpec(
        "m3col.methods.comm:CoMMSupCon",
        CoMMSupConSettings,
        "samples of one class have similar fused embeddings; fine-tuning of comm with labels",
        "comm_supcon",
        tasks=("single_label",),
    ),
    "fusion_transformer": MethodSpec(
        "m3col.methods.fusion_transformer:Transformer",
        TransformerSettings,
        "a fusion transformer with a linear head; fine-tuning of comm",
        "fusion_transformer",
    ),
    "cross": MethodSpec(
        "m3col.methods.contrast:Cross",
        CrossSettings,
        "the two modalities of a sample have similar embeddings (CLIP)",
        "cross",
        most_modalities=2,
    ),
    "cross_self": MethodSpec(
        "m3col.methods.contrast:CrossSelf",
        CrossSelfSettings,
        "similar embeddings of the two modalities of a sample, and of two augmentations of each",
        "cross_self",
        most_modalities=2,
    ),
    "simclr": MethodSpec(
        "m3col.methods.contrast:SimCLR",
        ContrastSettings,
        "two augmentations of one modality have similar embeddings",
        "simclr",
        one_modality=True,
    ),
    "slip": MethodSpec(
        "m3col.methods.contrast:SLIP",
        SLIPSettings,
        "similar embeddings of the two modalities of a sample, and of two augmentations of the first",
        "slip",
        most_modalities=2,
    ),
    "cmc": MethodSpec(
        "m3col.methods.contrast:CMC", CMCSettings, "every two modalities of a sample have similar embeddings", "cmc"
    ),
    "supcon": MethodSpec(
        "m3col.methods.contrast:SupCon",
        SupConSettings,
        "samples of one class have similar embeddings across modalities; needs labels",
        "supcon",
        tasks=("single_label",),
    ),
    "factorcl": MethodSpec(
        "m3col.methods.factorcl:FactorCL",
        FactorCLSettings,
        "bounds of shared and unique information of two modalities",
        "factorcl",
        most_modalities=2,
    ),
    "factorcl_sup": MethodSpec(
        "m3col.methods.factorcl:FactorCLSup",
        FactorCLSettings,
        "bounds of shared and unique information of two modalities, with labels",
        "factorcl_sup",
        most_modalities=2,
        tasks=("single_label",),
    ),
}
