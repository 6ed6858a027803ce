"""The specification of a run: trials, replicates, confirmations and refits differ only in these values."""

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

_REPORTS = 50  # largest number of reports per trial

_LONGEST_FOLDER = 255  # bytes of a name, on every file system in use

LONGEST_STUDY = 200  # leaves room for a number and for the affixes of temporary files


@dataclass(frozen=True)
class RunSpec:
    """One run.

    Attributes:
        name: the run's name, see `RunName`.
        kind: trial, replicate, confirm or refit.
        config: the run config.
        partition: column of splits.csv; for a refit "full" or "given".
        rates: learning rates per epoch to replay; empty: the config's own schedule.
        predict_test_every: epochs between the test logits that are kept for the optimistic column; 0: only those of
            the last epoch.
    """

    name: str
    kind: Kind
    config: Mapping[str, Any]
    partition: str
    rates: tuple[float, ...] = field(default=())
    predict_test_every: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "config": dict(self.config), "rates": list(self.rates)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        return cls(**{**values, "rates": tuple(values["rates"])})


def is_wanted(name: str, *, seeds: int) -> bool:
    """Whether a run counts in the results. A study resumed with fewer `final.seeds` has surplus refits."""
    run = RunName.parse(name)
    return run.stage != REFITS or run.number < seeds


def report_steps(epochs: int) -> dict[int, int]:
    """Returns the epochs after which a run reports, each with its progress in percent (2, 4, ... 100).

    Percent, so that trials of different length are compared at the same rungs. At most 50 reports per trial (13 ms
    each).
    """
    return {math.ceil(epochs * number / _REPORTS): number * 100 // _REPORTS for number in range(1, _REPORTS + 1)}


def folder_fault(name: str) -> str | None:
    """Returns why a row's name cannot be a folder name, None if it can."""
    if not name.strip():
        return "a row needs a name"
    if not naming.is_printable(name):
        return "a name must be printable, but this one has a control character"
    size = len(slug(name).encode())
    if size > _LONGEST_FOLDER:
        return f"the name is too long for a folder: {size} bytes, and file systems take {_LONGEST_FOLDER}"
    return None


def study_name(title: str) -> str:
    """Returns the name of a config's studies, without a number: valid on every file system, without a leading dash.

    Args:
        title: made of the name of the config's file and of the method.
    """
    name = slug(title.replace(":", "-")).lstrip("-.") or "study"
    if len(name.encode()) <= LONGEST_STUDY:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_STUDY - 9].decode(errors='ignore')}-{digest}"
