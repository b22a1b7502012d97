"""CPUs that an elastic run leaves for reading data, and a fresh look at what there is."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    get_or_create_autoscaling_coordinator,
)

_LOOK, _EXPIRES = 1.0, 90.0  # seconds


@contextmanager
def spare_cpus(count: int) -> Iterator[None]:
    """Have Ray's autoscaling coordinator count so many CPUs as taken, in the time of a block.

    An elastic group of workers grows into whatever the coordinator has left; on CPUs it would take all of
    them, and wait for ever for data that nobody has room to read. And it would try to start again with a
    node that died since the coordinator's last look, up to 20 s ago, and wait minutes for its place.
    """
    ended, asked = threading.Event(), threading.Event()
    name = f"ray-mae-{uuid.uuid4().hex[:8]}"

    def ask() -> None:
        coordinator = get_or_create_autoscaling_coordinator()
        while True:
            coordinator.request_resources.remote(
                requester_id=name,
                resources=[{"CPU": 1.0}] * count,
                expire_after_s=_EXPIRES,
                priority=ResourceRequestPriority.HIGH,
            )
            ray.get(coordinator.get_reserved_resources.remote(name, recompute=True))
            asked.set()
            if ended.wait(_LOOK):
                break
        coordinator.cancel_request.remote(name)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    asked.wait(_EXPIRES)
    try:
        yield
    finally:
        ended.set()
        thread.join(_EXPIRES)
