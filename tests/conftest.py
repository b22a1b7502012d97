"""One Ray for a test module that wants it: `pytest.mark.usefixtures("local_ray")`."""

import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from ray_mae.cluster.runtime import cluster
from tests.object_store import s3_server


def pytest_configure() -> None:
    """Gives this process its share of the cores, and signals that a shell's `&` or nohup have it ignore."""
    # before PyTorch counts them: the threads of two processes with all cores each wait for each other
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    for signum, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """CPUs for two training workers and for reading data; ended with the module."""
    with cluster(cpus=3):
        yield


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket at an S3 server of this machine, for all tests of this process."""
    with s3_server() as url:
        yield url


@pytest.fixture
def store(bucket: str) -> str:
    """The URL of a folder of one test's own in an object store."""
    return f"{bucket}/{uuid.uuid4().hex}"
