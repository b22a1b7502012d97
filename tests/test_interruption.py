"""Signals: one line and an exit code that says which, the second one at once, ignored ones stay ignored."""

import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from ray_mae.cluster.interruption import CODES, Interrupted, StopSignal, signals_interrupt

WAITING = """
import sys, time
from ray_mae import cli
from ray_mae.config import PlanConfig
def wait(config):
    print("waits", flush=True)
    time.sleep(60)
cli.COMMANDS["checkpoint list"] = (cli.COMMANDS["checkpoint list"][0], wait)
sys.argv = ["ray-mae", "checkpoint", "list", "--run", "a b"]
cli.main()
"""
STOPPING = """
import time
from ray_mae.cluster.interruption import StopSignal
with StopSignal() as stop:
    print("waits", flush=True)
    while stop.signum is None:
        time.sleep(0.01)
    print(stop.signum.name, flush=True)
    time.sleep(60)
"""


def start(code: str, *before: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "waits\n"
    return process


@pytest.mark.parametrize(("signum", "code"), CODES.items())
def test_a_command_ends_with_one_line_that_says_how_to_go_on(
    signum: signal.Signals, code: int
) -> None:
    process = start(WAITING)
    process.send_signal(signum)
    assert process.communicate(timeout=30)[1] == (
        f"ray-mae: {signum.name}; nothing is left to go on with, so the same command begins anew: "
        "ray-mae checkpoint list --run 'a b'\n"
    )
    assert process.returncode == code


def test_the_second_signal_ends_at_once() -> None:
    process = start(STOPPING)
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "SIGTERM\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == "ray-mae: ended at once\n"
    assert process.returncode == 130


def test_what_nohup_ignores_stays_ignored() -> None:
    process = start(STOPPING, "nohup")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "SIGTERM\n"
    process.kill()
    process.wait()


def test_handlers_of_before_are_back_after_a_block_and_other_threads_have_none() -> None:
    before = {signum: signal.getsignal(signum) for signum in CODES}
    with pytest.raises(Interrupted, match="SIGUSR1") as stopped, signals_interrupt():
        signal.raise_signal(signal.SIGUSR1)
    assert stopped.value.code == 75
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
    assert {signum: signal.getsignal(signum) for signum in CODES} == before
    within = []

    def in_thread() -> None:
        with StopSignal() as stop, signals_interrupt():
            within.append(stop.signum)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert within == [None]


def test_a_ray_that_cannot_start_is_one_line_with_the_cause() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as blocked:  # Ray wants a short path
        last = last_line_of_ray_in(blocked.name)
    assert last.startswith("RuntimeError: Ray could not be started on this machine: ")
    assert blocked.name in last


def last_line_of_ray_in(folder: str) -> str:
    code = "from ray_mae.cluster.runtime import connect; connect()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_TMPDIR": folder, "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stderr.strip().splitlines()[-1]
