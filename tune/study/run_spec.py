"""What a run of a study is: the same kind of training for trials, replicates, confirmations and refits."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from m3col.data.checks import naming
from tune.config.schema import slug
from tune.study.run_name import REFITS, RunName

Kind = Literal["trial", "replicate", "confirm", "refit"]

TRIAL: Kind = "trial"

REPLICATE: Kind = "replicate"

CONFIRM: Kind = "confirm"

REFIT: Kind = "refit"

_REPORTS = 50  # at most, per trial

_LONGEST_FOLDER = 255  # bytes of a name, on every file system in use

LONGEST_STUDY = 200  # leaves room for a number, and for what stands around a name that is being written


@dataclass(frozen=True)
class RunSpec:
    """One run. `name` is its folder below the study's; `partition`: column of splits.csv, or "full"/"given" in a refit;
    `rates`: learning rates per epoch to replay; `predict_test_every`: epochs between test logits kept for the
    optimistic column, 0 for the last epoch only."""

    name: str
    kind: Kind
    config: Mapping[str, Any]
    partition: str
    rates: tuple[float, ...] = field(default=())
    predict_test_every: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "config": dict(self.config), "rates": list(self.rates)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "RunSpec":
        return cls(**{**found, "rates": tuple(found["rates"])})


def is_wanted(name: str, *, seeds: int) -> bool:
    """Whether a run belongs to the results: a study that was resumed with fewer `final.seeds` has refits beyond."""
    run = RunName.parse(name)
    return run.stage != REFITS or run.number < seeds


def report_steps(epochs: int) -> dict[int, int]:
    """Epochs at whose end a run reports -> how far it is, in percent of its own epochs (2, 4, ... 100).

    Percent, so that trials of different length meet at the same rungs; at most 50 reports a trial (13 ms each).
    """
    return {math.ceil(epochs * number / _REPORTS): number * 100 // _REPORTS for number in range(1, _REPORTS + 1)}


def folder_fault(name: str) -> str | None:
    """Why a row of this name cannot have a folder."""
    if not name.strip():
        return "a row needs a name"
    if not naming.is_printable(name):
        return "a name must be printable, but this one has a control character"
    size = len(slug(name).encode())
    if size > _LONGEST_FOLDER:
        return f"the name is too long for a folder: {size} bytes, and file systems take {_LONGEST_FOLDER}"
    return None


def study_name(title: str) -> str:
    """What the folders of a config's studies are called, but for their number: a name that every file system takes and
    no command takes for an option. `title`: of its file and method."""
    name = slug(title.replace(":", "-")).lstrip("-.") or "study"
    if len(name.encode()) <= LONGEST_STUDY:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_STUDY - 9].decode(errors='ignore')}-{digest}"
