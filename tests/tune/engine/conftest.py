"""One local Ray cluster for all tests of this folder: starting one takes as long as several of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import S3
from tune.engine import ray_cluster


@pytest.fixture(scope="package")
def cluster(s3_server: S3) -> Iterator[Any]:
    """The engine, in a cluster of two CPUs with its dashboard, whose actors know the S3 server."""
    import ray

    from tune.engine import ray_tune

    assert not ray.is_initialized(), "a test before this one has left its cluster behind"
    with pytest.MonkeyPatch.context() as patched:
        for name, value in s3_server.environment.items():
            patched.setenv(name, value)
        assert ray_cluster.start_ray(address=None, threads=1, num_cpus=2, dashboard=True)
    yield ray_tune
    ray.shutdown()
