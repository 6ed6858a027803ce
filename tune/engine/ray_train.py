"""DDP workers through Ray Train: for a trial with several workers, and for one training run.

Ray Train starts the workers in their own placement group. It ends all of them if one dies, or if the process that
started them ends. For the latter it runs a placement-group cleaner per training, which asks the cluster's dashboard for
dead processes. Without a dashboard, or if a trial is stopped while its workers are starting, the CPUs of a pruned trial
would never be released, and the search would hang. So `require_dashboard` checks for a dashboard first, and
`orphans_freed` releases orphaned placement groups during a search.
"""

import os
import signal
import threading
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

from m3col import devices
from m3col.distributed import RankContext
from m3col.errors import InputError
from m3col.storage.object_store import Scratch
from m3col.storage.retry import StorageUnavailable
from tune.config.resources import Request
from tune.engine.background_thread import repeated
from tune.engine.rendezvous import rendezvous

_DEATHS = 3  # restarts of a training's workers without a new checkpoint in between, before it counts as failed

_CONTROLLER_DEATHS = 3

MEMORY_TRIES = 1  # how often a training that ran out of GPU memory is tried again

_DASHBOARD_S = 25.0

_SWEEP_EVERY_S = 1.0

_LAST_SWEEP_S = 10.0

_SETTINGS = {
    # A report waits until the controller polls its workers, by default every 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Saves a process per training; a lost node is detected by its dead workers.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A placement group may have to wait while other trials run. Groups are placed as a whole, so this cannot deadlock.
    # tune/engine/capacity.py checks whether a group can be placed at all.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # After a failure NCCL waits for ranks that are gone, before the workers are ended.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "10",
}


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def require_dashboard() -> None:
    """Raises InputError if the dashboard of the connected cluster does not answer. Waits for one that is starting."""
    until = time.monotonic() + _DASHBOARD_S
    while True:
        try:
            list_nodes(_address(), limit=1, timeout=5, raise_on_missing_output=False)
            return
        except Exception as error:  # of various types, while it starts and if there is none
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
    """Returns the placement groups that actors of this job created and that still exist.

    Only this internal table of Ray says who created a group, and whether the creator is dead.
    """
    job = ray.get_runtime_context().get_job_id()
    entry: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    groups = [entry.FromString(group) for group in table]
    of_job = [group for group in groups if group.state != entry.REMOVED and group.creator_job_id.hex() == job]
    # Groups of the driver (Tune's, for trials) have no creating actor, and would look as if it were dead.
    return [group for group in of_job if not ray.ActorID(group.creator_actor_id).is_nil()]


def free_orphans() -> int:
    """Removes placement groups, with their workers, whose creator is dead. Returns the number of groups left."""
    left = 0
    for group in _groups():
        if group.creator_actor_dead:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
        else:
            left += 1
    return left


@contextmanager
def orphans_freed() -> Iterator[None]:
    """Context manager: frees orphaned placement groups regularly; at the end waits until no group is left."""

    def sweep() -> int:
        with suppress(Exception):  # the GCS may be unavailable for a moment; the next sweep will succeed
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
    """Returns rank and device of this Ray Train worker. `device`: as in `train.device`."""
    context = ray.train.get_context()
    where = torch.device("cpu") if device == "cpu" else ray.train.torch.get_device()
    return RankContext(context.get_world_rank(), context.get_world_size(), where)


@contextmanager
def _environment() -> Iterator[None]:
    """Context manager: sets the environment variables that Ray Train reads and passes on to its processes."""
    before = dict(os.environ)
    os.environ.update({key: value for key, value in _SETTINGS.items() if key not in os.environ})
    # Without an address the placement-group cleaner connects to any cluster on its machine. With two clusters it would
    # fail and never exit.
    os.environ["RAY_ADDRESS"] = _address()
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    try:
        yield
    finally:
        for key in {"RAY_ADDRESS", *_SETTINGS}:
            os.environ.pop(key, None)
            if key in before:
                os.environ[key] = before[key]


