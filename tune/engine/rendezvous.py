"""Rendezvous of the DDP workers of one training: a file and the loopback device on a local cluster, else Ray Train's.

Torch's own rendezvous listens on every network interface and exchanges pickled data, which is unsafe.
"""

import math
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.torch.config import (
    TorchConfig,
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


def is_local(address: str) -> bool:
    """Whether the address of a cluster's GCS is a loopback address, so that the cluster has this machine only."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def _use_loopback_device() -> None:
    """Makes gloo and NCCL listen on the loopback device."""
    loopback = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(item.family == socket.AF_INET and item.address == "127.0.0.1" for item in addresses)
    ]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = loopback[0]


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        worker_group.execute(_use_loopback_device)
        file = Path(backend_config.folder) / f"meeting-{uuid.uuid4().hex}"  # a new one for each start
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, backend=backend_config.backend, world_rank=rank, world_size=size,
                    init_method=f"file://{file}", timeout_s=backend_config.timeout_s,
                )
                for rank in range(size)
            ]
        )  # fmt: skip


@dataclass
class FileRendezvous(TorchConfig):
    """Settings for workers on one machine, which find each other through a file in `folder`."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _FileBackend


def rendezvous(backend: str, address: str, *, folder: Path, wait_s: float = 0.0) -> TorchConfig:
    """Returns Ray Train's settings for the process group of a training.

    Args:
        backend: gloo or nccl.
        address: address of the cluster's GCS.
        folder: a folder on this machine that exists until the training ends.
        wait_s: seconds that a worker may have to wait for another one. Ray's default limit applies if it is longer.
    """
    limit = max(TorchConfig.timeout_s, math.ceil(wait_s))
    if is_local(address):
        return FileRendezvous(backend=backend, timeout_s=limit, folder=str(folder))
    return TorchConfig(backend=backend, timeout_s=limit)
