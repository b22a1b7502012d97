"""Runs that write to an object store, at an S3 server of this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from upath import UPath

from ray_mae import cli
from ray_mae.checkpoint.format import committed, last_committed, read_state
from ray_mae.cluster.runtime import cluster
from ray_mae.config import (
    CheckpointConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.config.base import to_dict
from ray_mae.config.urls import opened
from ray_mae.inference.load import load_encoder
from ray_mae.run import pretrain
from ray_mae.store import fetch
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS, METRICS, PROBES, last_pictures
from tests.data.test_object_store import upload
from tests.processes import kill_a_worker
from tests.settings import sections
from tests.shards import write_volume_shards

pytestmark = pytest.mark.slow

STEPS, EVERY = 24, 4


@pytest.fixture(scope="module", autouse=True)
def ray(bucket: str) -> Iterator[None]:
    """Begun with the server's address in the environment, which its workers have as well."""
    with cluster(cpus=3):
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "volumes"
    write_volume_shards(folder)
    return folder


def config_of(shards: Path, output: Path | str) -> PretrainConfig:
    return PretrainConfig(
        shards=shards,
        output=output,  # type: ignore[arg-type]
        **sections("mdae", preset="tiny", crop_size=16, block_size=4, shuffle_window=8),
        optim=OptimConfig(batch_size=4, micro_batch_size=2, steps=STEPS, optimizer="sgd", lr=0.02),
        scaling=ScalingConfig(
            workers=2, cpus_per_worker=0.5, max_failures=-1, storage_patience=90.0
        ),
        checkpoint=CheckpointConfig(every=EVERY),
        tracking=TrackingConfig(every=1, pictures_every=EVERY, pictures=1),
    )


def losses(run: Path) -> list[float]:
    records = read_jsonl(run / METRICS)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return [record["loss"] for record in records]


@pytest.fixture(scope="module")
def on_disk(shards: Path, tmp_path_factory: pytest.TempPathFactory, ray: None) -> PretrainConfig:
    config = config_of(shards, tmp_path_factory.mktemp("runs") / "undisturbed")
    pretrain(config)
    return config


