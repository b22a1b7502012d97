"""One Ray for a test module that wants it: `pytest.mark.usefixtures("local_ray")`."""

import signal
from collections.abc import Iterator

import pytest

from ray_mae.cluster.runtime import cluster


def pytest_configure() -> None:
    """Signals that a shell's `&` or nohup has had this process ignore, and so every command of a test."""
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
