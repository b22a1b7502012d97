"""Whole runs on real Ray workers with DeepSpeed: the losses, going on, and what is left behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ray_mae import cli
from ray_mae.checkpoint.commands import checkpoint_convert
from ray_mae.checkpoint.format import find_checkpoint, last_committed, read_state
from ray_mae.checkpoint.integrity import SNAPSHOT
from ray_mae.config import (
    CheckpointConfig,
    CheckpointConvertConfig,
    EngineConfig,
    ExportConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.config.base import to_dict
from ray_mae.data.decoding.voxels import encode_voxels
from ray_mae.data.loading.tokenizer import train_tokenizer, training_reports
from ray_mae.data.shard_set import ShardSet
from ray_mae.exports.command import export
from ray_mae.inference.load import load_encoder
from ray_mae.lock import InUseError
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import pretrain
from ray_mae.train.recovery.lost_samples import SKIPPED
from ray_mae.train.run_folder import EVENTS, METRICS, REPORTS, last_pictures
from tests.processes import kill_a_worker
from tests.settings import sections, small
from tests.shards import damage, rewrite, write_shards, write_volume_shards

pytestmark = pytest.mark.slow

STEPS = 12
VOLUME_STEPS = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def tokenizer(shards: Path) -> Path:
    """One for all runs, where `run_of` looks for it: two trainings of a vocabulary may differ in ties."""
    texts = training_reports(ShardSet.read(shards), "impression")
    file = shards / "tokenizer.json"
    file.write_text(train_tokenizer(texts, 200))
    return file


def run_of(shards: Path, output: Path, workers: int, stage: int) -> PretrainConfig:
    return PretrainConfig(
        shards=shards,
        output=output,
        **small(
            "mvmae",
            decoder_width=32,
            decoder_depth=1,
            decoder_heads=2,
            mask_ratio=0.5,
            beta=20.0,
            caption_depth=1,
            caption_heads=2,
            max_tokens=16,
            shuffle_window=8,
            tokenizer=shards / "tokenizer.json",
        ),
        optim=OptimConfig(batch_size=8, micro_batch_size=2, steps=STEPS, base_lr=0.05),
        engine=EngineConfig(zero_stage=stage, precision="fp32"),  # type: ignore[arg-type]
        scaling=ScalingConfig(workers=workers, cpus_per_worker=0.5),
        checkpoint=CheckpointConfig(every=3),
        tracking=TrackingConfig(every=1, pictures_every=4, pictures=2, peak_tflops=0.001),
    )


def losses(run: Path) -> list[float]:
    """By step; NaN where it was skipped."""
    return [record.get("loss", np.nan) for record in read_jsonl(run / METRICS)]


def held_out(run: Path) -> list[list[float]]:
    """Step, loss and parts of it of validation patients, where they were measured."""
    return [
        [
            record["step"],
            *(record[f"held_out/{name}"] for name in ("loss", "reconstruction", "caption")),
        ]
        for record in read_jsonl(run / METRICS)
        if "held_out/loss" in record
    ]


@pytest.fixture(scope="module")
def one_worker(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("runs") / "one"
    return output, pretrain(run_of(shards, output, workers=1, stage=0))


WORKERS = {2: 2, 3: 3}
"""By ZeRO stage."""


@pytest.fixture(scope="module")
def several_workers(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> dict[int, Path]:
    """A run of each ZeRO stage that shards."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {stage: folder / f"stage-{stage}" for stage in WORKERS}
    for stage, output in runs.items():
        pretrain(run_of(shards, output, workers=WORKERS[stage], stage=stage))
    return runs


