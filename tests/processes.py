"""Processes that a test started."""

import psutil


def kill_a_worker() -> None:
    """SIGKILL to one training worker of a Ray that this process started."""
    children = psutil.Process().children(recursive=True)
    workers = [p for p in children if "RayTrainWorker" in " ".join(p.cmdline())]
    workers[-1].kill()
