"""CPUs and GPUs of the workers of one training: settings, validation, and the request to the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from m3col.config.keys import Strict
from m3col.config.rules import shard_faults
from m3col.config.schema import Count, NotNegative, RunConfig
from m3col.data import modality_kinds
from m3col.methods import registry as methods

if TYPE_CHECKING:
    from m3col.checks.resolve import ResolvedRun


@dataclass(frozen=True)
class Request:
    """Resources that one training requests from the cluster.

    Args:
        workers: number of worker processes.
        cpus: CPUs of each worker, on one node.
        gpus: GPUs of each worker, on one node; None: decided once the cluster is known (`capacity.with_gpus`).
    """

    workers: int = 1
    cpus: float = 1.0
    gpus: float | None = 0.0

    def per_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPUs and {self.gpus or 0:g} GPUs on one node"
        return each if self.workers == 1 else f"{self.workers} workers with {each} each"


class TrialResources(Strict):
    """Resources of one trial.

    Attributes:
        workers_per_trial: number of DDP workers.
        cpus_per_worker: CPUs of each worker. Default: the run config's `resources.threads`.
        gpus_per_worker: GPUs of each worker. Default: 1 if the cluster has a GPU for each worker and `train.device` is
            not `cpu`, else 0, and then workers compute on the CPU. A fraction is allowed for a single worker only,
            because NCCL needs one whole GPU per worker.
    """

    workers_per_trial: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    gpus_per_worker: NotNegative | None = None


def resource_faults(resources: TrialResources, runs: Sequence[RunConfig]) -> list[str]:
    """Returns the settings that do not fit each other or the configs of `runs`."""
    count, gpus = resources.workers_per_trial, resources.gpus_per_worker
    faults = []
    if gpus and gpus != int(gpus) and (count > 1 or gpus > 1):
        near = max(1, round(gpus))
        rule = "a whole number for several workers per trial" if count > 1 else "a whole number, or less than 1"
        faults.append(f"gpus_per_worker must be {rule}, but is {gpus:g}; nearest valid: {near}")
    for run in runs:
        faults += [f"workers_per_trial: {text}" for text in shard_faults(run.train.shards, count)]
        if run.train.device == "cuda" and gpus == 0:
            faults.append("gpus_per_worker is 0, but train.device is 'cuda'; nearest valid: 1")
        if run.train.device == "cpu" and gpus:
            faults.append(f"gpus_per_worker is {gpus:g}, but train.device is 'cpu'; nearest valid: 0")
    return list(dict.fromkeys(faults))


def request_for(resources: TrialResources, run: RunConfig) -> Request:
    """Returns what a training with this run config requests from the cluster."""
    gpus = resources.gpus_per_worker
    if gpus is None and run.train.device != "auto":
        gpus = 1.0 if run.train.device == "cuda" else 0.0
    return Request(resources.workers_per_trial, resources.cpus_per_worker or float(run.resources.threads), gpus)


def encoder_faults(prepared: "ResolvedRun", workers: int) -> list[str]:
    """Returns what of a method or its encoders cannot be trained with several workers."""
    kinds = set(prepared.dataset.kinds.values())
    faults = [f"workers: {line}" for line in methods.worker_faults(prepared.config.method, workers)]
    if workers < 2 or not modality_kinds.media(kinds):
        return faults
    from m3col.checks import encoders  # it needs torch and more

    return faults + encoders.worker_faults(prepared.config.model, prepared.config.data, kinds)
