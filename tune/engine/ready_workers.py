"""Makes the worker processes that Ray starts ahead of time usable for trials."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray._private import parameter

# What a process imports before its first trial. The second one is imported by torch when the first optimizer steps.
PRELOADED = ("tune.engine.trials", "torch._dynamo")


@contextmanager
def cluster_wide(environment: Mapping[str, str]) -> Iterator[None]:
    """Context manager: all processes of a cluster that `ray.init` starts in the block have these environment variables.

    Ray starts a process for each CPU when a cluster starts, and a trial gets one of them only if it asks for no
    environment of its own. `ray.init` has no argument for the environment of the whole cluster; the class of its
    parameters has. Without output of workers on the driver there is nothing for Ray's log monitor to send either, so
    that it is not started.
    """
    module: Any = parameter
    original = module.RayParams
    module.RayParams = functools.partial(original, env_vars=dict(environment), include_log_monitor=False)
    try:
        yield
    finally:
        module.RayParams = original
