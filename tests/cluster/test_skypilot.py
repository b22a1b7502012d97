"""cluster/skypilot.yaml: its command by our parser, the file by SkyPilot's, in an environment of its own."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ray_mae import cli
from ray_mae.config.urls import as_url
from tests.cluster.head import clean_environment

FILE = Path(__file__).parents[2] / "cluster/skypilot.yaml"
READ = """\
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
kinds = [[bool(r.cloud), r.use_spot, list(r.accelerators)[0], bool(r.job_recovery)] for r in task.resources]
mounts = {path: store.mode.value for path, store in task.storage_mounts.items()}
print(json.dumps([isinstance(task.resources, list), kinds, mounts]))
"""


def test_the_command_is_one_of_ours_on_paths_of_the_bucket() -> None:
    task = yaml.safe_load(FILE.read_text())
    words = shlex.split(task["run"])
    command = words[words.index("ray_mae") + 1 :]
    at = command.index("--config") + 1
    command[at] = command[at].replace(
        "/opt/ray-mae", str(FILE.parents[1])
    )  # where the image has it
    _, config = cli.parsed(command)
    assert "file_mounts" not in task
    assert all(
        as_url(path).startswith("s3://YOUR-BUCKET/") for path in (*config.folders, config.output)
    )
    gpus = {int(each["accelerators"].split(":")[1]) for each in task["resources"]["ordered"]}
    assert gpus == {config.scaling.workers}


@pytest.mark.slow
def test_skypilot_takes_the_file_and_tries_kubernetes_then_spot_then_on_demand() -> None:
    if not shutil.which("uv"):
        pytest.skip("no uv to install SkyPilot with")
    within = ["uv", "run", "--no-project", "--isolated", "--with", "skypilot==0.14.1"]
    if subprocess.run([*within, "true"], env=clean_environment(), capture_output=True).returncode:
        pytest.skip("uv cannot install SkyPilot here: there is no package index")
    done = subprocess.run(
        [*within, "python", "-c", READ, FILE],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    in_order, kinds, mounts = json.loads(done.stdout.splitlines()[-1])
    assert in_order
    assert [(kubernetes, spot) for kubernetes, spot, *_ in kinds] == [
        *((True, False), (False, True), (False, True), (False, False))
    ]
    assert all(recovers for *_, recovers in kinds)
    assert mounts == {}
