"""One model on one training split: batches, optimizer, evaluation, state. The loop over epochs is in loop.py."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from m3col import devices, randomness
from m3col.augmentation.draws import Draws
from m3col.config.rules import shard_faults
from m3col.config.schema import RunConfig
from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.devices import autocast, device_of
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError, TrainingFailed
from m3col.inputs import base, fitting, length_groups
from m3col.inputs.base import Source
from m3col.inputs.batches import PartialSource, ahead, is_lazy
from m3col.inputs.specs import present_of
from m3col.inputs.texts import by_length
from m3col.methods import registry
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.methods.supervised import SupervisedMethod
from m3col.tasks.base import Task
from m3col.training import fitted_parts
from m3col.training import optimizer as optimizers

# Evaluation stores no activations for a backward pass, so its batches can be larger than those of training.
_EVALUATION_BATCH = 4096  # samples, for numeric tables, which are in memory

_EVALUATION_TIMES = 2  # evaluation batch over training batch, for images and texts, which are read batch by batch

_LAZY_BATCH = 32  # training batch of images and texts that is assumed where the config names none


class _Part(NamedTuple):
    """The position of a batch in an optimizer step, which accumulates the gradients of several batches.

    Attributes:
        share: samples of the batch over the samples of the step.
        opens: whether it is the first batch of the step.
        closes: whether it is the last batch of the step.
    """

    share: float
    opens: bool
    closes: bool


class FoldTrainer:
    """A model with its fitted preprocessing and optimizer, trained on `train` alone.

    Every random draw is keyed by (seed, fold, epoch, step, ...), see m3col.randomness. So two trainers never affect
    each other, and there is no generator state to save. Each rank has a FoldTrainer of its own, with all samples and
    the same weights. All ranks must call the same methods in the same order.

    Args:
        config: the config of the run.
        train: the samples to train on.
        features: names of the columns by modality.
        task: what is predicted; the trainer's own is fitted to the labels of `train`.
        pretrain: samples without labels on which a method without labels is trained; `train` then serves its linear
            classifier. None: it is trained on `train` too.
        fold: number of the fold, which keys its random draws.
        ranks: this process among the ranks of the training; default: the only one.

    Raises:
        InputError: `train.shards` is not a multiple of the number of ranks, or the method cannot have several.
    """

    def __init__(
        self,
        config: RunConfig,
        train: Split,
        *,
        features: Mapping[str, tuple[str, ...]],
        task: Task,
        pretrain: Split | None = None,
        fold: int = 0,
        ranks: RankContext = SINGLE_RANK,
    ) -> None:
        check_ranks(config, ranks.size)
        self.config, self.fold, self.seed, self.ranks = config, fold, config.train.seed, ranks
        train, self.held_out = fitted_parts.divided(config, train, task, fold=fold)
        self.task = task = task if train.labels is None else task.fitted(train.labels)
        self.device = ranks.device or device_of(config)
        self.dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        self.transforms = fitting.fit(config, train, features)
        self._kinds = {transform.kind for transform in self.transforms.values()}
        self._inputs = self._labelled_inputs = self.prepare(train.inputs, train.present)
        held = self.held_out
        self.held_out_inputs = {} if held is None else self.prepare(held.inputs, held.present)
        self._train_labels = train.labels
        method = registry.load(config.method)
        if pretrain is not None and issubclass(method, SelfSupervisedMethod) and not method.uses_labels:
            train = pretrain
            self._inputs = self.prepare(pretrain.inputs, pretrain.present)
        if issubclass(method, SelfSupervisedMethod) and not all(mask.all() for mask in train.present.values()):
            raise InputError([f"method {config.method!r} cannot be trained on samples that lack a modality"])
        self._count = len(train)
        # Also on the host, where reading them waits for no work of a GPU.
        self._targets = None if train.labels is None else task.targets(train.labels)
        self._labels = None if self._targets is None else self._targets.to(self.device)
        weights = None if train.labels is None else task.class_weights(config.objective.class_weight, train.labels)
        self._class_weight = None if weights is None else torch.as_tensor(weights, dtype=self.dtype)
        self._reseed(randomness.torch_seed(seed=self.seed, fold=fold, epoch=0, purpose="weights"))
        self.method = method(
            config,
            features={name: transform.spec for name, transform in self.transforms.items()},
            task=task,
            class_weight=self._class_weight,
        ).to(device=self.device, dtype=self.dtype)
        if self.device.type == "cuda":
            self.method.to(memory_format=torch.channels_last)  # the layout in which GPUs compute convolutions fastest
        self.method.fit_inputs(self._inputs)
        self.optimizer = optimizers.build(config, self.method)
        # BatchNorm cannot normalise a single row: a last batch of one sample is joined to the batch before.
        self._needs_two = any(isinstance(module, _BatchNorm) for module in self.method.modules())
        if config.model.compile:
            for encoder in self.method.encoders.values():
                devices.compile_encoder(encoder)
        # Buffers are equal on all ranks: encoders that change theirs (BatchNorm) are refused (m3col.checks.encoders).
        # Gradients are views of the buckets that are exchanged, instead of copies of them.
        self._model = (
            DistributedDataParallel(self.method, broadcast_buffers=False, gradient_as_bucket_view=True)
            if ranks.size > 1
            else self.method
        )

    def __len__(self) -> int:
        """The number of training samples."""
        return self._count

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `logits` returns."""
        return self.method.output_names(self.config, self.method.modalities)

    def _reseed(self, seed: int) -> None:
        if self.device.type == "cpu":
            # torch.manual_seed also seeds every accelerator, which takes 0.5 ms per epoch with a CUDA build of torch.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def prepare(
        self, inputs: Mapping[str, ModalityData], present: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> dict[str, Source]:
        """Applies the fitted preprocessing to samples.

        Args:
            inputs: values by modality.
            present: [N] by modality, False where a sample lacks the modality and has a placeholder; None: no sample
                lacks one.

        Returns:
            By modality a source of model inputs, of which batches are read by `logits`.
        """
        multiple = devices.LENGTHS if self.config.model.compile and self.device.type == "cuda" else 1
        placement = base.Placement(self.device, self.dtype, self.config.data.cache, length_multiple=multiple)
        sources: dict[str, Source] = {}
        for name, transform in self.transforms.items():
            sources[name] = fitting.source_of(name, transform, inputs[name], placement)
            if present is not None and not present[name].all():
                sources[name] = PartialSource(sources[name], torch.as_tensor(np.array(present[name])), self.device)
        return sources

    def train_epoch(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """Trains one epoch.

        Args:
            epoch: number of the epoch, from 1.
            learning_rate: the rate of this epoch, before the scale of each parameter group.

        Returns:
            The mean over the training samples of the loss and of each of its terms, by name.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        # Each rank has different rows and therefore draws dropout masks of its own.
        purpose = f"dropout/{self.ranks.rank}" if self.ranks.rank else "dropout"
        self._reseed(randomness.torch_seed(seed=self.seed, fold=self.fold, epoch=epoch, purpose=purpose))
        self.method.train()
        with devices.settings(self.config, self.device, self._kinds):
            totals = self._train_steps(epoch)
        means = {name: value / len(self) for name, value in self.ranks.mean(totals).items()}
        if not np.isfinite(means["loss"]):
            raise TrainingFailed(f"the training loss became {means['loss']} in epoch {epoch} (fold {self.fold})")
        return means

    def _train_steps(self, epoch: int) -> dict[str, float]:
        """Trains on all batches of an epoch. Returns the sum over samples of the loss and of each of its terms."""
        names: list[str] = []
        # On the device until the epoch is over: reading a loss would wait for all work that a GPU still has to do.
        sums: Tensor | float = 0.0
        for batch, step, part in self._steps(epoch):
            if part.opens:
                self.optimizer.zero_grad(set_to_none=True)
            # Ranks exchange gradients only with the last batch of a step.
            with contextlib.nullcontext() if part.closes else self._no_sync():
                with autocast(self.config, self.device):
                    parts = self._model(batch, step)
                (parts["loss"] if part.share == 1 else parts["loss"] * part.share).backward()
            if part.closes:
                self.optimizer.step()
            names = [*parts]
            sums = sums + torch.stack([value.detach().double() for value in parts.values()]) * batch.size
        assert isinstance(sums, Tensor), "an epoch has a batch"
        return dict(zip(names, sums.tolist(), strict=True))

    def _no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which DDP exchanges no gradients; does nothing for a single rank."""
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else contextlib.nullcontext()

    def _steps(self, epoch: int) -> Iterator[tuple[Batch, Step, "_Part"]]:
        """Each batch of an epoch with the key of its draws and its position in an optimizer step."""
        indices, every = self._indices(epoch), self.config.train.accumulate
        sizes = [len(self) if isinstance(index, slice) else len(index) for index in indices]
        groups = [indices[number // every * every :][:every] for number in range(len(indices))]
        batches = (
            self._batch(index, group, epoch, number)
            for number, (index, group) in enumerate(zip(indices, groups, strict=True))
        )
        for number, batch in enumerate(ahead(batches, self.device) if is_lazy(self._inputs) else batches):
            first = number // every * every
            share = 1.0 if every == 1 else sizes[number] / sum(sizes[first : first + every])
            part = _Part(share, number == first, number + 1 in (first + every, len(indices)))
            yield batch, Step(self.seed, self.fold, epoch, number), part

    def _indices(self, epoch: int) -> Sequence[Tensor | slice]:
        """The samples of each batch of an epoch, on the CPU, which reads images and texts."""
        size = self.config.train.batch_size
        if size is None or size >= len(self):
            return [slice(None)]
        draw = randomness.generator(seed=self.seed, fold=self.fold, epoch=epoch, step=0, shard=0, purpose="order")
        order = draw.permutation(len(self))
        lengths = length_groups.lengths(self.config.data, self._inputs)
        if lengths is not None:
            order = by_length(order, lengths, size, draw)
        batches = [*torch.as_tensor(order).split(size)]
        if len(batches[-1]) == 1 and self._needs_two:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _batch(self, index: Tensor | slice, group: Sequence[Tensor | slice], epoch: int, step: int) -> Batch:
        """The global batch of the training rows `index`, with the inputs of this rank's rows alone. `group`: the rows
        of all batches of the same optimizer step."""
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
        labels = self._labels
        if self._targets is not None and not isinstance(index, slice):
            labels = devices.moved(self._targets[index], self.device)
        return Batch(views, size, labels, shards, self.ranks, self._weighing(index, group))

    def _weighing(self, index: Tensor | slice, group: Sequence[Tensor | slice]) -> float:
        """The mean class weight of a batch over that of its whole optimizer step, see `Batch.weighing`."""
        weight, labels = self._class_weight, self._targets
        if weight is None or labels is None or len(group) == 1:
            return 1.0
        step_labels = torch.cat([labels[rows] for rows in group])
        return self.task.relative_weight(labels[index], step_labels, weight)

    def _draws(self, name: str, count: int, epoch: int, step: int, rows: slice, *, view: str) -> Draws | None:
        """The random numbers for the augmentation of this rank's rows; None: the modality is not augmented."""
        if getattr(self.transforms[name], "augment", "none") in ("none", []):
            return None
        if view == CLEAN and not self.method.augments_clean:
            return None
        key = {"seed": self.seed, "fold": self.fold, "epoch": epoch, "step": step}
        return Draws(key, name, "" if view == CLEAN else view, count, rows)

    def logits(self, inputs: Mapping[str, Source]) -> dict[str, np.ndarray]:
        """Logits of all samples, computed in evaluation mode (without dropout).

        The ranks divide the samples among them and then exchange the logits.

        Args:
            inputs: what `prepare` returned, N samples.

        Returns:
            Logits [N, C] in float64 by output, on every rank; of numbers the predictions in the units of the targets.
        """
        if not len(next(iter(inputs.values()))):
            return {name: np.zeros((0, self.task.width)) for name in self.outputs}
        return {name: self.task.unscaled(x) for name, x in self._evaluated(inputs, self.method.predicted).items()}

    def features(self, inputs: Mapping[str, Source] | None = None) -> np.ndarray:
        """The embeddings that a method without labels is evaluated by, in evaluation mode and without augmentation.

        Args:
            inputs: what `prepare` returned, N samples; None: the training fold.

        Returns:
            Embeddings [N, F] in float64, on every rank.
        """
        method, inputs = self.method, self._labelled_inputs if inputs is None else inputs
        assert isinstance(method, SelfSupervisedMethod)
        return self._evaluated(inputs, lambda batch: {"x": method.features(batch)})["x"]

    def fit_evaluation(self) -> None:
        """Fits what is not trained by the optimizer, see `m3col.training.fitted_parts`; on all ranks the same."""
        fitted_parts.fit(self)

    def head_outputs(self, inputs: Mapping[str, Source]) -> np.ndarray:
        """What each head says of all samples, [K, N, C] in float64, on every rank; see `SupervisedMethod.said`."""
        method = self.method
        assert isinstance(method, SupervisedMethod)

        def call(batch: dict[str, Any]) -> dict[str, Tensor]:
            return dict(zip(self.outputs, method.said(method.logits(batch), present_of(batch)), strict=True))

        return np.stack([*self._evaluated(inputs, call).values()])

    @property
    def labels(self) -> NDArray[Any]:
        """The labels of the training fold."""
        assert self._train_labels is not None
        return self._train_labels

    def _evaluated(
        self, inputs: Mapping[str, Source], call: Callable[[dict[str, Any]], Mapping[str, Tensor]]
    ) -> dict[str, np.ndarray]:
        """What `call` returns for all samples, in evaluation mode: arrays [N, K] in float64 by name, on every rank."""
        count = len(next(iter(inputs.values())))
        own = self.ranks.local_rows(count, self.ranks.size)
        size = evaluation_batch(self.config, inputs)
        slices = [
            slice(start, min(start + size, own.stop))
            for start in range(own.start, max(own.stop, own.start + 1), size)
        ]  # fmt: skip
        batches = ({name: source.rows(at) for name, source in inputs.items()} for at in slices)
        was_training = self.method.training
        self.method.eval()
        settings = devices.settings(self.config, self.device, self._kinds)
        with settings, torch.no_grad(), autocast(self.config, self.device):
            pieces = [call(batch) for batch in (ahead(batches, self.device) if is_lazy(inputs) else batches)]
        parts = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
        counts = self.ranks.counts(count, self.ranks.size)
        whole = self.ranks.gather(torch.cat([*parts.values()], dim=1), counts).cpu().numpy()
        self.method.train(was_training)
        ends = np.cumsum([part.shape[1] for part in parts.values()])[:-1]
        return dict(zip(parts, np.split(whole, ends, axis=1), strict=True))

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer moments by flat name: all state that the next epoch depends on."""
        tensors = {f"weights.{name}": value for name, value in self.method.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        weights = {name.removeprefix("weights."): v for name, v in tensors.items() if name.startswith("weights.")}
        self.method.load_state_dict(weights)
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        # Files store tensors row by row, and a GPU keeps the weights of convolutions channel by channel. A fused
        # optimizer refuses moments whose layout is not that of their weight.
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    values[name] = torch.empty_like(parameter).copy_(value)


def evaluation_batch(config: RunConfig, inputs: Mapping[str, Source]) -> int:
    """The number of samples per batch where no activations are kept for a backward pass."""
    if not is_lazy(inputs):
        return _EVALUATION_BATCH
    return _EVALUATION_TIMES * (config.train.batch_size or _LAZY_BATCH)


def check_ranks(config: RunConfig, rank_count: int) -> None:
    """Raises InputError where the ranks cannot divide the shards of a batch evenly, or the method takes one alone."""
    faults = [*shard_faults(config.train.shards, rank_count), *registry.worker_faults(config.method, rank_count)]
    if faults:
        raise InputError(faults)
