"""One Ray for all modules that want it, `pytest.mark.usefixtures("local_ray")`, and the order of files."""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, those that share a Ray in a row, and quick ones fill up the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    sharing = {item.path for item in items if _shares(item)}
    items.sort(key=lambda item: (item.path not in slow, item.path not in sharing))  # stable


_shared = ExitStack()
"""Holds the Ray of this process that modules share."""


@pytest.fixture(scope="module")
def local_ray() -> None:
    """CPUs for two training workers and for reading data; modules after this one use the same."""
    import ray

    if not ray.is_initialized():
        _shared.enter_context(cluster(cpus=3))


@pytest.fixture(scope="module", autouse=True)
def _no_ray_of_others(request: pytest.FixtureRequest) -> None:
    """A module that has a Ray of its own, or none, does not find that of the one before."""
    if not any(_shares(item) for item in request.session.items if item.path == request.path):
        _shared.close()


def _shares(item: pytest.Item) -> bool:
    return "local_ray" in getattr(item, "fixturenames", ())


def pytest_sessionfinish() -> None:
    _shared.close()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket at an S3 server of this machine, for all tests of this process."""
    with s3_server() as url:
        yield url


@pytest.fixture
def store(bucket: str) -> str:
    """The URL of a folder of one test's own in an object store."""
    return f"{bucket}/{uuid.uuid4().hex}"