@pytest.mark.parametrize("stage", WORKERS)
def test_any_workers_and_any_zero_stage_train_as_one(
    one_worker: tuple[Path, dict], several_workers: dict[int, Path], stage: int
) -> None:
    """The same samples, order and gradients: the losses agree step by step, and so do weights.

    A step has four micro-batches: three workers take two each, of which two count nothing.
    """
    output = several_workers[stage]
    alone = losses(one_worker[0])
    assert len(alone) == STEPS
    flops = next(e["flops"] for e in read_jsonl(output / EVENTS) if "flops" in e)
    for record in read_jsonl(output / METRICS):
        assert record["inputs_per_s"] >= record["samples_per_s"]  # a study has one to three views
        assert record["mfu"] == pytest.approx(flops * record["inputs_per_s"] / 1e9 / WORKERS[stage])
    np.testing.assert_allclose(losses(output), alone, rtol=1e-4)
    told, told_alone = held_out(output), held_out(one_worker[0])
    assert [step for step, *_ in told] == [4, 8, 12]  # the pictures' pace
    np.testing.assert_allclose(told, told_alone, rtol=2e-3)
    assert told[-1][1] < told[0][1]
    assert alone[-1] < alone[0] * 0.9  # it learns: the weights changed on every worker
    ours, theirs = (
        load_file(find_checkpoint(run) / "model.safetensors") for run in (output, one_worker[0])
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-2, atol=1e-3)


def rewind(run: Path) -> int:
    """As if the run had been killed before its last checkpoint; the step of the one before."""
    snapshot = run / SNAPSHOT
    record = json.loads(snapshot.read_text())
    *kept, last = record["checkpoint_results"]
    shutil.rmtree(run / last["checkpoint_dir_name"])
    record |= {
        "checkpoint_results": kept,
        "latest_checkpoint_result": kept[-1],
        "checkpoint_report_indices": record["checkpoint_report_indices"][:-1],
        "current_report_index": record["current_report_index"] - 1,
    }
    snapshot.write_text(json.dumps(record))
    return kept[-1]["metrics"]["step"]


def volume_run_of(shards: Path, output: Path) -> PretrainConfig:
    return PretrainConfig(
        shards=shards,
        output=output,
        **sections("mdae", preset="tiny", crop_size=16, block_size=4, shuffle_window=8),
        optim=OptimConfig(
            batch_size=8,
            micro_batch_size=2,
            steps=VOLUME_STEPS,
            optimizer="sgd",
            lr=0.02,
            decay="poly",
        ),
        engine=EngineConfig(zero_stage=2, precision="fp32"),
        scaling=ScalingConfig(workers=2),
        checkpoint=CheckpointConfig(every=4),
        tracking=TrackingConfig(every=1, pictures_every=4, pictures=2),
    )


