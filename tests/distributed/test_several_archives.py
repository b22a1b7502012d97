"""A run over the shards of two archives with shares, on real Ray workers."""

import io
import shutil
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae import cli
from ray_mae.checkpoint.format import fingerprint, last_committed, read_state
from ray_mae.config import PretrainConfig
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.run import pretrain
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import METRICS
from ray_mae.train.setup import order_of
from tests.distributed.test_elastic import Run
from tests.shards import rewrite, write_shards

pytestmark = pytest.mark.slow

STEPS, BATCH, EVERY = 48, 8, 8
SETTINGS = f"""
--method.gamma 0 --method.beta 20 --method.mask_ratio 0.5
--method.decoder_width 32 --method.decoder_depth 1 --method.decoder_heads 2
--encoder.preset tiny --encoder.image_size 32 --encoder.patch_size 8
--encoder.width 32 --encoder.depth 2 --encoder.heads 2
--data.shuffle_window 8 --engine.precision fp32
--optim.batch_size {BATCH} --optim.micro_batch_size 2 --optim.steps {STEPS} --optim.base_lr 0.05
--scaling.workers 2 --scaling.cpus_per_worker 0.5
--checkpoint.every {EVERY} --tracking.every 1 --tracking.pictures 0
"""


@dataclass
class Archives:
    """Shards of two, and a run over them that nothing disturbed."""

    a: Path
    b: Path
    run: Path
    said: str = ""
    """On standard output."""
    summary: dict[str, Any] = field(default_factory=dict)

    def config(self, output: Path, shares: str = "[3,1]") -> PretrainConfig:
        """Settings of another run, as the command line reads them."""
        words = ["pretrain", "--shards", f"[{self.a},{self.b}]", "--shares", shares]
        config = cli.parsed([*words, "--output", str(output), *SETTINGS.split()])[1]
        assert isinstance(config, PretrainConfig)
        return config


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Archives:
    folder = tmp_path_factory.mktemp("archives")
    made = Archives(folder / "a", folder / "b", folder / "run")
    write_shards(made.a, train=24)
    write_shards(made.b, train=10, size=56)

    def rename(row: dict[str, Any]) -> None:
        row["study_id"] = f"b-{row['study_id']}"
        if row["patient_id"] == "val-patient-0":
            row["patient_id"] = "train-patient-1"  # whom A trains on
        elif row["patient_id"] != "train-patient-0":  # who is in both
            row["patient_id"] = f"b-{row['patient_id']}"

    rewrite(made.b, rename)
    for path, name in ((made.a, "alpha"), (made.b, "beta")):
        replace(Manifest.read(path), dataset=name).write(path)
    with redirect_stdout(io.StringIO()) as said:
        summary = pretrain(made.config(made.run))
    return replace(made, said=said.getvalue(), summary=summary)


def losses(run: Path) -> list[float]:
    records = read_jsonl(run / METRICS)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return [record["loss"] for record in records]


def drawn(archives: Archives) -> list[Counter[int]]:
    """Samples of each archive by step, as the order of the run deals them."""
    config = archives.config(archives.run)
    order = order_of(config, ShardSet.read(config.folders, config.shares))
    steps = (order.locations(s * BATCH, (s + 1) * BATCH) for s in range(STEPS))
    return [Counter(place.folder for place in places) for places in steps]


def test_each_archive_has_its_share_of_the_samples(archives: Archives) -> None:
    records = read_jsonl(archives.run / METRICS)
    total = Counter[int]()
    for step, (record, of_step) in enumerate(zip(records, drawn(archives), strict=True), start=1):
        total += of_step
        assert (record["samples/alpha"], record["samples/beta"]) == (total[0], total[1])
        assert record["samples"] == total.total() == step * BATCH
    assert total[0] / total.total() == pytest.approx(0.75, abs=0.05)


def test_the_loss_of_each_archive_is_that_of_its_samples(archives: Archives) -> None:
    """Weighted by how many samples of a step are of each they give the loss of the step."""
    for record, of_step in zip(read_jsonl(archives.run / METRICS), drawn(archives), strict=True):
        each = {i: record.get(f"loss/{name}") for i, name in enumerate(("alpha", "beta"))}
        assert {i for i, loss in each.items() if loss is not None} == set(of_step)
        whole = sum(n * (each[i] or 0.0) for i, n in of_step.items()) / BATCH
        assert record["loss"] == pytest.approx(whole, rel=1e-4)
    assert losses(archives.run)[-1] < losses(archives.run)[0] * 0.9  # it learns


def test_a_checkpoint_knows_both_archives(archives: Archives) -> None:
    last = last_committed(archives.run)
    assert last is not None
    assert read_state(last)["shards"] == [
        {"dataset": "alpha", "share": 0.75, "sha256": fingerprint(archives.a)},
        {"dataset": "beta", "share": 0.25, "sha256": fingerprint(archives.b)},
    ]


def test_patients_of_both_are_told(archives: Archives) -> None:
    (line,) = (line for line in archives.said.splitlines() if "patient" in line)
    assert "2 patients are in both alpha and beta, 1 of them in the train split of one" in line
    assert f"`ray-mae inspect --shards {archives.a} --against [{archives.b}]`" in line
    told = {"patients": 2, "in_train_of_one_and_val_or_test_of_the_other": 1}
    assert archives.summary["shared_patients"] == {"alpha and beta": told}


def test_a_stopped_run_goes_on_alike_on_one_worker(archives: Archives, tmp_path: Path) -> None:
    config = archives.config(tmp_path / "run")
    run = Run(config)
    run.until(lambda: last_committed(config.output))
    run.end()
    first = read_state(last_committed(config.output) or tmp_path)["step"]
    assert 0 < first < STEPS
    summary = pretrain(replace(config, scaling=replace(config.scaling, workers=1)))
    assert first <= summary["continued_from_step"] < STEPS
    np.testing.assert_allclose(losses(config.output), losses(archives.run), rtol=1e-4)
    ours, theirs = (read_jsonl(run / METRICS) for run in (config.output, archives.run))
    for name in ("samples/alpha", "samples/beta"):
        assert [record[name] for record in ours] == [record[name] for record in theirs]
    for name in ("loss/alpha", "loss/beta"):
        np.testing.assert_allclose(
            [record.get(name, np.nan) for record in ours],
            [record.get(name, np.nan) for record in theirs],
            rtol=1e-4,
        )


def test_other_shares_do_not_continue_a_run(archives: Archives) -> None:
    with pytest.raises(
        ValueError, match=r"holds a run with other settings \(shares\): choose another"
    ):
        pretrain(archives.config(archives.run, shares="[1,1]"))


def test_other_shards_do_not_continue_a_run(archives: Archives, tmp_path: Path) -> None:
    """One of the two was ingested anew, or they come in another order."""
    config = archives.config(archives.run)
    other = tmp_path / "b"
    shutil.copytree(archives.b, other)
    copied = replace(config, shards=[archives.a, other])
    assert pretrain(copied)["continued_from_step"] == STEPS  # the same shards in another place

    rewrite(other, lambda row: row.update(study_id=f"anew-{row['study_id']}"))
    swapped = replace(config, shards=[archives.b, archives.a])
    for wrong in (copied, swapped):
        with pytest.raises(
            ValueError,
            match=r"was trained on other shards than .* hold now, so there is no next sample",
        ):
            pretrain(wrong)
