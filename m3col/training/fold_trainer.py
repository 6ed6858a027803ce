"""One model on one training part: batches, optimiser, evaluation, state. The loop over epochs is in training.py."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from m3col import randomness
from m3col.config.rules import shard_faults
from m3col.config.schema import RunConfig
from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.devices import autocast, device_of
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError, TrainingFailed
from m3col.inputs import base, fitting
from m3col.inputs.base import Source
from m3col.inputs.batches import PartialSource, ahead, is_lazy
from m3col.inputs.texts import TokenSource, by_length
from m3col.methods import registry
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.tasks.base import Task
from m3col.training.optimizer import parameter_groups

# Evaluation keeps nothing for a backward pass, so that its batches can be larger than those of training.
_EVALUATION_BATCH = 4096

_EVALUATION_TIMES = 2

_LAZY_BATCH = 32


class _Part(NamedTuple):
    """A batch's share of the samples of its step, and whether it is that step's first and last one."""

    share: float
    opens: bool
    closes: bool


class FoldTrainer:
    """A model with its fitted preprocessing and optimiser, trained on `train` alone.

    Every random draw is keyed by (seed, fold, epoch, step, ...), see m3col.randomness: two trainers never disturb each
    other, and no generator has a state to save. Of several `ranks` each has a Trainer, with all samples and the same
    weights; all call the same methods in the same order. Raises InputError where they cannot divide `train.shards`.
    """

    def __init__(
        self,
        config: RunConfig,
        train: Split,
        *,
        features: Mapping[str, tuple[str, ...]],
        task: Task,
        fold: int = 0,
        ranks: RankContext = SINGLE_RANK,
    ) -> None:
        check_shards(config.train.shards, ranks.size)
        self.config, self.fold, self.seed, self.ranks = config, fold, config.train.seed, ranks
        self.task = task
        self.device = ranks.device or device_of(config)
        self.dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        self.preparations = fitting.fit(config, train, features)
        self._inputs = self.prepare(train.inputs, train.present)
        self._count = len(train)
        self._labels = None if train.labels is None else task.targets(train.labels).to(self.device)
        weight = None if train.labels is None else task.class_weights(config.objective.class_weight, train.labels)
        self._reseed(randomness.torch_seed(seed=self.seed, fold=fold, epoch=0, purpose="weights"))
        self.method = registry.load(config.method)(
            config,
            features={name: preparation.spec for name, preparation in self.preparations.items()},
            task=task,
            class_weight=None if weight is None else torch.as_tensor(weight, dtype=self.dtype),
        ).to(device=self.device, dtype=self.dtype)
        self.optimizer = torch.optim.Adam(
            parameter_groups(config, self.method), lr=config.train.learning_rate, fused=True
        )
        # A variance of one row is none: a last batch of one joins the batch before.
        self._needs_two = any(isinstance(module, _BatchNorm) for module in self.method.modules())
        if config.model.compile:
            for encoder in self.method.encoders.values():
                encoder.compile(dynamic=True)
        # No worker changes a buffer: encoders that do (BatchNorm) are refused for several (m3col.checks.encoders).
        self._model = DistributedDataParallel(self.method, broadcast_buffers=False) if ranks.size > 1 else self.method

    def __len__(self) -> int:
        return self._count

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `logits` returns."""
        return self.method.output_names(self.config, self.method.modalities)

    def _reseed(self, seed: int) -> None:
        if self.device.type == "cpu":
            # torch.manual_seed also asks every accelerator, which costs half a millisecond an epoch on a CUDA build.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def prepare(
        self, inputs: Mapping[str, ModalityData], present: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> dict[str, Source]:
        """Samples as the model takes them.

        Args:
            inputs: values by modality.
            present: [N] by modality, False where a sample lacks it and has a placeholder; None: all are there.
        """
        place = base.Placement(self.device, self.dtype, cached=self.config.data.cache)
        sources: dict[str, Source] = {}
        for name, transform in self.preparations.items():
            sources[name] = fitting.source_of(name, transform, inputs[name], place)
            if present is not None and not present[name].all():
                mask = torch.as_tensor(np.array(present[name]), device=self.device)
                sources[name] = PartialSource(sources[name], mask)
        return sources

    def train_epoch(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """One pass over the training part; the mean over samples of each part of the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        # Each worker drops out other units: its rows are other rows.
        purpose = f"dropout/{self.ranks.rank}" if self.ranks.rank else "dropout"
        self._reseed(randomness.torch_seed(seed=self.seed, fold=self.fold, epoch=epoch, purpose=purpose))
        self.method.train()
        sums: dict[str, float] = {}
        for batch, step, part in self._steps(epoch):
            if part.opens:
                self.optimizer.zero_grad(set_to_none=True)
            # Workers exchange gradients once a step.
            with contextlib.nullcontext() if part.closes else self._quiet():
                with autocast(self.config, self.device):
                    parts = self._model(batch, step)
                (parts["loss"] if part.share == 1 else parts["loss"] * part.share).backward()
            if part.closes:
                self.optimizer.step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * batch.size
        means = {name: value / len(self) for name, value in self.ranks.mean(sums).items()}
        if not np.isfinite(means["loss"]):
            raise TrainingFailed(f"the training loss became {means['loss']} in epoch {epoch} (fold {self.fold})")
        return means

    def _quiet(self) -> contextlib.AbstractContextManager[Any]:
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else contextlib.nullcontext()

    def _steps(self, epoch: int) -> Iterator[tuple[Batch, Step, "_Part"]]:
        """Each batch with its key and the part that it has in a step of the optimiser."""
        indices, every = self._indices(epoch), self.config.train.accumulate
        sizes = [len(self) if isinstance(index, slice) else len(index) for index in indices]
        groups = [indices[number // every * every :][:every] for number in range(len(indices))]
        batches = (
            self._batch(index, group, epoch, number)
            for number, (index, group) in enumerate(zip(indices, groups, strict=True))
        )
        for number, batch in enumerate(ahead(batches) if is_lazy(self._inputs) else batches):
            first = number // every * every
            share = 1.0 if every == 1 else sizes[number] / sum(sizes[first : first + every])
            part = _Part(share, number == first, number + 1 in (first + every, len(indices)))
            yield batch, Step(self.seed, self.fold, epoch, number), part

    def _indices(self, epoch: int) -> Sequence[Tensor | slice]:
        """The samples of each batch of an epoch."""
        size = self.config.train.batch_size
        if size is None or size >= len(self):
            return [slice(None)]
        draw = randomness.generator(seed=self.seed, fold=self.fold, epoch=epoch, step=0, shard=0, purpose="order")
        order = draw.permutation(len(self))
        texts = [source.lengths() for source in self._inputs.values() if isinstance(source, TokenSource)]
        if texts and self.config.data.text.group_by_length:
            order = by_length(order, np.sum(texts, axis=0), size, draw)
        batches = [*torch.as_tensor(order, device=self.device).split(size)]
        if len(batches[-1]) == 1 and self._needs_two:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _batch(self, index: Tensor | slice, group: Sequence[Tensor | slice], epoch: int, step: int) -> Batch:
        """The global batch of the training rows `index`, with this worker's share of the inputs. `group`: the batches
        of the same step of the optimiser."""
        size = len(self) if isinstance(index, slice) else len(index)
        shards = self.config.train.shards or self.ranks.size
        rows = self.ranks.local_rows(size, shards)
        own = rows if isinstance(index, slice) else index[rows]
        views = {
            view: {
                name: source.rows(own, self._draws(name, size, epoch, step, rows, view=view))
                for name, source in self._inputs.items()
            }
            for view in self.method.views
        }
        labels = None if self._labels is None else self._labels[index]
        return Batch(views, size, labels, shards, self.ranks, self._weighing(index, group))

    def _weighing(self, index: Tensor | slice, group: Sequence[Tensor | slice]) -> float:
        weight, labels = self.method.class_weight, self._labels
        if weight is None or labels is None or len(group) == 1:
            return 1.0
        together = torch.cat([labels[other] for other in group])
        return self.task.relative_weight(labels[index], together, weight)

    def _draws(self, name: str, count: int, epoch: int, step: int, rows: slice, *, view: str) -> np.ndarray | None:
        """Uniform numbers [n, 3] for the augmentation of this worker's rows, drawn for the whole batch."""
        if getattr(self.preparations[name], "augment", "none") == "none":
            return None
        purpose = f"augment/{name}" if view == CLEAN else f"augment/{name}/{view}"
        draw = randomness.generator(seed=self.seed, fold=self.fold, epoch=epoch, step=step, purpose=purpose)
        return draw.random((count, 3))[rows]

    def logits(self, inputs: Mapping[str, Source]) -> dict[str, np.ndarray]:
        """Logits [N, C] in float64 per head, from prepared inputs; dropout is off meanwhile.

        Several ranks divide the samples; each sample is computed once, and all ranks get all logits.
        """
        count = len(next(iter(inputs.values())))
        if not count:
            return {name: np.zeros((0, self.task.width)) for name in self.outputs}
        own = self.ranks.local_rows(count, self.ranks.size)
        size = evaluation_batch(self.config, inputs)
        places = [
            slice(start, min(start + size, own.stop))
            for start in range(own.start, max(own.stop, own.start + 1), size)
        ]  # fmt: skip
        batches = ({name: source.rows(at) for name, source in inputs.items()} for at in places)
        was_training = self.method.training
        self.method.eval()
        with torch.no_grad(), autocast(self.config, self.device):
            pieces = [self.method.logits(batch) for batch in (ahead(batches) if is_lazy(inputs) else batches)]
        parts = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
        counts = self.ranks.counts(count, self.ranks.size)
        whole = self.ranks.gather(torch.cat([*parts.values()], dim=1), counts).cpu().numpy()
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


def evaluation_batch(config: RunConfig, inputs: Mapping[str, Source]) -> int:
    """Samples at a time where nothing is kept for a backward pass."""
    if not is_lazy(inputs):
        return _EVALUATION_BATCH
    return _EVALUATION_TIMES * (config.train.batch_size or _LAZY_BATCH)


def check_shards(shards: int | None, rank_count: int) -> None:
    """Raises InputError where the ranks cannot divide the shards of a batch evenly."""
    faults = shard_faults(shards, rank_count)
    if faults:
        raise InputError(faults)