@pytest.fixture(scope="module")
def volume_run(
    tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[PretrainConfig, dict]:
    """MDAE on two workers, one of which meets a volume of no numbers; settings and summary."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volume_shards(folder / "volumes")

    def spoil(row: dict) -> None:
        if row["volume_id"] == "train-3":
            row["voxels"] = encode_voxels(np.full(row["shape"], np.nan), "float16", 1)

    rewrite(folder / "volumes", spoil)
    config = volume_run_of(folder / "volumes", folder / "Müller" / "脑 #1 [b] 50%?; x")
    return config, pretrain(config)


def test_a_sample_that_is_not_finite_costs_its_step_alone(
    volume_run: tuple[PretrainConfig, dict], tmp_path: Path
) -> None:
    """One worker of two meets it: both skip the step, and say which samples it had."""
    config, _ = volume_run
    records = read_jsonl(config.output / METRICS)
    assert [record["step"] for record in records] == list(range(1, VOLUME_STEPS + 1))
    skipped = [read_jsonl(file) for file in sorted((config.output / SKIPPED).iterdir())]
    steps = [record["step"] for record in skipped[0]]
    assert len(steps) == 2  # an epoch has three steps, the run six
    assert [record["step"] for record in skipped[1]] == steps
    for both in zip(*skipped, strict=True):
        samples = [
            s for worker in both for micro in worker["micro_batches"] for s in micro["samples"]
        ]
        assert len(samples) == 8
        assert "train-3" in samples
    assert records[-1]["skipped_steps"] == 2
    assert all(("loss" in record) == (record["step"] not in steps) for record in records)
    weights = load_file(find_checkpoint(config.output) / "model.safetensors")
    assert all(w.isfinite().all() for w in weights.values())

    ended = replace(
        config,
        output=tmp_path / "ended",
        optim=replace(config.optim, max_skipped=1),
        checkpoint=CheckpointConfig(every=1),
    )
    with pytest.raises(RuntimeError, match="the training diverged"):
        pretrain(ended)
    last = last_committed(ended.output)
    assert (read_state(last)["step"] if last else 0) == steps[0] - 1


def test_volumes_go_the_same_way(volume_run: tuple[PretrainConfig, dict], tmp_path: Path) -> None:
    """MDAE by the same loop on two workers: trained, saved, continued exactly, loaded."""
    first, summary = volume_run
    config = replace(first, output=tmp_path / "run")
    shutil.copytree(first.output, config.output)
    records = read_jsonl(config.output / METRICS)
    assert {"masked", "visible", "lr"} <= records[0].keys()
    assert "beta" not in records[0]
    levels = [
        name
        for record in records
        for name in record
        if "_error_t" in name and not name.startswith("held_out")
    ]
    assert len(set(levels)) == 8  # both regions at four noise levels, though not in every record
    assert len(last_pictures(config.output)) == 3
    assert summary["samples"] == VOLUME_STEPS * 8

    last = find_checkpoint(config.output)
    damage(next((last / "deepspeed").glob("*.pt")))  # nothing else would tell
    with pytest.raises(ValueError, match=r"deepspeed/.*\.pt was changed or damaged"):
        checkpoint_convert(
            CheckpointConvertConfig(checkpoint=last, output=tmp_path / "u", to="universal")
        )
    summary = pretrain(config)
    assert summary["continued_from_step"] == 4
    assert summary["damaged_checkpoints"] == [f"damaged_{last.name}"]
    np.testing.assert_allclose(losses(config.output), losses(first.output), rtol=1e-5)
    encoder, _ = load_encoder(config.output)
    assert encoder(torch.randn(2, 1, 16, 16, 24)).shape == (2, encoder.width)
    with pytest.raises(ValueError, match="mvmae with the encoder vit reads 'study'"):
        pretrain(run_of(config.shards, tmp_path / "other", workers=1, stage=0))


def test_a_run_from_the_weights_of_another_goes_on_without_it_on_other_workers(
    shards: Path,
    tmp_path: Path,
    several_workers: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--weights` by a relative path, then the same command with one worker more, and the other run gone."""
    shutil.copytree(several_workers[3], tmp_path / "before")
    monkeypatch.chdir(tmp_path)
    first = replace(
        run_of(shards, tmp_path / "run", workers=2, stage=3),
        weights=Path("before"),
        tracking=TrackingConfig(every=2, pictures=0),
    )
    pretrain(first)
    (ready,) = (e for e in read_jsonl(first.output / EVENTS) if "weights of" in e["event"])
    assert str(find_checkpoint(tmp_path / "before")) in ready["event"]
    whole = losses(first.output)
    assert whole[0] < losses(several_workers[3])[0] * 0.9  # what was learnt before is not lost

    assert rewind(first.output) == 9
    shutil.rmtree(tmp_path / "before")
    more = replace(first, scaling=replace(first.scaling, workers=3))
    assert pretrain(more)["continued_from_step"] == 9
    records = read_jsonl(first.output / METRICS)
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    # the line of step 10 lacks step 9, which was before the restart
    np.testing.assert_allclose(losses(first.output)[:4], whole[:4])
    np.testing.assert_allclose(losses(first.output)[5], whole[5], rtol=1e-4)


def test_a_run_leaves_what_is_needed_to_use_it_and_to_go_on(
    one_worker: tuple[Path, dict],
) -> None:
    output, summary = one_worker
    last = last_committed(output)
    assert last is not None
    assert read_state(last)["step"] == STEPS
    assert read_state(last)["position"] == STEPS * 8
    assert len([p for p in output.glob("checkpoint_*") if p.is_dir()]) == 2  # of steps 9 and 12
    assert (last / "tokenizer.json").is_file()
    assert list((output / "tensorboard").glob("events*"))
    assert list((output / "pictures").glob("*.png"))
    assert {"true", "generated"} == set(read_jsonl(output / REPORTS)[0])
    assert json.loads((output / "summary.json").read_text()) == summary
    encoder, preprocess = load_encoder(output)
    image = preprocess(np.zeros((50, 70), np.uint8))
    assert encoder(image[None]).shape == (1, 32)


def test_checkpoints_are_listed_and_verified(
    one_worker: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(one_worker[0], run)
    (run / "checkpoint_2020-01-01_00-00-00.000000").mkdir()  # as of a worker that was killed
    cli.run(["checkpoint", "list", "--run", str(run)])
    said = capsys.readouterr().out
    assert "step 9" in said
    assert "latest" in said
    assert "never_committed: checkpoint_2020" in said
    cli.run(["checkpoint", "verify", "--path", str(run)])
    last = find_checkpoint(run)
    target = next((last / "deepspeed").rglob("*_model_states.pt"))
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    (last / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match=r"_model_states.*damaged") as told:
        cli.run(["checkpoint", "verify", "--path", str(run)])
    assert "model.safetensors is missing" in str(told.value)
    others = [p for p in run.glob("checkpoint_*/state.json") if p.parent != last]
    cli.run(["checkpoint", "verify", "--path", str(others[0].parent)])


@pytest.mark.parametrize("stage", WORKERS)
def test_a_checkpoint_is_converted(
    several_workers: dict[int, Path], tmp_path: Path, stage: int
) -> None:
    """To weights, which load as before, and to the universal format, whose parts are the same weights."""
    run = several_workers[stage]
    whole = load_file(find_checkpoint(run) / "model.safetensors")
    for to in ("weights", "universal"):
        arguments = f"checkpoint convert --checkpoint {run} --output {tmp_path / to} --to {to}"
        cli.run(arguments.split())
        assert load_encoder(tmp_path / to)
        cli.run(["checkpoint", "verify", "--path", str(tmp_path / to)])
        with pytest.raises(ValueError, match="is not empty"):
            cli.run(arguments.split())
    assert not (tmp_path / "weights" / "deepspeed").exists()
    parts = sorted((tmp_path / "universal" / "deepspeed" / "zero").glob("*/fp32.pt"))
    assert len(parts) > 20
    for part in parts:
        found = torch.load(part)
        found = found["param"] if isinstance(found, dict) else found
        assert torch.equal(found.view(-1), whole[part.parent.name].view(-1))
    with pytest.raises(ValueError, match="has no parts of an optimiser"):
        cli.run(
            f"checkpoint convert --checkpoint {tmp_path / 'weights'} --output {tmp_path / 'x'} "
            "--to universal".split()
        )


def test_a_finished_run_is_not_trained_again(shards: Path, one_worker: tuple[Path, dict]) -> None:
    before = read_jsonl(one_worker[0] / METRICS)
    again = pretrain(run_of(shards, one_worker[0], workers=1, stage=0))
    assert again["continued_from_step"] == STEPS
    assert read_jsonl(one_worker[0] / METRICS) == before


def test_other_settings_do_not_continue_a_run(shards: Path, one_worker: tuple[Path, dict]) -> None:
    config = run_of(shards, one_worker[0], workers=1, stage=0)
    other = replace(config, method=replace(config.method, beta=1.0))
    with pytest.raises(ValueError, match=r"other settings \(method\.beta\)"):
        pretrain(other)


def test_the_timm_export_gives_the_same_features(
    one_worker: tuple[Path, dict], tmp_path: Path
) -> None:
    import timm

    summary = export(ExportConfig(checkpoint=one_worker[0], output=tmp_path, format="timm"))
    described = json.loads((tmp_path / "timm.json").read_text())
    encoder, preprocess = load_encoder(one_worker[0])
    reloaded, _ = load_encoder(tmp_path)
    rng = np.random.default_rng(0)
    images = torch.stack(
        [preprocess(rng.integers(0, 256, (40, 60), dtype=np.uint8)) for _ in range(3)]
    )
    for view, name in enumerate(("frontal", "lateral", "unknown")):
        model = timm.create_model(
            described["model"],
            **described["arguments"],
            checkpoint_path=str(tmp_path / described["files"][name]),
        ).eval()
        views = torch.full((3,), view)
        with torch.no_grad():
            ours = encoder.tokens(images, views)
            torch.testing.assert_close(model.forward_features(images), ours, rtol=0, atol=1e-5)
            torch.testing.assert_close(reloaded(images, views), encoder(images, views))
    assert "frontal.safetensors" in summary["files"]


def test_a_killed_run_goes_on_with_the_next_sample(
    shards: Path, tmp_path: Path, several_workers: dict[int, Path]
) -> None:
    """The whole process group is killed after a checkpoint; the same command finishes the run, though one
    of its workers is killed in turn."""
    config = run_of(shards, tmp_path / "killed", workers=2, stage=2)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    program = Path(sys.executable).parent / "ray-mae"
    command = [str(program), "pretrain", "--config", str(tmp_path / "run.yaml")]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.time() + 400
    while last_committed(config.output) is None or len(losses(config.output)) < 4:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = read_state(last_committed(config.output) or tmp_path)["step"]
    assert 0 < first < STEPS

    def starts() -> int:
        return sum(e["event"] == "engine ready" for e in read_jsonl(config.output / EVENTS))

    def kill() -> None:
        while starts() < 2:
            time.sleep(0.02)
        kill_a_worker()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = pretrain(replace(config, scaling=replace(config.scaling, max_failures=1)))
    killer.join(1)
    assert not killer.is_alive()
    assert starts() == 3
    assert first <= summary["continued_from_step"] < STEPS  # it may have saved once more
    (lost,) = (e["event"] for e in read_jsonl(config.output / EVENTS) if e.get("restart"))
    assert re.search(r"worker \d lost .*: all start again after step \d+", lost)
    assert summary["worker_restarts"] == 1
    records = read_jsonl(config.output / METRICS)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(losses(config.output), losses(several_workers[2]), rtol=1e-4)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGUSR1, 75)])
