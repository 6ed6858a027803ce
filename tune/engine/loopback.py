"""A Ray cluster of our own is for this machine alone: it listens on the loopback address."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants


@contextmanager
def loopback() -> Iterator[None]:
    """A cluster that `ray.init` starts within listens on the loopback address only.

    On Linux Ray listens on every interface of the machine, and whoever reaches it may run code. No argument of
    `ray.init` changes that (it replaces 127.0.0.1 by the address of an interface); what does is the switch with which
    Ray rules out clusters of several machines on macOS and Windows.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
