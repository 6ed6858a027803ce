"""How many trainings fit on the connected cluster at a time, as nodes join and leave."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from m3col import devices
from m3col.config.schema import RunConfig
from m3col.errors import InputError, reason_of
from m3col.runtime import notices
from tune.config.resources import Request
from tune.errors import NoCapacity

CHECK_EVERY_S = 2.0

_POLL_S = 0.5

_DEVICE_CHECK_S = 60.0  # how long the check of a GPU waits for a free one

_PATIENCE_S = 600.0  # how long a search waits if not a single training fits


def _alive() -> list[dict[str, float]]:
    """Returns the resources of each live node."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def capacity(request: Request) -> int:
    """Returns how many trainings fit on the cluster at a time, if nobody else uses it.

    All workers request the same resources, so any assignment of workers to nodes reaches this number.
    """
    slots = 0
    for node in _alive():
        limits = [int(node.get("CPU", 0) / request.cpus + 1e-9)]
        if request.gpus:
            limits.append(_gpu_shares(node.get("GPU", 0), request.gpus))
        slots += min(limits)
    return slots // request.workers


def _gpu_shares(gpus: float, per_worker: float) -> int:
    """Returns how many workers the GPUs of a node can serve. A fraction must be of one GPU: 0.4 fits twice on each."""
    return int(gpus) * int(1 / per_worker + 1e-9) if per_worker < 1 else int(gpus / per_worker + 1e-9)


def with_gpus(request: Request) -> Request:
    """Returns the request with its number of GPUs decided.

    None becomes 1 per worker if such a training fits on the connected cluster, else 0 (workers compute on the CPU).
    """
    if request.gpus is not None:
        return request
    each = replace(request, gpus=1.0)
    return each if capacity(each) else replace(request, gpus=0.0)


def fitting(request: Request, *, wait_s: float = 0.0) -> Request:
    """As `with_gpus`, but checks that a training fits.

    Args:
        request: what a training requests.
        wait_s: seconds to wait for nodes that are still joining.

    Raises:
        InputError: no training fits.
    """
    until = time.monotonic() + wait_s
    fitted = with_gpus(request)
    while not capacity(fitted) and time.monotonic() < until:
        time.sleep(_POLL_S)
        fitted = with_gpus(request)
    if not capacity(fitted):
        nodes = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in _alive()]
        raise InputError(
            [
                f"resources: a training asks for {fitted}, "
                f"but the cluster has {'; '.join(nodes) or 'no node'} (one entry per node); "
                "ask for less, or add nodes"
            ]
        )
    return fitted


def check_device(config: RunConfig, request: Request) -> None:
    """Checks, in a process of the cluster that has the GPUs of one rank, that PyTorch can use them as the config asks.

    Without GPUs, and without encoders to compile, there is nothing to check. Where all GPUs are busy for longer than a
    minute nothing is checked either: the trials will wait for them.

    Args:
        config: of the runs.
        request: what one training asks for, as `fitting` returns it.

    Raises:
        InputError: with the card, the driver and what to change.
    """
    if not request.gpus and not config.model.compile:
        return
    probe: Any = ray.remote(num_cpus=0, num_gpus=request.gpus or 0, max_retries=0)(devices.device_faults)
    task = probe.remote(config, granted=bool(request.gpus))
    try:
        faults = ray.get(task, timeout=_DEVICE_CHECK_S)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(task, force=True)
        return
    except ray.exceptions.RayError as error:
        reason = reason_of(getattr(error, "cause", None) or error)
        raise InputError([f"train.device: a process of the cluster cannot use its GPU ({reason})"]) from error
    if faults:
        raise InputError(faults)


@dataclass
class Watch:
    """Tracks how many trainings fit on the cluster, as nodes join and leave.

    Args:
        request: what one training asks for.
        limit: the largest number; None (default): no limit.
        warn: called with a line when no training fits any more.
    """

    request: Request
    limit: int | None = None
    warn: Callable[[str], None] = notices.warn
    _fitting: int = field(default=0, init=False)
    _checked: float = field(default=-CHECK_EVERY_S, init=False)
    _empty_since: float | None = field(default=None, init=False)

    def places(self) -> int:
        """Returns how many trainings fit now. Asks Ray at most every two seconds.

        Raises:
            NoCapacity: for ten minutes not a single training fitted.
        """
        now = time.monotonic()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked, self._fitting = now, capacity(self.request)
            self._check_empty(now)
        return self._fitting if self.limit is None else min(self.limit, self._fitting)

    def _check_empty(self, now: float) -> None:
        if self._fitting:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
            self.warn(f"no trial fits on the cluster any more ({self.request}); waiting for nodes")
        elif now - self._empty_since > _PATIENCE_S:
            raise NoCapacity(f"for {_PATIENCE_S:.0f} s no trial fitted on the cluster; a trial asks for {self.request}")
