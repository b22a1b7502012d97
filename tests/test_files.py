"""Results appear as a whole or not at all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ray_mae
from ray_mae.data.schema import Manifest, Shard
from ray_mae.files import replacing, write_whole
from ray_mae.summary import FILE, write_summary

FULL = """
import resource, signal, sys
from pathlib import Path
from ray_mae.data.schema import Manifest, Shard
from ray_mae.summary import write_summary
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
folder = Path(sys.argv[1])
failed = 0
shards = [Shard(f"train-{i:05d}.parquet", "train", 1, [1], 1, 1, "0" * 64) for i in range(20)]
for work in (
    lambda: Manifest("study", "a", 1, shards).write(folder),
    lambda: write_summary(folder, {"a": "x" * 500}),
):
    try:
        work()
    except OSError:
        failed += 1
sys.exit(failed)
"""


def test_where_there_is_no_room_the_file_of_before_stays(tmp_path: Path) -> None:
    """Files of more than 100 bytes cannot be written, as on a full disk."""
    shard = Shard("train-00000.parquet", "train", 1, [1], 1, 1, "0" * 64)
    Manifest("study", "before", 1, [shard]).write(tmp_path)
    write_summary(tmp_path, {"before": 1})
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {*files} == {Manifest.FILE, FILE}
    ended = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=False)
    assert ended.returncode == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_an_error_while_a_file_is_written_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "a") as file:
            file.write_text("half")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert not list(tmp_path.iterdir())
    write_whole(tmp_path / "a", "ü")
    assert (tmp_path / "a").read_bytes() == "ü".encode()


def test_no_module_writes_results_in_place() -> None:
    """`write_whole`, `replacing` or `atomic_write` do it, but for what lies in a temporary folder."""
    package = Path(ray_mae.__file__).parent
    in_place = {
        "files.py": 1,  # write_whole itself
        "train/trainer.py": 1,  # error.txt: the last that is written
        "evaluate/supervised/runs.py": 1,  # the same
        "train/checkpointing.py": 1,  # parts of a checkpoint, before they are copied
        "checkpoint/integrity.py": 1,
        "data/ingest/shards.py": 1,  # within atomic_write
        "data/ingest/earlier.py": 1,  # the same
        "data/decoding/decoder_requests.py": 1,  # of the kernel
        "health/command.py": 1,  # files that test a disk
        "evaluate/segment/command.py": 1,  # pictures
    }
    found = {
        str(file.relative_to(package)): len(calls)
        for file in package.rglob("*.py")
        if "phantoms" not in file.parts
        and (calls := re.findall(r"\.write_(?:text|bytes)\(", file.read_text()))
    }
    found["files.py"] -= 1  # of a store, which shows an object whole
    assert found == in_place
