"""Ray Tune as the engine: reused trial actors, a searcher and a scheduler that only ask the conductor (PROTOCOL 8).

Tune's own checkpoints, loggers and restore are off: the study's folder is the record.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search import Searcher

from m3col.data.dataset import Dataset
from m3col.faults import BadInput
from tune.conductor import Conductor
from tune.loopback import loopback
from tune.plan import Nothing
from tune.runs import RunSpec
from tune.worker import Worker

_ACTOR_DEATHS = 5  # restarts of one run before it counts as failed
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_LEN_IDENTIFIER": "40",
    "TUNE_WARN_THRESHOLD_S": "5",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def start_ray(*, address: str | None, threads: int, num_cpus: int | None = None) -> bool:
    """Connects to a cluster (`address` or $RAY_ADDRESS), or starts a local one without a dashboard; True if started.

    A cluster that the caller is already connected to is used as it is.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Left unset, Ray turns tokens on or off by what lies in the home directory. A local cluster is reached by this
    # user's processes alone; to join one, set the variable as the cluster has it.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if ray.is_initialized():
        return False
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    common: dict[str, Any] = {
        "logging_level": "error",
        "log_to_driver": False,
        "runtime_env": {"env_vars": environment},
        "namespace": "m3col",
    }
    if address or os.environ.get("RAY_ADDRESS"):
        ray.init(address=address or "auto", **common)
        return False
    with loopback():
        ray.init(include_dashboard=False, num_cpus=num_cpus, **common)
    return True


def stop_ray() -> None:
    """Ends the local cluster that `start_ray` started."""
    ray.shutdown()


def places(cpus_per_trial: float, gpus_per_trial: float) -> int:
    """Trials that the cluster holds at a time. Raises BadInput where not even one fits on any node."""
    total = 0
    best: list[str] = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus, gpus = node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)
            best.append(f"{cpus:g} CPUs and {gpus:g} GPUs")
            total += int(min(cpus / cpus_per_trial, gpus / gpus_per_trial if gpus_per_trial else float("inf")))
    if not total:
        raise BadInput(
            [
                f"resources: a trial asks for {cpus_per_trial:g} CPUs and {gpus_per_trial:g} GPUs on one node, "
                f"but the cluster has {'; '.join(best) or 'no node'}"
            ]
        )
    return total


class TrialActor(ray.tune.Trainable):
    """Serves one run after another. Every run opens its own folder, so that a fresh actor, a reused one and one on
    another node all go the same way."""

    def setup(self, config: dict[str, Any], **data: Any) -> None:
        self._data = data or getattr(self, "_data", {})
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._open(new_config)
        return True

    def _open(self, config: Mapping[str, Any]) -> None:
        self._worker: Worker | None = None
        self._broken: dict[str, Any] | None = None
        spec = RunSpec.from_dict(config["run"])
        try:
            self._worker = Worker(spec, Path(config["study"]), self._data["dataset"], probe=self._probe)
        except Exception as error:  # told as a result: an exception here would cost the actor and a retry
            self._broken = {
                "run": spec.name, "epoch": 0, "records": [], "restart": False, "log": [],
                "failure": f"{type(error).__name__}: {error}", "done": True,
            }  # fmt: skip

    def _probe(self) -> Mapping[str, np.ndarray] | None:
        return ray.get(self._data["probe"][0])

    def step(self) -> dict[str, Any]:
        if self._worker is None:
            assert self._broken is not None
            return self._broken
        return self._worker.step()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: the worker found its own checkpoint when it opened its folder."""


class _Ask(Searcher):
    """Tune's questions for the next trial, passed to the conductor."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searcher and scheduler for a restore that is never asked for.
        return {}

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        spec = self._conductor.next()
        if spec is Nothing.DONE:
            return Searcher.FINISHED
        if isinstance(spec, Nothing):
            return None
        self._names[trial_id] = spec.name
        return {"run": spec.to_dict(), "study": str(self._conductor.folder.path)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            name = self._names[trial_id]
            self._conductor.failed(name, f"its process died more than {_ACTOR_DEATHS} times")

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder is the record."""


class _Judge(FIFOScheduler):
    """Tune's results, passed to the conductor, and its verdict back."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP if self._conductor.result(result) else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Tune calls on_trial_result no more once a result says "done".
        if result.get("done") and result.get("run") in self._conductor.busy:
            self._conductor.result(result)


def run(
    conductor: Conductor, dataset: Dataset, *, cpus_per_trial: float, gpus_per_trial: float,
    actor: type[ray.tune.Trainable] | None = None,
) -> None:  # fmt: skip
    """Runs the plan to its end on the connected cluster. `dataset` may hold test inputs; labels of the test split are
    taken away before anything leaves this process. `actor`: serves the runs in place of `TrialActor`."""
    probe = None if dataset.test is None else dict(dataset.test.inputs)
    served = ray.tune.with_parameters(actor or TrialActor, dataset=dataset.without_test(), probe=[ray.put(probe)])
    served = ray.tune.with_resources(served, {"CPU": cpus_per_trial, "GPU": gpus_per_trial})
    # Tune starts one actor after the other by default; all places at once save their start-up times.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(conductor.concurrency)
    with tempfile.TemporaryDirectory(prefix="m3col-tune-") as scratch:
        ray.tune.Tuner(
            served,
            tune_config=ray.tune.TuneConfig(
                search_alg=_Ask(conductor), scheduler=_Judge(conductor), num_samples=-1, reuse_actors=True
            ),
            run_config=ray.tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=_ACTOR_DEATHS),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