def test_a_signal_has_a_run_save_and_the_same_command_go_on(
    shards: Path, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    """No step is lost, though no checkpoint was due; a second command in the folder is refused meanwhile."""
    config = run_of(shards, tmp_path / "run", workers=2, stage=1)
    config = replace(
        config,
        optim=replace(config.optim, steps=100_000),
        checkpoint=replace(config.checkpoint, every=50_000),
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    program = Path(sys.executable).parent / "ray-mae"
    command = [str(program), "pretrain", "--config", str(tmp_path / "run.yaml")]
    with (tmp_path / "said").open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.time() + 400
        while not (config.output / METRICS).is_file() or len(losses(config.output)) < 4:
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.time() < deadline
            time.sleep(0.1)
        with pytest.raises(InUseError, match=f"process {process.pid}"):
            pretrain(config)
        process.send_signal(signum)
        assert process.wait(120) == code
    finally:
        process.kill()
    last = last_committed(config.output)
    assert last
    step = read_state(last)["step"]
    records = read_jsonl(config.output / METRICS)
    assert step >= records[-1]["step"] > step - config.tracking.every
    line = (tmp_path / "said").read_text().splitlines()[-1]
    assert line.startswith(f"ray-mae: {signum.name}: {last} holds the run up to step {step}")
    assert line.endswith(f"ray-mae pretrain --config {tmp_path / 'run.yaml'}")


def test_a_batch_that_does_not_divide_is_refused_with_what_would(
    shards: Path, tmp_path: Path
) -> None:
    config = run_of(shards, tmp_path / "x", workers=2, stage=0)
    wrong = replace(config, optim=replace(config.optim, micro_batch_size=3))
    with pytest.raises(ValueError, match=r"multiple of optim.micro_batch_size .* may be 1, 2, 4"):
        pretrain(wrong)


def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ray-mae ingest"):
        pretrain(run_of(tmp_path / "none", tmp_path / "x", workers=1, stage=0))