def test_a_killed_run_goes_on_in_the_store_as_if_nothing_had_been(
    on_disk: PretrainConfig, bucket: str, tmp_path: Path
) -> None:
    """Driver and all are killed after a checkpoint, then a worker of the same command.

    The shards lie there, too, and what goes on has a part of them in the node's cache.
    """
    run, data = opened(Path(f"{bucket}/runs/killed")), on_disk.data
    upload(on_disk.folders[0], UPath(f"{bucket}/shards"))
    data = replace(data, cache=tmp_path / "cache", cache_gib=0.1)
    config = replace(on_disk, shards=Path(f"{bucket}/shards"), output=run, data=data)
    assert to_dict(config)["shards"] == f"{bucket}/shards"
    with pytest.raises(ValueError, match=r"data.cache is for shards in an object store"):
        pretrain(replace(on_disk, output=tmp_path / "other", data=data))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    program = Path(sys.executable).parent / "ray-mae"
    command = [str(program), "pretrain", "--config", str(tmp_path / "run.yaml")]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.time() + 400
    while last_committed(run) is None:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = read_state(last_committed(run) or run)["step"]
    assert 0 < first < STEPS
    left = run / "checkpoint_2020-01-01_00-00-00.000000" / "model.safetensors"
    left.write_bytes(b"half of it")  # as of a worker that was killed

    def starts() -> int:
        return sum(e["event"] == "first step" for e in read_jsonl(run / EVENTS))

    before = starts()

    def kill() -> None:
        while starts() <= before:
            time.sleep(0.05)
        kill_a_worker()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = pretrain(config)
    killer.join(1)
    assert not killer.is_alive()
    assert first <= summary["continued_from_step"] < STEPS
    assert summary["worker_restarts"] == 1
    np.testing.assert_allclose(losses(run), losses(on_disk.output), rtol=1e-6)
    assert len(list((tmp_path / "cache").glob("*/??/*"))) > 4
    assert yaml.safe_load((run / "config.yaml").read_text())["shards"] == [f"{bucket}/shards"]
    assert not left.exists()
    assert [metrics["step"] for _, metrics in committed(run)][-1] == STEPS
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "README.md", "summary.json", METRICS, EVENTS, "tensorboard"} <= names
    assert not [name for name in names if name.endswith(".parts")]
    assert len(last_pictures(run)) == len(last_pictures(on_disk.output)) > 0
    encoder, _ = load_encoder(f"{bucket}/runs/killed")
    same, _ = load_encoder(on_disk.output)
    for name, weight in same.state_dict().items():
        np.testing.assert_allclose(encoder.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


SEARCH = {
    "run": {
        "method": {"name": "mdae", "block_size": 4},
        "encoder": {"name": "resenc", "preset": "tiny", "crop_size": 16},
        "optim": {"lr": 0.001, "steps": 8, "batch_size": 4, "micro_batch_size": 4},
        "scaling": {"workers": 1, "gpu": False, "cpus_per_worker": 0.5},
        "probe": {"bootstrap": 50, "min_positive": 3, "label_counts": []},
        "tracking": {"every": 2, "pictures": 0},
    },
    "space": {"optim.lr": {"grid": [1e-3]}},
    "asha": {"stop": False},
    "probes": 2,
    "at_once": 1,
    "repeat": {"best": 0},
}


def test_a_search_lies_in_the_store_and_its_best_run_is_used_from_there(
    bucket: str, tmp_path: Path
) -> None:
    """Then `evaluate probe`, `embed`, `evaluate finetune` and `predict` read from there and write there."""
    shards = tmp_path / "shards"
    write_volume_shards(shards, train=24, held_out=16)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SEARCH))
    output = f"{bucket}/searches/a"
    words = ["tune", "--config", str(tmp_path / "s.yaml"), "--shards", str(shards)]
    cli.run([*words, "--output", output])
    found = opened(Path(output))
    summary = json.loads((found / "summary.json").read_text())
    assert summary["trials"]["ended"] == 1
    assert summary["report"] == f"{output}/report.html"
    assert (found / "report.html").read_bytes().startswith(b"<!")
    trial = found / "search" / "0000"
    names = {path.name for path in trial.iterdir()}
    assert {"config.yaml", PROBES, "probes", "log.txt", "tensorboard", METRICS} <= names
    boards = {path.name.rpartition(".")[2] for path in (trial / "tensorboard").iterdir()}
    assert {"probe", "hparams"} <= boards
    with pytest.raises(ValueError, match="holds a search: add --resume true"):
        cli.run([*words, "--output", output])
    cli.run([*words, "--output", output, "--resume", "true"])
    cli.run(["tune", "report", "--output", output])

    run = f"{output}/search/0000"
    common = ["--checkpoint", run, "--shards", str(shards)]
    cli.run(["evaluate", "probe", *common, "--output", f"{bucket}/probe", "--bootstrap", "20"])
    place = opened(Path(f"{bucket}/probe"))
    assert json.loads((place / "summary.json").read_text())["report"] == f"{place}/report.html"
    assert {"probe.json", "probe.csv", "predictions.parquet"} <= {p.name for p in place.iterdir()}
    cli.run(["embed", *common, "--output", f"{bucket}/embeddings"])
    table = pq.read_table(fetch(opened(Path(f"{bucket}/embeddings/embeddings.parquet"))))
    assert len(table) == 24 + 16 + 16
    tuned = ["--seeds", "[0]", "--compare", "[trained]", "--epochs", "1", "--bootstrap", "20"]
    cli.run(["evaluate", "finetune", *common, "--output", f"{bucket}/finetune", *tuned])
    model = f"{bucket}/finetune/models/trained-seed0"
    assert read_jsonl(opened(Path(model)) / "history.jsonl")
    given = ["--checkpoint", model, "--source", str(shards), "--format", "shards"]
    cli.run(["predict", *given, "--output", f"{bucket}/predicted"])
    assert opened(Path(f"{bucket}/predicted/predictions.parquet")).is_file()
    cli.run(["checkpoint", "list", "--run", run])
    cli.run(["checkpoint", "verify", "--path", run])
    convert = ["checkpoint", "convert", "--checkpoint", run, "--output", f"{bucket}/weights"]
    cli.run([*convert, "--to", "weights"])
    cli.run(["checkpoint", "inspect", "--path", f"{bucket}/weights"])
    cli.run(["export", "--checkpoint", run, "--output", f"{bucket}/exported"])
    exported, _ = load_encoder(f"{bucket}/exported")
    same, _ = load_encoder(run)
    for name, weight in same.state_dict().items():
        np.testing.assert_array_equal(exported.state_dict()[name], weight)
