"""What the workers of a training take of a machine, and which of it they cannot share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from m3col.config.keys import Strict
from m3col.config.rules import shard_faults
from m3col.config.schema import Count, NotNegative, RunConfig
from m3col.data import modality_kinds

if TYPE_CHECKING:
    from m3col.checks.resolve import ResolvedRun


@dataclass(frozen=True)
class Request:
    """What one training asks for: `workers` processes, each with so many CPUs and GPUs on one node. `gpus` None: as
    the cluster has them (`capacity.settled`)."""

    workers: int = 1
    cpus: float = 1.0
    gpus: float | None = 0.0

    def per_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPUs and {self.gpus or 0:g} GPUs on one node"
        return each if self.workers == 1 else f"{self.workers} workers with {each} each"


class TrialResources(Strict):
    """What one trial takes: DDP workers, and what each of them has; `cpus_per_worker` defaults to the run config's
    `resources.threads`, `gpus_per_worker` to one where the cluster has one for each and `train.device` is not `cpu`.
    Without a GPU of its own a worker computes on the CPU. A part of a GPU is for a single worker: NCCL wants one whole
    GPU for each of several."""

    workers_per_trial: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    gpus_per_worker: NotNegative | None = None


def resource_faults(wanted: TrialResources, runs: Sequence[RunConfig]) -> list[str]:
    """What the workers of a training cannot share."""
    count, gpus = wanted.workers_per_trial, wanted.gpus_per_worker
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


def request_for(wanted: TrialResources, run: RunConfig) -> Request:
    """What a training asks of a cluster."""
    gpus = wanted.gpus_per_worker
    if gpus is None and run.train.device != "auto":
        gpus = 1.0 if run.train.device == "cuda" else 0.0
    return Request(wanted.workers_per_trial, wanted.cpus_per_worker or float(run.resources.threads), gpus)


def encoder_faults(prepared: "ResolvedRun", workers: int) -> list[str]:
    """What several workers cannot train as one would."""
    kinds = set(prepared.dataset.kinds.values())
    if workers < 2 or not modality_kinds.media(kinds):
        return []
    from m3col.checks import encoders  # it needs torch and more

    return encoders.worker_faults(prepared.config.model, prepared.config.data, kinds)
