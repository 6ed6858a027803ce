"""Starting, joining and leaving a Ray cluster."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from m3col.errors import InputError, reason_of
from m3col.storage.redaction import redacted
from tune.engine import auth, join_cluster, ready_workers, temporary_folder
from tune.engine.loopback import loopback

WAIT_FOR_NODES_S = 20.0  # wait for nodes that are still joining an existing cluster

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


def start_ray(
    *, address: str | None, threads: int, num_cpus: int | None = None, dashboard: bool = False,
    preloaded: Sequence[str] | None = None,
) -> bool:  # fmt: skip
    """Connects to a cluster (`address` or $RAY_ADDRESS), or starts a local one.

    If the caller is already connected to a cluster, that one is used.

    Args:
        address: address of the cluster to join.
        threads: threads of each worker process.
        num_cpus: CPUs of a local cluster. Default: all.
        dashboard: whether a local cluster starts its dashboard, on the loopback address.
        preloaded: modules that every worker process of a local cluster imports when it starts; trials then get
            processes that Ray starts ahead of time. Default: their processes start when they do.

    Returns:
        Whether a local cluster was started.

    Raises:
        InputError: within 60 s, if the cluster cannot be joined, or there is no folder for the files of a local one.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    cluster = join_cluster.requested(address)
    auth.settle(cluster is not None)
    if ray.is_initialized():
        return False
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    common: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "namespace": "m3col"}
    own_environment = {"runtime_env": {"env_vars": environment}}
    if cluster is not None:
        _join(*cluster, {**common, **own_environment})
        return False
    folder = temporary_folder.folder(dashboard=dashboard)
    ahead = contextlib.nullcontext() if preloaded is None else ready_workers.cluster_wide(environment)
    common |= own_environment if preloaded is None else {"_system_config": {"preload_python_modules": [*preloaded]}}
    with loopback(), ahead:
        # "local", because without an address Ray joins the last cluster that `ray start` started on this machine.
        location: dict[str, Any] = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "_temp_dir": folder}
        ray.init("local", num_cpus=num_cpus, **location, **common)
    return True


def _join(source: str, address: str, common: Mapping[str, Any]) -> None:
    join_cluster.require_cluster(source, address)
    try:
        ray.init(address=address, **common)
    except (ValueError, OSError, RuntimeError) as error:
        reason = reason_of(error)
        raise InputError([f"{source} {redacted(address)}: this Ray cluster cannot be joined ({reason})"]) from None


def stop_ray() -> None:
    """Ends the local cluster that `start_ray` started."""
    ray.shutdown()
