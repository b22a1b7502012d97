"""A run on a cluster that grows and loses a node, by real raylets: nothing of the run is lost."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from ray_mae.checkpoint.format import committed, last_committed, read_state
from ray_mae.config import CheckpointConfig, PretrainConfig, ScalingConfig
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import EVENTS, METRICS, RunFolder
from tests.distributed.test_pretrain import volume_run_of
from tests.shards import write_volume_shards

pytestmark = pytest.mark.slow

STEPS = 3000  # more than there is time for


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
    monkeypatch.setenv(
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1"
    )  # a Ray before this one needed none
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


class Run:
    """A pretraining in a thread, which can be looked at and ended."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        try:
            pretrain(self.config)
        except BaseException as error:
            self.error = error

    def events(self, start: str) -> list[dict[str, Any]]:
        return [e for e in read_jsonl(self.config.output / EVENTS) if e["event"].startswith(start)]

    def losses(self) -> dict[int, float]:
        return {r["step"]: r["loss"] for r in read_jsonl(self.config.output / METRICS)}

    def until(self, what: Callable[[], Any]) -> None:
        deadline = time.time() + 300
        while not what():
            assert self._thread.is_alive(), self.error
            assert time.time() < deadline
            time.sleep(0.1)

    def end(self) -> None:
        """As if it had been started again elsewhere."""
        RunFolder.begin(self.config.output, patience=10)
        self._thread.join(200)
        assert "started again elsewhere" in str(self.error)


@pytest.mark.timeout(1500)
def test_a_run_grows_and_survives_a_node_that_is_taken_away(
    tmp_path: Path, cluster: Cluster
) -> None:
    """One worker, two, a notice, one again: every step once, with the losses of one worker alone."""
    write_volume_shards(tmp_path / "volumes")
    config = volume_run_of(tmp_path / "volumes", tmp_path / "elastic")
    config = replace(
        config,
        optim=replace(config.optim, steps=STEPS, lr=1e-3),
        scaling=ScalingConfig(  # one fits beside a reader of data on the head, and one on the new node
            workers=(1, 2),
            resize_every=1,
            cpus_per_worker=2,
            threads_per_worker=1,
            max_failures=2,  # Ray does not always know that a node that died was to be preempted
        ),
        checkpoint=CheckpointConfig(every=20),
        tracking=replace(config.tracking, pictures=0),
    )
    run = Run(config)
    run.until(lambda: len(run.losses()) > 25)
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    run.until(lambda: len(run.events("first step")) == 2)
    ray_command = Path(sys.executable).parent / "ray"
    notice = "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot --deadline-remaining-seconds 600"
    subprocess.run(
        [str(ray_command), "drain-node", "--node-id", node.node_id, *notice.split()],
        check=True,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
    )
    run.until(lambda: run.events("notice"))
    told = run.events("notice")[0]["event"]
    at = int(told.split()[-1])
    run.until(lambda: at in [m["step"] for _, m in committed(config.output)])
    cluster.remove_node(node, allow_graceful=False)
    run.until(lambda: run.events("worker ready")[-1]["workers"] == 1)
    again = run.events("worker ready")[-1]["time"]
    run.until(lambda: run.events("first step")[-1]["time"] > again)
    third = run.events("engine ready")[-1]["first_step"]
    run.until(lambda: max(run.losses()) > third + 5)
    run.end()

    ready = [e["workers"] for e in run.events("worker ready")]
    assert ready[0] == ready[-1] == 1
    assert 2 in ready
    assert third >= at  # no step was lost but those after the notice
    last = last_committed(config.output)
    assert last
    assert read_state(last)["workers"] in (1, 2)
    elastic = run.losses()
    assert list(elastic) == list(range(1, len(elastic) + 1))

    alone = Run(
        replace(config, output=tmp_path / "alone", scaling=replace(config.scaling, workers=1))
    )
    alone.until(lambda: len(alone.losses()) > third + 3)
    alone.end()
    steps = range(1, third + 4)
    np.testing.assert_allclose(
        [elastic[s] for s in steps], [alone.losses()[s] for s in steps], rtol=1e-3
    )
