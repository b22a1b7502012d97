"""A Ray cluster of one node as an administrator starts it, with a token, for tests to submit to."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_HEAD_ID = "f" * 51 + "00000"
"""What the provider of pools calls the head."""


_EVERYWHERE = {
    # tests run under `uv run`, from which Ray's hook would have nodes build environments
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_metrics_report_interval_ms": "1000",  # a run's end waits for the next report
}
"""Environment of nodes and drivers."""


@dataclass(frozen=True)
class Head:
    """A running cluster."""

    address: str
    token: Path
    agent: int
    """Port of the node's agent, which answers probes."""
    gcs: str
    """RAY_ADDRESS of a driver on this machine."""
    temporary: Path
    """Ray's temporary folder."""
    process: psutil.Process

    def environment(self) -> dict[str, str]:
        """What a user's shell has who may submit."""
        return clean_environment() | {"RAY_AUTH_TOKEN_PATH": str(self.token)}

    def driver_environment(self) -> dict[str, str]:
        """What a command has that joins the cluster, on this machine."""
        joined = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": self.gcs}
        return self.environment() | joined | _EVERYWHERE


def clean_environment() -> dict[str, str]:
    """This process's environment without Ray's settings; its Python first."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def head(
    cpus: int, pools: dict[str, Any] | None = None, idle_s: float = 12, **variables: str
) -> Iterator[Head]:
    """`ray start --head` on free ports of loopback, ended process by process.

    pools: types of nodes that Ray's autoscaler starts on this machine when work asks for them, and ends
    after `idle_s`; variables: further environment of the node, as secrets are.
    """
    # not pytest's folder: the names of Ray's sockets lie below it and may have 107 characters
    with tempfile.TemporaryDirectory(prefix="h", ignore_cleanup_errors=True) as scratch:
        yield from _head(Path(scratch), cpus, pools, idle_s, variables)


def _head(
    scratch: Path,
    cpus: int,
    pools: dict[str, Any] | None,
    idle_s: float,
    variables: dict[str, str],
) -> Iterator[Head]:
    token = scratch / "token"
    token.write_text(secrets.token_hex(32))
    ports = free_ports(5)
    gcs = f"127.0.0.1:{ports[0]}"
    command = [
        "ray",
        *f"start --head --block --num-cpus={cpus} --node-ip-address=127.0.0.1".split(),
        *f"--port={ports[0]} --dashboard-port={ports[1]} --dashboard-host=127.0.0.1".split(),
        *f"--dashboard-agent-listen-port={ports[2]} --metrics-export-port={ports[3]}".split(),
        *f"--ray-client-server-port={ports[4]} --object-store-memory=200000000".split(),
        f"--temp-dir={scratch}/ray",
        "--disable-usage-stats",
    ]
    variables |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_maximum_startup_concurrency": "8",
        "RAY_raylet_start_wait_time_s": "120",
    } | _EVERYWHERE
    if pools:
        (scratch / "pools.json").write_text(json.dumps(_autoscaling(gcs, pools, idle_s)))
        command.append(f"--autoscaling-config={scratch}/pools.json")
        variables |= {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
    with (scratch / "head.log").open("w") as log:
        started = subprocess.Popen(
            command, env=clean_environment() | variables, stdout=log, stderr=log
        )
    process = psutil.Process(started.pid)
    try:
        _wait_for("127.0.0.1", ports[1], started)
        yield Head(f"http://127.0.0.1:{ports[1]}", token, ports[2], gcs, scratch / "ray", process)
    finally:
        family = [process, *process.children(recursive=True)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        _, alive = psutil.wait_procs(family, timeout=2)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        started.wait(10)


def _autoscaling(gcs: str, pools: dict[str, Any], idle_s: float) -> dict[str, Any]:
    """Settings of Ray's autoscaler for its provider of nodes that are processes of this machine.

    As an external provider, since the package lacks the example that its own name for it wants.
    """
    none = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    lists = (
        "initialization_commands setup_commands head_setup_commands worker_setup_commands".split()
    )
    lists += "head_start_ray_commands worker_start_ray_commands cluster_synced_files".split()
    return {
        "cluster_name": "pools",
        "max_workers": sum(pool["max_workers"] for pool in pools.values()),
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": module,
            "gcs_address": gcs,
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
        },
        "auth": {"ssh_user": "nobody"},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": none,
            **{name: {"node_config": {}, "min_workers": 0, **p} for name, p in pools.items()},
        },
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{name: [] for name in lists},
    }


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(host: str, port: int, started: subprocess.Popen) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=1).close()
            return
        if started.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError(f"no Ray head came up (exit code {started.poll()})")
