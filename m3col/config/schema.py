"""The typed sections of a run config. Each knob stands here once: type, default, allowed values."""

from typing import Annotated, Any, Literal

from pydantic import Field

from m3col.config import yaml_files
from m3col.config.keys import Strict
from m3col.config.modality_sections import ImageDataConfig, ImageModelConfig, TextDataConfig, TextModelConfig
from m3col.tasks import registry as tasks

Positive = Annotated[float, Field(gt=0)]

NotNegative = Annotated[float, Field(ge=0)]

Count = Annotated[int, Field(ge=1)]

Seed = Annotated[int, Field(ge=0, lt=2**31)]

Share = Annotated[float, Field(ge=0, le=1)]

Level = Literal["input", "embedding"]

Steps = list[str | dict[str, Any]]


# Mappings whose keys are modalities, which may hold dots.
BY_MODALITY = ("data.preprocess", "mix.level", "train.encoder_learning_rate")


class DataConfig(Strict):
    """`name`: entry of the data table; `dir`: folder looked in first; `modalities`: names or 1-based numbers, default:
    the entry's own; `preprocess`: steps for all numeric modalities, or a list of steps per modality; default: minmax.
    `label_column`: of the CSV of `image_text`. `cache`: decoded images and tokens are kept on disk."""

    name: str = "digits"
    dir: str | None = None
    modalities: list[str | int] | None = None
    preprocess: Steps | dict[str, Steps] = ["minmax"]  # noqa: RUF012 - pydantic copies it
    label_column: str = "label"
    image: ImageDataConfig = ImageDataConfig()
    text: TextDataConfig = TextDataConfig()
    cache: bool = True


class ModelConfig(Strict):
    """`encoder`: of numeric modalities; `embedding_dim`: D, shared by all modalities; `classifier_dim`: hidden width H
    of each head; `classifier_layers`: linear layers of each head."""

    encoder: Literal["mlp"] = "mlp"
    embedding_dim: Count = 256
    classifier_dim: Count = 256
    classifier_layers: Annotated[int, Field(ge=2, le=3)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    image: ImageModelConfig = ImageModelConfig()
    text: TextModelConfig = TextModelConfig()
    gradient_checkpointing: bool = False
    compile: bool = False


class ObjectiveConfig(Strict):
    """What every method's section `objective:` has; each method adds fields of its own (m3col.methods.settings).

    `class_weight`: of the cross-entropy; balanced: N / (C * samples of the class), or one weight per class.
    """

    class_weight: Literal["none", "balanced"] | list[NotNegative] = "none"


class MixConfig(Strict):
    """`level`: what is mixed, for all modalities or for each; the input of a text are its word embeddings.
    `probability`: share of the samples that are mixed at all (the others have lambda 1)."""

    level: Level | dict[str, Level] = "input"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0


class ScheduleConfig(Strict):
    """Learning rate over epochs. `step`: times `gamma` every `step_size` epochs; `plateau`: times `gamma` after
    `patience` epochs without a better search metric."""

    kind: Literal["none", "step", "plateau"] = "step"
    step_size: Count = 250
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    patience: Annotated[int, Field(ge=0)] = 2


class TrainConfig(Strict):
    """`batch_size`: global batch, default: all training samples; `shards`: groups of it within which samples are mixed,
    a multiple of the number of workers, default: that number. `accumulate`: batches whose gradients make one step.
    `encoder_learning_rate` (one, or one for each modality that wants another than the rest), `encoder_weight_decay`: of
    the encoders, default: those of the rest. `decay`: what is decayed, everything, or weights only (neither biases nor
    norms). `precision`: bfloat16 means autocast."""

    epochs: Count = 100
    batch_size: Count | None = None
    accumulate: Count = 1
    shards: Count | None = None
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-3
    encoder_learning_rate: Positive | dict[str, Positive] | None = None
    encoder_weight_decay: NotNegative | None = None
    decay: Literal["all", "weights"] = "all"
    schedule: ScheduleConfig = ScheduleConfig()
    seed: Seed = 0
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ValidationConfig(Strict):
    """How the training split is divided: `kfold`, `holdout` (`fraction`), `given` (the data set's own), `none`."""

    kind: Literal["kfold", "holdout", "given", "none"] | None = None
    folds: Annotated[int, Field(ge=2)] = 5
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 0


class CheckpointConfig(Strict):
    """`every_s`: least seconds between two checkpoints of a running training."""

    every_s: NotNegative = 60.0


class ResourcesConfig(Strict):
    """`threads` is part of the config, because the order of sums, hence the last bits, depends on it."""

    threads: Count = 1


class RunConfig(Strict):
    """All that determines one training run.

    Attributes:
        method: a name or "module:Class", see m3col.methods.registry.
        task: what is predicted, see m3col.tasks.registry.
        metric: what the plateau schedule, the history's `value` and a search watch; default: that of the task, which
            is val/auroc for two classes and val/macro_f1 for more.
        objective: settings of the method, see `m3col.config.loading.model_of`.
        mix: how samples are mixed; None for a method that mixes none.
    """

    method: str
    task: str = tasks.DEFAULT
    metric: str | None = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    mix: MixConfig | None = None
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    resources: ResourcesConfig = ResourcesConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without sections that the method does not have: `load` takes it back."""
        plain = self.model_dump()
        return plain if self.mix is not None else {key: value for key, value in plain.items() if key != "mix"}

    def to_yaml(self) -> str:
        return yaml_files.dump(self.to_dict())
