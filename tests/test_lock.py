"""One command at a time in a folder; whoever is dead keeps nobody out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ray_mae import lock
from ray_mae.lock import FILE, InUseError, hold

HOLDER = """
import sys, time
from pathlib import Path
from ray_mae.lock import hold
with hold(Path(sys.argv[1]), "ray-mae pretrain"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.5)


def start(folder: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_is_refused_with_who_has_it_and_a_killed_owner_keeps_nothing(
    tmp_path: Path,
) -> None:
    holder = start(tmp_path)
    try:
        with (
            pytest.raises(
                InUseError,
                match=rf"in use by `ray-mae pretrain` of .* \(process {holder.pid} on .*\) since 20",
            ),
            hold(tmp_path, "ray-mae ingest"),
        ):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert json.loads((tmp_path / FILE).read_text())["pid"] == holder.pid
    began = time.monotonic()
    with hold(tmp_path, "ray-mae ingest"):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 1
    assert not (tmp_path / FILE).exists()


def test_two_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with (
        hold(tmp_path, "ray-mae pretrain"),
        pytest.raises(InUseError, match=f"process {os.getpid()}"),
        hold(tmp_path, "ray-mae pretrain"),
    ):
        pass
    with hold(tmp_path, "ray-mae pretrain"):
        pass


@pytest.mark.parametrize("alive", [True, False])
def test_of_another_machine_the_heartbeat_tells(tmp_path: Path, quick: None, alive: bool) -> None:
    """Where locks are only for each machine by itself, as of NFS mounted with nolock."""
    owner = {"command": "ray-mae tune", "host": "elsewhere", "pid": 1, "user": "x", "since": "now"}
    (tmp_path / FILE).write_text(json.dumps(owner))
    ended = threading.Event()
    if alive:
        file = os.open(tmp_path / FILE, os.O_RDWR)
        threading.Thread(target=lock._beat, args=(file, ended), daemon=True).start()
    try:
        if alive:
            with (
                pytest.raises(InUseError, match=r"process 1 on elsewhere"),
                hold(tmp_path, "ray-mae tune"),
            ):
                pass
        else:
            with hold(tmp_path, "ray-mae tune"):
                pass
    finally:
        ended.set()


def test_many_at_once_have_it_one_after_the_other(tmp_path: Path) -> None:
    inside, most, refused = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, refused
        for _ in range(100):
            try:
                with hold(tmp_path, "ray-mae ingest"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.0005)
                    inside -= 1
            except InUseError:
                refused += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 400
