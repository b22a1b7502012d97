"""A cluster without nodes gets those that a job wants, and is without nodes again after it.

Real raylets on this machine, started and ended by Ray's autoscaler. `tests.benchmarks.autoscaling` also
takes a node away.
"""

import json
import time
from pathlib import Path

from ray_mae.train.checkpoint import find_checkpoint, read_state
from tests.benchmarks.autoscaling import POOLS, Pool, start_ingest, start_run
from tests.cluster.head import head


def test_jobs_get_their_nodes_from_none_and_give_them_back(tmp_path: Path) -> None:
    with head(cpus=0, pools=POOLS, idle_s=6) as cluster, Pool(cluster).watched() as pool:
        ingest = start_ingest(cluster, tmp_path, studies=48, side=300)
        said, _ = ingest.communicate()
        assert ingest.returncode == 0, said
        assert "no CPUs now: the work waits until it has grown" in said
        assert any(nodes.get("cpu") for _, nodes in pool.trace)

        run = start_run(cluster, tmp_path, steps=4)
        said, _ = run.communicate()
        assert run.returncode == 0, said
        assert "the run waits until the cluster has grown" in said
        assert "waiting for nodes: 2 × (2 CPU) are asked for" in said
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 4
        assert read_state(find_checkpoint(tmp_path / "run"))["workers"] == 2
        assert max(nodes.get("train", 0) for _, nodes in pool.trace) == 2

        until = time.monotonic() + 120
        while pool.raylets():
            assert time.monotonic() < until, pool.trace
            time.sleep(0.5)
