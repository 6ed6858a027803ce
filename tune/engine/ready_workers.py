"""Makes the worker processes that Ray starts ahead of time usable for trials."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ray._private import parameter

# What a process imports before its first trial. The second one is imported by torch when the first optimizer steps.
PRELOADED = ("tune.engine.trials", "torch._dynamo")


def settings(modules: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of a local cluster whose worker processes import these modules when they start.

    Ray runs them with a niceness of 15. On a machine with other programs a search would then get a fraction of what the
    same training gets without Ray, so they have the niceness of the process that starts the search.
    """
    return {"preload_python_modules": [*modules], "worker_niceness": 0}


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
