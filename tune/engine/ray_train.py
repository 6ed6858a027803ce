"""DDP workers through Ray Train: for a trial that has several of them, and for one training run.

Ray Train starts them in a placement group of their own, ends all of them where one dies, and when the process that
asked for them ends. The last part is the work of its placement-group cleaner, a process per training that
looks for the dead through the cluster's dashboard. Without a dashboard, and also where a trial is stopped while its
workers are only starting, nobody would give back the CPUs of a pruned trial, and the search would hang. So the
dashboard is asked for first (`require_dashboard`), and while a search lasts `orphans_freed` gives back what is left.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.core.generated import gcs_pb2
from ray.exceptions import RayError
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_nodes

from m3col.distributed import RankContext
from m3col.errors import InputError
from m3col.storage.object_store import Scratch
from m3col.storage.retry import StorageUnavailable
from tune.config.resources import Request
from tune.engine.background_thread import repeated
from tune.engine.rendezvous import rendezvous

_DEATHS = 3  # restarts of the workers of one training, without a checkpoint in between, before it counts as failed

_CONTROLLER_DEATHS = 3

_DASHBOARD_S = 25.0

_SWEEP_EVERY_S = 1.0

_LAST_SWEEP_S = 10.0

_SETTINGS = {
    # A report waits for the controller's next look at its workers, which comes every 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A process less per training; a node that goes away is noticed by its dead workers.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Room may be missing for as long as other trials run: a group is placed whole or not at all, so waiting cannot
    # become a deadlock. Whether it can be placed at all is looked at elsewhere (tune/engine/capacity.py).
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def require_dashboard() -> None:
    """Raises InputError where the connected cluster has no dashboard that answers; one that has just been started is
    waited for."""
    until = time.monotonic() + _DASHBOARD_S
    while True:
        try:
            list_nodes(_address(), limit=1, timeout=5, raise_on_missing_output=False)
            return
        except Exception as error:  # of several kinds, while it starts and where there is none
            if time.monotonic() < until:
                time.sleep(0.5)
                continue
            raise InputError(
                [
                    "resources.workers_per_trial: several workers per trial need the dashboard of the Ray cluster, and "
                    f"it does not answer ({type(error).__name__}); start Ray with include_dashboard=True, and install "
                    "ray[default] on its head node"
                ]
            ) from None


def _groups() -> list[Any]:
    """The placement groups that actors of this job have made and nobody has removed. Ray shows who made a group, and
    whether that one is dead, nowhere but in this table of its own."""
    job = ray.get_runtime_context().get_job_id()
    entry: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    found = [entry.FromString(group) for group in table]
    mine = [group for group in found if group.state != entry.REMOVED and group.creator_job_id.hex() == job]
    # Those of the driver itself, which Tune makes for trials, have no actor, and look like those of a dead one.
    return [group for group in mine if not ray.ActorID(group.creator_actor_id).is_nil()]


def free_orphans() -> int:
    """Removes the placement groups whose maker is dead, and their workers with them; the number of groups left."""
    left = 0
    for group in _groups():
        if group.creator_actor_dead:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
        else:
            left += 1
    return left


@contextmanager
def orphans_freed() -> Iterator[None]:
    """While it lasts, what trials have left behind is freed; at the end it waits until nothing is left."""

    def sweep() -> int:
        with suppress(Exception):  # the cluster's store may be away for a moment, and the next sweep comes
            return free_orphans()
        return 0

    try:
        with repeated(sweep, every_s=_SWEEP_EVERY_S, name="orphans"):
            yield
    finally:
        until = time.monotonic() + _LAST_SWEEP_S
        while sweep() and time.monotonic() < until:
            time.sleep(0.2)


def joined(device: str) -> RankContext:
    """The place of this Ray Train worker among all. `device`: as in `train.device`."""
    context = ray.train.get_context()
    where = torch.device("cpu") if device == "cpu" else ray.train.torch.get_device()
    return RankContext(context.get_world_rank(), context.get_world_size(), where)


@contextmanager
def _environment() -> Iterator[None]:
    """Settings that Ray Train reads in the process that starts it, and hands on to its own."""
    before = dict(os.environ)
    os.environ.update({key: value for key, value in _SETTINGS.items() if key not in os.environ})
    # The cleaner asks "the" cluster of its machine; where there are two, it would give up without the address of its
    # own, and stay for ever.
    os.environ["RAY_ADDRESS"] = _address()
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    try:
        yield
    finally:
        for key in {"RAY_ADDRESS", *_SETTINGS}:
            os.environ.pop(key, None)
            if key in before:
                os.environ[key] = before[key]


def fit(
    loop: Callable[[dict[str, Any]], Any],
    given: Mapping[str, Any],
    request: Request,
    *,
    device: str,
    name: str,
    reached: Callable[[], object],
    callbacks: list[Any] | None = None,
    patience_s: float = 0.0,
) -> Any:
    """Runs `loop(given)` on every worker to its end, and gives what it returned on the first one.

    Where a worker dies all start again, three times in a row as long as `reached` (the newest checkpoint) stays what it
    was: machines that are taken away every hour end no training. Where a loop raises, its exception is raised at once;
    where all that is known are deaths, RuntimeError. `patience_s`: how long a loop may wait for its storage.
    """
    deaths, before = 0, reached()
    while True:
        try:
            return _fit(
                loop, given, request, device=device, name=name, callbacks=callbacks, patience_s=patience_s
            )  # fmt: skip
        except TrainingFailedError as error:
            # Where it is not of the workers it is of the controller: it, or a worker, died while they started.
            told = cause(error.worker_failures) if isinstance(error, WorkerGroupError) else None
            if told is not None and not is_echo(told):
                raise told from error
            now = reached()
            deaths, before = (deaths + 1, before) if now == before else (1, now)
            if deaths > _DEATHS:
                raise told or RuntimeError(str(error)) from error


def _fit(
    loop: Callable[[dict[str, Any]], Any], given: Mapping[str, Any], request: Request, *, device: str, name: str,
    callbacks: list[Any] | None, patience_s: float,
) -> Any:  # fmt: skip
    backend = "nccl" if request.gpus and device != "cpu" else "gloo"
    # While the first worker waits for the storage, for its history and then for its checkpoint, the others wait for it.
    wait_s = 3 * patience_s
    with _environment(), closing(Scratch()) as scratch:
        # Of any type for the type checker: Ray declares the classes of before its second version.
        settings: Any = RunConfig(
            # Ray Train takes up a run of the same name and place without a word; this one never was.
            name=f"{name.replace('/', '-')}-{uuid.uuid4().hex}",
            storage_path=str(scratch.path),
            callbacks=callbacks,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_DEATHS),
        )
        trainer = ray.train.torch.TorchTrainer(
            loop,
            train_loop_config=dict(given),
            torch_config=rendezvous(backend, _address(), folder=scratch.path, wait_s=wait_s),
            scaling_config=ScalingConfig(
                num_workers=request.workers, use_gpu=bool(request.gpus), resources_per_worker=request.per_worker()
            ),
            run_config=settings,
        )
        found: Any = trainer.fit()
        return found.return_value


def cause(failures: Mapping[int, Exception]) -> Exception | None:
    """Why the workers ended, by rank: the storage where one says so, else the exception of the loop of the first worker
    that has one of its own. When one worker ends, the others end with an error of the connection to it. None where all
    died without a word."""
    # What Ray itself found, a process that answers no more, is no exception of a loop.
    told = [failures[rank] for rank in sorted(failures) if not isinstance(failures[rank], (RayError, RayTrainError))]
    refused = [error for error in told if isinstance(error, StorageUnavailable)]
    return next(iter([*refused, *(error for error in told if not is_echo(error)), *told]), None)


def is_echo(error: BaseException) -> bool:
    """Whether an exception only says that another worker is gone."""
    # gloo raises RuntimeError, NCCL DistError.
    words = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL")
    known = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return known or isinstance(error, torch.distributed.DistError)
