"""The state of a training at the end of an epoch, as the files of a checkpoint contain it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor

if TYPE_CHECKING:
    from m3col.training.fold_trainer import FoldTrainer
    from m3col.training.loop import LockstepTrainer

PROBES = "probes.safetensors"

_ROOM = 2  # free memory that a copy requires, over its own size


def fold_file(number: int) -> str:
    """The file with weights and moments of a fold."""
    return f"fold-{number}.safetensors"


def best_file(number: int) -> str:
    """The file with the best weights of a fold."""
    return f"best-{number}.safetensors"


def notice_of(trainer: "FoldTrainer") -> dict[str, str]:
    """What must be known of a checkpoint before it is passed on, as an entry of its description; {}: nothing."""
    notice = trainer.method.checkpoint_notice(trainer.config)
    return {"notice": notice} if notice else {}


@dataclass(frozen=True)
class TrainingState:
    """All state that the remaining epochs of a training depend on.

    Attributes:
        epoch: number of finished epochs.
        changing: tensors by name, by file, that the next epoch changes in place: weights and moments.
        fixed: tensors by name, by file, that stay as they are: best weights, and logits of the test inputs.
        description: history and best epoch, as plain values for JSON.
    """

    epoch: int
    changing: Mapping[str, Mapping[str, Tensor]]
    fixed: Mapping[str, Mapping[str, Tensor]]
    description: Mapping[str, Any]

    @classmethod
    def of(cls, training: "LockstepTrainer") -> "TrainingState":
        """The state of a training, without a copy: its tensors are those of the models."""
        best = training.best
        fixed: dict[str, Mapping[str, Tensor]] = {
            PROBES: {str(epoch): torch.as_tensor(value) for epoch, value in training.test_logits.items()}
        }
        if best is not None:
            fixed |= {best_file(number): weights for number, weights in enumerate(best.weights)}
        return cls(
            epoch=training.epoch,
            changing={fold_file(number): trainer.state() for number, trainer in enumerate(training.trainers)},
            fixed=fixed,
            description={
                "epoch": training.epoch,
                "history": [record.to_dict() for record in training.history],
                "best": None if best is None else {"epoch": best.epoch, "score": best.score},
                **notice_of(training.trainers[0]),
            },
        )

    @property
    def files(self) -> dict[str, Mapping[str, Tensor]]:
        """Tensors by name, by file."""
        return {**self.changing, **self.fixed}

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for tensors in self.files.values() for value in tensors.values())

    def copied(self) -> "TrainingState":
        """The same state, independent of the training, which may continue.

        Tensors of a GPU are copied to pinned memory, all at once. Tensors of the CPU are copied where they change.
        """
        devices = {value.device for tensors in self.files.values() for value in tensors.values() if value.is_cuda}
        copy = replace(self, changing=_copied(self.changing, always=True), fixed=_copied(self.fixed, always=False))
        for device in devices:
            torch.cuda.synchronize(device)
        return copy

    def fits_twice(self) -> bool:
        """Whether the memory of this machine has room for a copy."""
        return bool(psutil.virtual_memory().available > _ROOM * self.size)


def _copied(files: Mapping[str, Mapping[str, Tensor]], *, always: bool) -> dict[str, dict[str, Tensor]]:
    """Copies of tensors in the CPU's memory. `always`: also of those that are there."""
    return {
        file: {name: _copy(value) if always or value.is_cuda else value for name, value in tensors.items()}
        for file, tensors in files.items()
    }


def _copy(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.clone(memory_format=torch.contiguous_format)
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
