"""How many trainings the connected cluster holds at a time, now and as nodes come and go."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import ray

from m3col.errors import InputError
from m3col.runtime import notices
from tune.config.resources import Request
from tune.errors import NoCapacity

LOOK_EVERY_S = 2.0

_GLANCE_S = 0.5

_PATIENCE_S = 600.0  # without room for a single training, before the search gives up


def _alive() -> list[dict[str, float]]:
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def capacity(request: Request) -> int:
    """Trainings that fit on the cluster at a time, if nobody else uses it. As all workers are alike, every division of
    the room into groups works out: trainings cannot block each other."""
    slots = 0
    for node in _alive():
        limits = [int(node.get("CPU", 0) / request.cpus + 1e-9)]
        if request.gpus:
            limits.append(_gpu_shares(node.get("GPU", 0), request.gpus))
        slots += min(limits)
    return slots // request.workers


def _gpu_shares(there: float, wanted: float) -> int:
    """A share of a GPU is of one GPU: 0.4 goes twice into each."""
    return int(there) * int(1 / wanted + 1e-9) if wanted < 1 else int(there / wanted + 1e-9)


def with_gpus(request: Request) -> Request:
    """The request with a number of GPUs, where it leaves that open: one for each worker if the connected cluster holds
    a training with so many, else none. Without one a worker computes on the CPU."""
    if request.gpus is not None:
        return request
    each = replace(request, gpus=1.0)
    return each if capacity(each) else replace(request, gpus=0.0)


def fitting(request: Request, *, wait_s: float = 0.0) -> Request:
    """As `with_gpus`, once a training fits. Raises InputError where none fits after `wait_s` seconds, in which nodes
    may still join."""
    until = time.monotonic() + wait_s
    found = with_gpus(request)
    while not capacity(found) and time.monotonic() < until:
        time.sleep(_GLANCE_S)
        found = with_gpus(request)
    if not capacity(found):
        nodes = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in _alive()]
        raise InputError(
            [
                f"resources: a training asks for {found}, "
                f"but the cluster has {'; '.join(nodes) or 'no node'} (one entry per node); "
                "ask for less, or add nodes"
            ]
        )
    return found


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
    _found: int = field(default=0, init=False)
    _looked: float = field(default=-LOOK_EVERY_S, init=False)
    _empty_since: float | None = field(default=None, init=False)

    def places(self) -> int:
        """How many trainings fit now; asks Ray at most every two seconds. Raises NoCapacity after ten minutes without
        capacity for a single one."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked, self._found = now, capacity(self.request)
            self._check_empty(now)
        return self._found if self.limit is None else min(self.limit, self._found)

    def _check_empty(self, now: float) -> None:
        if self._found:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
            self.warn(f"no node is left that holds a trial ({self.request}); waiting for one")
        elif now - self._empty_since > _PATIENCE_S:
            raise NoCapacity(f"for {_PATIENCE_S:.0f} s no node held a trial, which asks for {self.request}")
