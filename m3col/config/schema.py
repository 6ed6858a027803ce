"""The typed sections of a run config. Type, default and allowed values of each key are defined here only."""

from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config import yaml_files
from m3col.config.keys import Strict, get, without
from m3col.config.modality_sections import (
    ImageDataConfig,
    ImageModelConfig,
    NumericDataConfig,
    NumericModelConfig,
    SequenceDataConfig,
    SequenceModelConfig,
    TextDataConfig,
    TextModelConfig,
    TrifeaturesConfig,
)
from m3col.config.resplit import ResplitConfig
from m3col.tasks import registry as tasks

Positive = Annotated[float, Field(gt=0)]

NotNegative = Annotated[float, Field(ge=0)]

Count = Annotated[int, Field(ge=1)]

Seed = Annotated[int, Field(ge=0, lt=2**31)]

Share = Annotated[float, Field(ge=0, le=1)]

Level = Literal["input", "embedding"]

Steps = list[str | dict[str, Any]]


# Mappings by modality: their keys are names, which may contain dots.
BY_MODALITY = (
    "data.preprocess", "data.image.augment", "data.numeric.augment", "data.text.augment",
    "data.sequence.augment", "mix.level", "train.encoder_learning_rate",
)  # fmt: skip


class DataConfig(Strict):
    """The data set and its preprocessing.

    Attributes:
        name: entry of the table of data sets.
        dir: folder that is searched first for the files.
        modalities: names or 1-based numbers; None: the default of the data set.
        preprocess: steps for all numeric modalities, or a list of steps per modality.
        label_column: column of the labels in the CSV of `image_text`. Of several labels per sample and of numbers: a
            list of columns, or the start of their names ("label" for columns `label:<name>`).
        numeric: how numeric tables are augmented.
        image: how images are read.
        text: how texts are read.
        trifeatures: what is drawn for the data sets `trifeatures` and `trifeatures_captions`.
        sequence: how sequences are prepared.
        cache: whether decoded images and tokens are kept on disk.
        resplit: one of several outer divisions into training and test samples; None: the data set's own.
        permuted_labels: seed of a random order of the labels, to see what a procedure reaches by chance; None: the
            labels of the data set.
    """

    name: str = "digits"
    dir: str | None = None
    modalities: list[str | int] | None = None
    preprocess: Steps | dict[str, Steps] = ["minmax"]  # noqa: RUF012 - pydantic copies it
    label_column: str | list[str] = "label"
    numeric: NumericDataConfig = NumericDataConfig()
    image: ImageDataConfig = ImageDataConfig()
    text: TextDataConfig = TextDataConfig()
    trifeatures: TrifeaturesConfig = TrifeaturesConfig()
    sequence: SequenceDataConfig = SequenceDataConfig()
    cache: bool = True
    resplit: ResplitConfig | None = None
    permuted_labels: Seed | None = None


