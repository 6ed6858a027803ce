"""Makes a local Ray cluster listen on the loopback address."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants


@contextmanager
def loopback() -> Iterator[None]:
    """Context manager: a cluster that `ray.init` starts in the block listens on the loopback address only.

    On Linux Ray listens on every network interface, and anyone who can connect may run code. No argument of `ray.init`
    changes that (it replaces 127.0.0.1 with the address of an interface). Ray's internal switch that disables clusters
    of several machines on macOS and Windows does.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
