"""What a run of a study is: the same kind of training for trials, replicates, confirmations and refits."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["trial", "replicate", "confirm", "refit"]
TRIAL: Kind = "trial"
REPLICATE: Kind = "replicate"
CONFIRM: Kind = "confirm"
REFIT: Kind = "refit"
_REPORTS = 50  # at most, per trial


@dataclass(frozen=True)
class RunSpec:
    """One run. `name` is its folder below the study's; `partition`: column of splits.csv, or "full"/"given" in a refit;
    `rates`: learning rates per epoch to replay; `probe_every`: epochs between test logits kept for the optimistic
    column, 0 for the last epoch only."""

    name: str
    kind: Kind
    config: Mapping[str, Any]
    partition: str
    rates: tuple[float, ...] = field(default=())
    probe_every: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "config": dict(self.config), "rates": list(self.rates)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "RunSpec":
        return cls(**{**found, "rates": tuple(found["rates"])})


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


def is_wanted(name: str, *, seeds: int) -> bool:
    """Whether a run belongs to the results: a study that was resumed with fewer `final.seeds` has refits beyond."""
    return not name.startswith("refits/") or int(name.rpartition("/")[2]) < seeds


def report_steps(epochs: int) -> dict[int, int]:
    """Epochs at whose end a run reports -> how far it is, in percent of its own epochs (2, 4, ... 100).

    Percent, so that trials of different length meet at the same rungs; at most 50 reports a trial (13 ms each).
    """
    return {math.ceil(epochs * number / _REPORTS): number * 100 // _REPORTS for number in range(1, _REPORTS + 1)}


def slug(name: str) -> str:
    """A row's name as a folder name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name.strip()).lstrip(".") or "_"
