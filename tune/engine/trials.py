"""What Ray Tune runs for one trial: a reused actor, or a function that starts DDP ranks with Ray Train."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from m3col import devices
from m3col.config import loading
from m3col.config.keys import get
from m3col.distributed import RankContext
from m3col.storage.redaction import scrubbed
from m3col.storage.retry import StorageUnavailable
from tune.config.resources import Request
from tune.engine import ray_train
from tune.engine.run_executor import RunExecutor
from tune.study.attempts import Attempts
from tune.study.run_messages import RunReport
from tune.study.run_spec import RunSpec

_MEMORY_WAIT_S = 5.0  # before a trial that ran out of GPU memory is tried again


def failed_report(name: str, error: BaseException) -> RunReport:
    """Returns the report of a run that could not start or resume. The error's cause goes into the run's log."""
    refused = str(error) if isinstance(error, StorageUnavailable) else None
    return RunReport(
        run=name,
        log=[] if error.__cause__ is None else [scrubbed(str(error.__cause__))],
        refused=refused,
        failure=None if refused else f"{type(error).__name__}: {error}",
        done=True,
    )


def alone(request: Request, spec: RunSpec) -> RankContext:
    """Returns the context of a single rank: on the CPU unless GPUs were requested.

    Without this it could use a GPU, because Ray lets a process that requested none see all GPUs of its machine.
    """
    if request.gpus or get(spec.config, "train.device", "auto") != "auto":
        return RankContext()
    return RankContext(device=torch.device("cpu"))


class TrialActor(ray.tune.Trainable):
    """Runs one trial after another in the same process. Each run creates its own attempt folder, so a new actor, a
    reused one and one on another node behave alike.

    A CUDA error that no later call of this process survives is raised: Ray Tune then ends the process and starts the
    trial anew, which resumes from its checkpoint. After running out of GPU memory the trial is tried once more here.
    """

    _executor: RunExecutor | None = None
    _broken: RunReport | None = None

    def setup(self, config: dict[str, Any], **data: Any) -> None:
        self._data = data or getattr(self, "_data", {})
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._open(new_config)
        return True

    def _open(self, config: Mapping[str, Any]) -> None:
        self._spec = RunSpec.from_dict(config["run"])
        self._tries, self._log = ray_train.MEMORY_TRIES, list[str]()
        self._start()

    def _start(self) -> None:
        """Creates the executor of the run; leaves it None where the GPU's memory does not suffice."""
        self.cleanup()
        self._executor, self._broken = None, None
        devices.release_memory()
        try:
            request = self._data["request"]
            devices.limit_memory(request.gpus or 0.0)
            shared_data = ray.get(self._data["shared_data"][0])
            self._executor = RunExecutor(
                self._spec, shared_data, test_inputs=lambda: ray.get(self._data["test_inputs"][0]),
                ranks=alone(request, self._spec),
            )  # fmt: skip
        except torch.OutOfMemoryError:
            return
        except Exception as error:  # returned as a report: an exception here would end the actor and count as a retry
            if devices.is_fatal(error):
                raise
            self._broken = failed_report(self._spec.name, error)

    def step(self) -> dict[str, Any]:
        report = self._step()
        while report is None and self._tries:
            # Not in a handler: its exception would keep the memory of its frames.
            self._tries -= 1
            self._log.append(f"out of GPU memory, tried once more from the newest checkpoint{devices.memory_report()}")
            self._executor = None
            devices.release_memory()
            time.sleep(_MEMORY_WAIT_S)  # another trial on the card may end meanwhile
            self._start()
            report = self._step()
        if report is None:
            run = loading.trusted(self._spec.config)
            text = devices.out_of_memory_text(run, self._data["request"].gpus or 0.0)
            report = RunReport(run=self._spec.name, failure=text, done=True)
        report, self._log = replace(report, log=[*self._log, *report.log]), []
        return report.to_dict()

    def _step(self) -> RunReport | None:
        """The next report; None where the GPU's memory ran out."""
        if self._broken is not None or self._executor is None:
            return self._broken
        try:
            return self._executor.step()
        except torch.OutOfMemoryError:
            return None

    def cleanup(self) -> None:
        """Waits for a checkpoint that the run before is still writing. Called by Ray Tune where an actor ends."""
        if self._executor is not None:
            self._executor.close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Does nothing: the executor reads its own checkpoint."""


def trial_of_workers(config: dict[str, Any], **data: Any) -> None:
    """Runs a trial with several DDP ranks, through Ray Train inside the Tune trial."""
    spec = RunSpec.from_dict(config["run"])
    device = str(get(spec.config, "train.device", "auto"))
    arguments = {**data, "run": config["run"], "device": device}
    study, uri = data["place"]
    attempts = Attempts(study, spec.name, uri=uri, config=spec.config)

    def reached() -> str | None:
        with contextlib.suppress(OSError):
            return attempts.newest()
        return None

    try:
        ray_train.fit(
            step_together, arguments, data["request"], device=device, name=spec.name, reached=reached,
            callbacks=[TuneReportCallback()], patience_s=data["patience_s"],
        )  # fmt: skip
    except ray.exceptions.RayError:  # a process of Ray Train died: Tune restarts the trial, which resumes
        raise
    except Exception as error:  # returned as a report: a retry would fail in the same way
        report = failed_report(spec.name, error)
        if isinstance(error, torch.OutOfMemoryError):
            run = loading.trusted(spec.config)
            report = replace(report, failure=devices.out_of_memory_text(run, data["request"].gpus or 0.0))
        ray.tune.report(report.to_dict())


def step_together(arguments: dict[str, Any]) -> None:
    """The training loop of each rank of a trial."""
    place = ray_train.joined(arguments["device"])
    spec = RunSpec.from_dict(arguments["run"])
    executor = RunExecutor(
        spec,
        ray.get(arguments["shared_data"][0]),
        test_inputs=lambda: ray.get(arguments["test_inputs"][0]),
        ranks=place,
    )
    done = False
    while not done:
        report = executor.step()
        done = report.done
        ray.train.report(report.to_dict())
