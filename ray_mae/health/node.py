"""The facts of one node. `Node` runs there, as a Ray actor that takes no CPU."""

import hashlib
import importlib.util
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ray_mae.data.paths import resolve_path
from ray_mae.data.schema import Manifest

PACKAGES = ("ray-mae", "torch", "ray", "deepspeed", "pyarrow")
DASHBOARD_PARTS = ("aiohttp", "aiohttp_cors", "prometheus_client", "opentelemetry", "opencensus")
"""Modules that `ray[default]` brings: without them there is no dashboard, no job, no metric."""
_BLOCK = 2**20


class Node:
    """Answers questions about the machine it runs on."""

    def now(self) -> float:
        """Returns Unix time by this machine's clock, in seconds."""
        return time.time()

    def facts(self) -> dict[str, Any]:
        """Returns what needs no storage: versions, shared memory (bytes), disk, limits, missing modules."""
        shared = Path("/dev/shm")
        return {
            "versions": {"python": platform.python_version(), **_versions()},
            "shm": shutil.disk_usage(shared).total if shared.is_dir() else 0,
            "temporary": _disk(Path(os.environ.get("RAY_TMPDIR", "/tmp"))),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "missing_parts": [p for p in DASHBOARD_PARTS if importlib.util.find_spec(p) is None],
        }

    def accelerators(self, timeout: float) -> dict[str, Any]:
        """Returns what `ray_mae.health.accelerators` prints, whatever GPUs Ray has given to others."""
        return _run_module("ray_mae.health.accelerators", timeout=timeout)

    def free_port(self) -> int:
        """Returns a port that nobody listens on now."""
        with socket.socket() as free:
            free.bind(("", 0))
            port: int = free.getsockname()[1]
        return port

    def network(self, timeout: float, *arguments: Any) -> dict[str, Any]:
        """Returns what `ray_mae.health.network` prints, which runs on other nodes at the same time."""
        return _run_module("ray_mae.health.network", *map(str, arguments), timeout=timeout)

    def metrics(self, address: str, port: int) -> str | None:
        """Asks this node's agent for its metrics; returns what went wrong, if anything."""
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this node
        try:
            with directly.open(f"http://{address}:{port}/metrics", timeout=10) as answer:
                answer.read(64)
        except OSError as error:
            return str(error)
        return None

    def write(self, folder: Path, megabytes: int, marker: str) -> dict[str, Any]:
        """Writes a file to a folder and reads it back.

        Args:
            folder: where runs will be written.
            megabytes: size of the file.
            marker: name of a file that the driver wrote to the folder.

        Returns:
            `seen`: whether the marker is there; `write` and `read`: MB/s; `free`: bytes, None in an
            object store. Or `error`.
        """
        where = resolve_path(folder)
        file = where / f".doctor-{uuid.uuid4().hex}"
        block = os.urandom(_BLOCK)
        try:
            seen = (where / marker).is_file()
            began = time.perf_counter()
            with file.open("wb") as out:
                for _ in range(megabytes):
                    out.write(block)
                _flush_to_disk(out)
            middle = time.perf_counter()
            size = _read(file)
            end = time.perf_counter()
        except OSError as error:
            return {"error": _message(error)}
        finally:
            _remove(file)
        if size != megabytes * _BLOCK:
            return {"error": f"{size} of {megabytes * _BLOCK} bytes came back"}
        total = size / 1e6
        return {
            "seen": seen,
            "write": total / (middle - began),
            "read": total / (end - middle),
            "free": None if "://" in str(where) else _disk(where)["free"],
        }

    def shards(self, folder: Path, megabytes: int) -> dict[str, Any]:
        """Reads some of the largest shard.

        Returns:
            `sha256` of the manifest, `files`: shards, `wrong`: those of another size than it says, and
            `read`: MB/s. Or `error`.
        """
        where = resolve_path(folder)
        try:
            manifest = Manifest.read(folder)
            text = (where / Manifest.FILE).read_bytes()
            wrong = [s.file for s in manifest.shards if (where / s.file).stat().st_size != s.bytes]
            largest = max(manifest.shards, key=lambda s: s.bytes)
            began = time.perf_counter()
            size = _read(where / largest.file, megabytes * _BLOCK)
            seconds = time.perf_counter() - began
        except (OSError, ValueError) as error:
            return {"error": _message(error)}
        return {
            "sha256": hashlib.sha256(text).hexdigest(),
            "wrong": wrong,
            "files": len(manifest.shards),
            "read": size / 1e6 / seconds,
        }


def _run_module(module: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Returns the JSON that a module prints last, or `error`; it sees all GPUs. timeout: seconds."""
    hidden = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    command = [sys.executable, "-m", module, *arguments]
    try:
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:g} s"}
    if process.returncode:
        return {"error": (process.stderr.strip().splitlines() or ["no message"])[-1]}
    facts: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    return facts


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return versions


def _disk(folder: Path) -> dict[str, float]:
    usage = shutil.disk_usage(folder)
    return {"free": usage.free, "used": usage.used / max(1, usage.used + usage.free)}


def _flush_to_disk(out: Any) -> None:
    """Flushes a file to the disk and out of memory, so that it is read from the disk."""
    out.flush()
    try:
        descriptor = out.fileno()
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except (OSError, AttributeError):  # an object store has no file
        return


def _read(file: Path, most: int | None = None) -> int:
    size = 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            size += len(block)
            if most is not None and size >= most:
                break
    return size


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__
