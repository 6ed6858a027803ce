"""A method whose second rank is killed in the fourth epoch, once. It runs in the processes of Ray."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor

from m3col.methods.batch import Batch, Step
from m3col.methods.concat import Concat

_EPOCH = 4


class Dying(Concat):
    """`M3COL_LANE_DEATH`: the file that is written before the process kills itself, and that a later one finds."""

    def __init__(self, config: Any, **given: Any) -> None:
        super().__init__(config, **given)
        self.marker = Path(os.environ["M3COL_LANE_DEATH"])

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        if step.epoch == _EPOCH and batch.ranks.rank == 1 and not self.marker.exists():
            self.marker.write_text(json.dumps({"rank": batch.ranks.rank, "epoch": step.epoch}))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(batch, step)
