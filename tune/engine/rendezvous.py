"""Where the DDP workers of one training meet: through a file and the loopback device on a machine of their own, else as
Ray Train does it.

Torch's own rendezvous listens on every interface of a machine, and what workers tell each other is pickled.
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
    """Whether a cluster, by the address of its store, is one of this machine alone."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def _stay_inside() -> None:
    """Makes gloo and NCCL listen on the loopback device."""
    inside = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(found.family == socket.AF_INET and found.address == "127.0.0.1" for found in addresses)
    ]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = inside[0]


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        worker_group.execute(_stay_inside)
        place = Path(backend_config.folder) / f"meeting-{uuid.uuid4().hex}"  # a new one for each start
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, backend=backend_config.backend, world_rank=rank, world_size=size,
                    init_method=f"file://{place}", timeout_s=backend_config.timeout_s,
                )
                for rank in range(size)
            ]
        )  # fmt: skip


@dataclass
class FileRendezvous(TorchConfig):
    """For workers of one machine, which meet in `folder`."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _FileBackend


def rendezvous(backend: str, address: str, *, folder: Path, wait_s: float = 0.0) -> TorchConfig:
    """Ray Train's settings for the process group of a training on the cluster at `address`; `backend`: gloo or nccl;
    `folder`: of this machine, for as long as the training lasts; `wait_s`: seconds that a worker may have to wait for
    another one, if that is longer than Ray's own limit."""
    limit = max(TorchConfig.timeout_s, math.ceil(wait_s))
    if is_local(address):
        return FileRendezvous(backend=backend, timeout_s=limit, folder=str(folder))
    return TorchConfig(backend=backend, timeout_s=limit)
