"""CPUs that an elastic run leaves for reading data."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    DefaultAutoscalingCoordinator,
    ResourceRequestPriority,
)

_AGAIN, _EXPIRES = 20.0, 90.0  # seconds


@contextmanager
def spare_cpus(count: int) -> Iterator[None]:
    """Have Ray's autoscaling coordinator count so many CPUs as taken, in the time of a block.

    An elastic group of workers grows into whatever the coordinator has left; on CPUs it would take all of
    them, and wait for ever for data that nobody has room to read.
    """
    ended, asked = threading.Event(), threading.Event()

    def ask() -> None:  # its client belongs to one thread
        coordinator = DefaultAutoscalingCoordinator(f"ray-mae-{uuid.uuid4().hex[:8]}")
        while True:
            coordinator.request_resources(
                [{"CPU": 1.0}] * count, _EXPIRES, priority=ResourceRequestPriority.HIGH
            )
            asked.set()
            if ended.wait(_AGAIN):
                break
        coordinator.cancel_request()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    asked.wait(_AGAIN)
    try:
        yield
    finally:
        ended.set()
        thread.join()
