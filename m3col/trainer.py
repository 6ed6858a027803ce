"""One model on one training part: batches, optimiser, evaluation, state. The loop over epochs is in training.py."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from m3col import methods, metrics, randomness
from m3col.config import RunConfig
from m3col.data.dataset import Split
from m3col.data.preprocess import Pipeline, resolve
from m3col.distributed import ALONE, Workers, check_shards
from m3col.methods.base import FUSED, Batch, Step

# Evaluation keeps nothing for a backward pass, so that its batches can be large.
_EVALUATION_BATCH = 4096


class TrainingFailed(RuntimeError):
    """A training that cannot go on (a loss that is not finite); the message says where."""


def device_of(config: RunConfig) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU."""
    name = config.train.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def class_weights(config: RunConfig, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Weights [C] of the cross-entropy from the labels [N] of the training part; balanced: N / (C * count)."""
    wanted = config.objective.class_weight
    if wanted == "none":
        return None
    if wanted == "balanced":
        counts = np.bincount(labels, minlength=num_classes)
        return len(labels) / (num_classes * np.maximum(counts, 1))
    return np.asarray(wanted, dtype=np.float64)


class Trainer:
    """A model with its fitted preprocessing and optimiser, trained on `train` alone.

    Every random draw is keyed by (seed, fold, epoch, step, ...), see m3col.randomness: two trainers never disturb each
    other, and no generator has a state to save. Of several `workers` each has a Trainer, with all samples and the same
    weights; all call the same methods in the same order. Raises BadInput where they cannot divide `train.shards`.
    """

    def __init__(
        self,
        config: RunConfig,
        train: Split,
        *,
        features: Mapping[str, tuple[str, ...]],
        num_classes: int,
        fold: int = 0,
        workers: Workers = ALONE,
    ) -> None:
        assert train.labels is not None
        check_shards(config.train.shards, workers.size)
        self.config, self.fold, self.seed, self.workers = config, fold, config.train.seed, workers
        self.num_classes = num_classes
        self.device = workers.device or device_of(config)
        self.dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        steps = resolve(config.data.preprocess, tuple(features))
        self.pipelines = {
            name: Pipeline.fit(train.inputs[name], train.labels, steps[name], feature_names=features[name])
            for name in features
        }
        self._inputs = self.prepare(train.inputs)
        self._labels = torch.as_tensor(np.array(train.labels), device=self.device)
        weight = class_weights(config, train.labels, num_classes)
        self._reseed(randomness.torch_seed(seed=self.seed, fold=fold, epoch=0, purpose="weights"))
        self.method = methods.load(config.method)(
            config,
            features={name: self._inputs[name].shape[1] for name in features},
            num_classes=num_classes,
            class_weight=None if weight is None else torch.as_tensor(weight, dtype=self.dtype),
        ).to(device=self.device, dtype=self.dtype)
        self.optimizer = torch.optim.Adam(
            self.method.parameters(),
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
            fused=True,
        )
        # The buffers are class weights, which no worker ever changes.
        self._model = DistributedDataParallel(self.method, broadcast_buffers=False) if workers.size > 1 else self.method

    def __len__(self) -> int:
        return len(self._labels)

    def _reseed(self, seed: int) -> None:
        if self.device.type == "cpu":
            # torch.manual_seed also asks every accelerator, which costs half a millisecond an epoch on a CUDA build.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Raw features as preprocessed tensors on the device."""
        return {
            # In one memory layout: the order of sums, hence the last bits, would follow that of the caller's table.
            name: torch.as_tensor(
                np.ascontiguousarray(pipeline.transform(inputs[name])), dtype=self.dtype, device=self.device
            )
            for name, pipeline in self.pipelines.items()
        }

    def train_epoch(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """One pass over the training part; the mean over samples of each part of the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # Each worker drops out other units: its rows are other rows.
        purpose = f"dropout/{self.workers.rank}" if self.workers.rank else "dropout"
        self._reseed(randomness.torch_seed(seed=self.seed, fold=self.fold, epoch=epoch, purpose=purpose))
        self.method.train()
        sums: dict[str, float] = {}
        for number, batch in enumerate(self._batches(epoch)):
            parts = self._model(batch, Step(self.seed, self.fold, epoch, number))
            self.optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()
            self.optimizer.step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(batch.labels)
        means = {name: value / len(self) for name, value in self.workers.mean(sums).items()}
        if not np.isfinite(means["loss"]):
            raise TrainingFailed(f"the training loss became {means['loss']} in epoch {epoch} (fold {self.fold})")
        return means

    def _batches(self, epoch: int) -> Iterator[Batch]:
        size = self.config.train.batch_size
        if size is None or size >= len(self):
            yield self._batch(slice(None))
            return
        draw = randomness.generator(
            seed=self.seed, fold=self.fold, epoch=epoch, step=0, shard=0, purpose="order"
        ).permutation(len(self))
        order = torch.as_tensor(draw, device=self.device)
        for index in order.split(size):
            yield self._batch(index)

    def _batch(self, index: Tensor | slice) -> Batch:
        """The global batch of the training rows `index`, with this worker's share of the inputs."""
        labels, shards = self._labels[index], self.config.train.shards or self.workers.size
        rows = self.workers.rows(len(labels), shards)
        own = {name: value[index][rows] if isinstance(index, slice) else value[index[rows]]
               for name, value in self._inputs.items()}  # fmt: skip
        return Batch(own, labels, shards, self.workers)

    def logits(self, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Logits [N, C] in float64 per head, from prepared inputs; dropout is off meanwhile.

        Several workers divide the samples; each sample is computed once, and all workers get all logits.
        """
        count = len(next(iter(inputs.values())))
        if not count:
            return {FUSED: np.zeros((0, self.num_classes))}
        own = self.workers.rows(count, self.workers.size)
        was_training = self.method.training
        self.method.eval()
        with torch.no_grad():
            pieces = [
                self.method.logits({name: value[at] for name, value in inputs.items()})
                for start in range(own.start, max(own.stop, own.start + 1), _EVALUATION_BATCH)
                for at in (slice(start, min(start + _EVALUATION_BATCH, own.stop)),)
            ]
            parts = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
            counts = self.workers.counts(count, self.workers.size)
            whole = self.workers.gather(torch.cat([*parts.values()], dim=1), counts).cpu().numpy()
        self.method.train(was_training)
        return dict(zip(parts, np.split(whole, len(parts), axis=1), strict=True))

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser moments by flat name: all that the next epoch depends on."""
        tensors = {f"weights.{name}": value for name, value in self.method.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        weights = {name.removeprefix("weights."): v for name, v in tensors.items() if name.startswith("weights.")}
        self.method.load_state_dict(weights)
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def evaluate(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Cross-entropy of each head, their sum as "loss", and the accuracy of each modality's own head."""
    found: dict[str, float] = {}
    for name, value in logits.items():
        probabilities = metrics.softmax(value)
        picked = probabilities[np.arange(len(labels)), labels]
        found[f"ce_{name}"] = float(-np.log(np.maximum(picked, np.finfo(float).tiny)).mean())
        if name != FUSED:
            found[f"accuracy_{name}"] = float((value.argmax(1) == labels).mean())
    found["loss"] = sum(value for name, value in found.items() if name.startswith("ce_"))
    return found
