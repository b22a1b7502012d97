"""The script of what wants a GPU does all of it on a CPU at toy size, so that it works on the day."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


@pytest.mark.slow
def test_the_gpu_script_runs_at_toy_size() -> None:
    done = subprocess.run(
        [SCRIPT, "--toy"],
        env={**os.environ, "PYTHON": sys.executable, "COLUMNS": "250"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Not measured" not in done.stdout
    for row in ("MVMAE-V2T ViT-B", "decode_share 0.25", "ZeRO 1", "DDP, compiled", "simmim resenc"):
        assert row in done.stdout


def test_a_part_that_nobody_knows_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--toy", "--parts", "vit"],
        cwd=SCRIPT.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there are precision, base" in done.stderr