class ModelConfig(Strict):
    """The encoders and heads.

    Attributes:
        encoder: encoder of numeric modalities.
        embedding_dim: embedding width D, shared by all modalities.
        classifier_dim: hidden width H of each head.
        classifier_layers: number of linear layers of each head.
        dropout: dropout rate of each head.
        numeric: layers and tokens of that encoder.
        image: the encoder of images.
        text: the encoder of texts.
        sequence: the encoder of sequences.
        gradient_checkpointing: whether encoders of images and texts save memory by recomputing activations.
        compile: whether encoders are compiled by torch.
    """

    encoder: Literal["mlp"] = "mlp"
    embedding_dim: Count = 256
    classifier_dim: Count = 256
    classifier_layers: Annotated[int, Field(ge=2, le=3)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    numeric: NumericModelConfig = NumericModelConfig()
    image: ImageModelConfig = ImageModelConfig()
    text: TextModelConfig = TextModelConfig()
    sequence: SequenceModelConfig = SequenceModelConfig()
    gradient_checkpointing: bool = False
    compile: bool = False


class ObjectiveConfig(Strict):
    """The keys that the section `objective:` of every method has; methods add their own (m3col.methods.settings).

    Attributes:
        class_weight: class weights of the cross-entropy. "balanced": N / (C * samples of the class). A list: one weight
            per class. With several labels per sample these are weights of present labels, and "balanced" is absent over
            present; a task without classes has none.
    """

    class_weight: Literal["none", "balanced"] | list[NotNegative] = "none"


class MixConfig(Strict):
    """How samples are mixed.

    Attributes:
        level: what is mixed, inputs or embeddings, for all modalities or for each. The input of a text is its word
            embeddings.
        probability: share of the samples that are mixed; the others have lambda 1.
    """

    level: Level | dict[str, Level] = "input"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0


class ScheduleConfig(Strict):
    """The learning rate over epochs.

    Attributes:
        kind: "step": multiplied by `gamma` every `step_size` epochs. "plateau": multiplied by `gamma` after `patience`
            epochs without a better value of the watched metric. "warmup_cosine": rises for `warmup` epochs, then falls
            along half a cosine. "none": constant.
        step_size: epochs between two reductions of "step".
        gamma: factor of a reduction.
        patience: epochs without a better value, for "plateau"; for a method that is validated after some epochs only,
            validations.
        warmup: epochs of the rise, for "warmup_cosine"; fewer than `train.epochs`.
    """

    kind: Literal["none", "step", "plateau", "warmup_cosine"] = "step"
    step_size: Count = 250
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    patience: Annotated[int, Field(ge=0)] = 2
    warmup: Count = 10


class TrainConfig(Strict):
    """Optimization.

    Attributes:
        init: folder of a model checkpoint, or of a run that has one, whose encoders (and fusion transformer) the
            training starts from; None: it starts from the weights that `model:` names.
        epochs: number of epochs.
        batch_size: samples of the global batch; None: all training samples.
        accumulate: number of batches per optimizer step.
        shards: groups of a batch within which samples are mixed. A multiple of the number of workers; None: that
            number.
        optimizer: "adam", or "adamw", whose weight decay does not pass through the moments.
        learning_rate: learning rate at the start; the highest one of the schedule "warmup_cosine".
        weight_decay: weight decay.
        encoder_learning_rate: learning rate of the encoders, or a mapping from modalities to rates; None, or a modality
            that is not in the mapping: `learning_rate`.
        encoder_weight_decay: weight decay of the encoders; None: `weight_decay`.
        decay: which parameters are decayed: "all", or "weights" (neither biases nor norms).
        schedule: the learning rate over epochs.
        seed: seed of all random draws of the training.
        precision: dtype of the computation. "tf32" rounds the inputs of matrix products on a GPU, "bfloat16" means
            autocast, "auto" is "bfloat16" on a GPU that computes in it, else "float32".
        deterministic: whether a GPU uses only algorithms whose results do not change between runs; None: for numeric
            tables alone.
        device: where the training runs; "auto": the first GPU where there is one, else the CPU.
    """

    init: str | None = None
    epochs: Count = 100
    batch_size: Count | None = None
    accumulate: Count = 1
    shards: Count | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-3
    encoder_learning_rate: Positive | dict[str, Positive] | None = None
    encoder_weight_decay: NotNegative | None = None
    decay: Literal["all", "weights"] = "all"
    schedule: ScheduleConfig = ScheduleConfig()
    seed: Seed = 0
    precision: Literal["float32", "float64", "bfloat16", "tf32", "auto"] = "float32"
    deterministic: bool | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ValidationConfig(Strict):
    """How the training split is divided into training and validation samples.

    Attributes:
        kind: "kfold": cross-validation with `folds` folds. "holdout": a share `fraction` validates. "given": the
            validation split of the data set. "none": no validation. None: depends on the data set.
        folds: number of folds.
        fraction: share of the training split that validates.
        seed: seed of the division.
    """

    kind: Literal["kfold", "holdout", "given", "none"] | None = None
    folds: Annotated[int, Field(ge=2)] = 5
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 0


class CheckpointConfig(Strict):
    """Checkpoints of a running training.

    Attributes:
        every_s: least seconds between two checkpoints.
    """

    every_s: NotNegative = 60.0


class ResourcesConfig(Strict):
    """Resources of one training process.

    Attributes:
        threads: CPU threads of torch. Part of the config, because the order of sums depends on it, and so do the last
            bits of the results.
    """

    threads: Count = 1


# Keys of later versions. Where they have their defaults, configs are stored as those of older versions are, so that
# their studies can be resumed.
_LATER = (
    "data.resplit", "data.permuted_labels", "objective.decision", "objective.stack_share",
    "model.numeric", "model.sequence.widths", "model.sequence.stride", "model.sequence.stride_at",
    "model.sequence.tokens",
)  # fmt: skip

_DEFAULTS = {
    "data": DataConfig().model_dump(),
    "model": ModelConfig().model_dump(),
    "objective": {"decision": "fused", "stack_share": 0.2},
}


class RunConfig(Strict):
    """The config of one training run. It determines the results.

    Attributes:
        method: a name or "module:Class", see m3col.methods.registry.
        task: what is predicted, see m3col.tasks.registry.
        metric: the watched metric, which the plateau schedule, the `value` of the history and a search use; None: the
            default of the task: val/auroc for two classes, val/macro_f1 for more and for several labels per sample,
            val/r2 for numbers.
        threshold: above which probability a label is predicted, for several labels per sample: a number for all labels,
            or "validation": for each label the one with the highest F1 on validation predictions. None: 0.5.
        data: the data set and its preprocessing.
        model: the encoders and heads.
        objective: settings of the method, see `m3col.config.loading.model_of`.
        mix: how samples are mixed; None for a method that does not mix samples.
        train: optimization.
        validation: how the training split is divided.
        checkpoint: checkpoints of a running training.
        resources: resources of one training process.
    """

    method: str
    task: str = tasks.DEFAULT
    metric: str | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["validation"] | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    mix: MixConfig | None = None
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without sections that the method does not have; `loading.load` reads them back."""
        absent = {key for key in ("mix", "threshold") if getattr(self, key) is None}
        values = {key: value for key, value in self.model_dump().items() if key not in absent}
        return without(values, [path for path in _LATER if get(values, path) == get(_DEFAULTS, path)])

    def to_yaml(self) -> str:
        """The YAML text of `to_dict`."""
        return yaml_files.dump(self.to_dict())
