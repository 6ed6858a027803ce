"""What the workers of a training take of a machine, and which of it they cannot share."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from m3col.config import Count, NotNegative, RunConfig, shard_faults
from m3col.judge import Strict


class TrialResources(Strict):
    """What one trial takes: DDP workers, and what each of them has; `cpus_per_worker` defaults to the run config's
    `resources.threads`. A part of a GPU is for a single worker: NCCL wants one whole GPU for each of several."""

    workers_per_trial: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    gpus_per_worker: NotNegative = 0.0


def resource_faults(wanted: TrialResources, runs: Sequence[RunConfig]) -> list[str]:
    """What the workers of a training cannot share."""
    count, gpus = wanted.workers_per_trial, wanted.gpus_per_worker
    faults = []
    if gpus != int(gpus) and (count > 1 or gpus > 1):
        near = max(1, round(gpus))
        rule = "a whole number for several workers per trial" if count > 1 else "a whole number, or less than 1"
        faults.append(f"gpus_per_worker must be {rule}, but is {gpus:g}; nearest valid: {near}")
    for run in runs:
        faults += [f"workers_per_trial: {text}" for text in shard_faults(run.train.shards, count)]
        if run.train.device == "cuda" and count > 1 and not gpus:
            faults.append("gpus_per_worker is 0, but train.device is 'cuda'; nearest valid: 1")
        if run.train.device == "cpu" and gpus:
            faults.append(f"gpus_per_worker is {gpus:g}, but train.device is 'cpu'; nearest valid: 0")
    return list(dict.fromkeys(faults))
