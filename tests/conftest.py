"""One Ray for a test module that wants it: `pytest.mark.usefixtures("local_ray")`."""

from collections.abc import Iterator

import pytest

from ray_mae.cluster.runtime import cluster


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """CPUs for two training workers and for reading data; ended with the module."""
    with cluster(cpus=3):
        yield