@contextmanager
def _interrupt_handler_restored() -> Iterator[None]:
    """Puts back the handler of Ctrl-C. Ray Train's own one stays for ever: after the training Ctrl-C would call its
    controller, and the process of the controller would stay, because the handler refers to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def fit(
    loop: Callable[[dict[str, Any]], Any],
    arguments: Mapping[str, Any],
    request: Request,
    *,
    device: str,
    name: str,
    reached: Callable[[], object],
    callbacks: list[Any] | None = None,
    patience_s: float = 0.0,
) -> Any:
    """Runs `loop(arguments)` on every worker.

    If a worker dies, all start again. The training fails if workers die again after three restarts in a row without a
    new checkpoint. So preempted machines do not end a training that makes progress.

    Args:
        loop: the training loop of a worker.
        arguments: its argument.
        request: number and resources of the workers.
        device: as in `train.device`.
        name: name of the training.
        reached: returns the newest checkpoint, in any form that can be compared.
        callbacks: callbacks of Ray Train.
        patience_s: seconds that a loop may wait for its storage.

    Returns:
        What the loop of rank 0 returned.

    Raises:
        Exception: the exception of a loop; raised at once.
        RuntimeError: workers died too often.
    """
    deaths, before, memory_tries = 0, reached(), MEMORY_TRIES
    while True:
        try:
            return _fit(
                loop, arguments, request, device=device, name=name, callbacks=callbacks, patience_s=patience_s
            )  # fmt: skip
        except TrainingFailedError as error:
            # Another error is of the controller: it, or a worker, died while the workers were starting.
            failure = cause(error.worker_failures) if isinstance(error, WorkerGroupError) else None
            if isinstance(failure, torch.OutOfMemoryError) and memory_tries:
                memory_tries -= 1  # another training on the same GPU may end meanwhile
                continue
            if failure is not None and not is_echo(failure) and not devices.is_fatal(failure):
                raise failure from error
            now = reached()
            deaths, before = (deaths + 1, before) if now == before else (1, now)
            if deaths > _DEATHS:
                raise failure or RuntimeError(str(error)) from error


def _fit(
    loop: Callable[[dict[str, Any]], Any], arguments: Mapping[str, Any], request: Request, *, device: str, name: str,
    callbacks: list[Any] | None, patience_s: float,
) -> Any:  # fmt: skip
    backend = "nccl" if request.gpus and device != "cpu" else "gloo"
    # The other ranks wait while rank 0 waits for the storage, which may happen several times between collectives.
    wait_s = 3 * patience_s
    with _environment(), _interrupt_handler_restored(), closing(Scratch()) as scratch:
        # Any: Ray's type annotations name the classes of Ray Train V1.
        settings: Any = RunConfig(
            # Ray Train silently resumes a run with the same name and path, so each name is unique.
            name=f"{name.replace('/', '-')}-{uuid.uuid4().hex}",
            storage_path=str(scratch.path),
            callbacks=callbacks,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_DEATHS),
        )
        trainer = ray.train.torch.TorchTrainer(
            loop,
            train_loop_config=dict(arguments),
            torch_config=rendezvous(backend, _address(), folder=scratch.path, wait_s=wait_s),
            scaling_config=ScalingConfig(
                num_workers=request.workers, use_gpu=bool(request.gpus), resources_per_worker=request.per_worker()
            ),
            run_config=settings,
        )
        result: Any = trainer.fit()
        return result.return_value


def cause(failures: Mapping[int, Exception]) -> Exception | None:
    """Returns the exception that made the workers fail; None if processes died without one.

    That is a StorageUnavailable, if a rank raised it, else the exception of the lowest rank that is not merely a lost
    connection: when one worker ends, the others fail with such an error.

    Args:
        failures: exceptions by rank.
    """
    # An error that Ray itself reports, e.g. for a dead process, is not an exception of a loop.
    raised = [failures[rank] for rank in sorted(failures) if not isinstance(failures[rank], (RayError, RayTrainError))]
    refused = [error for error in raised if isinstance(error, StorageUnavailable)]
    return next(iter([*refused, *(error for error in raised if not is_echo(error)), *raised]), None)


def is_echo(error: BaseException) -> bool:
    """Whether an exception only means that the connection to another worker was lost."""
    # gloo raises RuntimeError, NCCL DistError.
    words = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL")
    is_gloo = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return is_gloo or isinstance(error, torch.distributed.DistError)
