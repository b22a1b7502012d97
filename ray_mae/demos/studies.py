"""`demo`: the whole way on a generated cohort, by the public commands."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_mae.cluster.runtime import cluster
from ray_mae.config import DemoConfig
from ray_mae.data.phantoms.chest_cohort import write_studies
from ray_mae.summary import write_summary

Run = Callable[[list[str]], None]
"""Runs a public command, as the command line does."""

SIZE = 128  # pixels of a generated film's short side

# A small network: it must learn something in two minutes of two cores.
PRETRAIN = {
    "encoder.preset": "tiny",
    "encoder.image_size": 64,
    "encoder.patch_size": 8,
    "encoder.width": 96,
    "encoder.depth": 3,
    "method.mask_ratio": 0.5,
    "method.decoder_width": 64,
    "method.decoder_depth": 1,
    "method.decoder_heads": 2,
    "method.caption_depth": 1,
    "method.caption_heads": 3,
    "method.caption_memory": "study",
    "method.caption_parallel_share": 0.9,
    "method.gamma": 5.0,
    "data.max_tokens": 64,
    "data.crop_scale": "[0.8,1.0]",
    "data.jitter_share": 0.0,
    "scaling.gpu": "no",
    "optim.batch_size": 32,
    "optim.micro_batch_size": 16,
    "optim.lr": 2e-3,
    "checkpoint.every": 1000,
    "tracking.pictures_every": 1000,
}


def demo(config: DemoConfig, run: Run) -> dict[str, Any]:
    """Generates a cohort, ingests, pretrains, probes, embeds and publishes.

    Args:
        config: settings of the demo.
        run: runs a command, given as its words.

    Returns:
        The summary, also in summary.json.
    """
    began = time.time()
    out = config.output
    print(
        f"Generating {config.patients} patients as DICOM files in {out / 'archive'} …", flush=True
    )
    cohort = write_studies(
        out / "archive",
        config.patients,
        config.seed,
        SIZE,
        processes=2,
        caricature=config.disease == "caricature",
    )
    seconds = {"generate": time.time() - began}
    print(f"{cohort['studies']} studies, {cohort['images']} images, {cohort['reports']} reports")

    to = shlex.quote(str(out))
    commands = {
        "ingest": f"ingest --archive dicom --source {to}/archive --output {to}/shards "
        f"--dataset phantoms --insecure_pseudonyms true --image_size {SIZE} "
        "--validation_share 0.15 --test_share 0.25",
        "inspect": f"inspect --shards {to}/shards",
        "pretrain": f"pretrain --shards {to}/shards --output {to}/run --seed {config.seed} "
        f"--optim.steps {config.steps} {flags(PRETRAIN)}",
        "probe": f"evaluate probe --checkpoint {to}/run --shards {to}/shards --output {to}/probe --gpu no",
        "embed": f"embed --checkpoint {to}/run --shards {to}/shards --output {to}/embeddings --gpu no",
        "publish": f"publish --checkpoint {to}/run --output {to}/encoder --figures {to}/probe",
    }
    seconds |= run_commands(commands, run)
    return close(out, {"probe": "test patients"}, seconds, time.time() - began)


def flags(settings: dict[str, Any]) -> str:
    """Settings as they stand on a command line."""
    return " ".join(f"--{name} {value}" for name, value in settings.items())


def run_commands(commands: dict[str, str], run: Run) -> dict[str, float]:
    """Prints and runs public commands on one local Ray; returns the seconds of each."""
    seconds = {}
    with cluster(cpus=3):
        for name, command in commands.items():
            start = time.time()
            print(f"\n$ ray-mae {command}", flush=True)
            run(shlex.split(command))
            seconds[name] = time.time() - start
    return seconds


def close(
    out: Path, probes: dict[str, str], seconds: dict[str, float], total: float
) -> dict[str, Any]:
    """Print and write the results of the probes; probes: folder and what was probed there."""
    results = {name: json.loads((out / name / "summary.json").read_text()) for name in probes}
    summary = {
        "command": "demo",
        "macro_auroc": {name: probe["macro_auroc"] for name, probe in results.items()},
        "difference_of_trained": {
            n: probe["difference_of_trained"] for n, probe in results.items()
        },
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "total_seconds": round(total, 1),
        "report": results[next(iter(probes))]["report"],
    }
    write_summary(out, summary)
    print(f"\nDone in {total / 60:.1f} minutes. Macro AUROC, 95 % interval:")
    for name, what in probes.items():
        print(f"{what}:")
        for features, value in results[name]["macro_auroc"].items():
            print(f"  {features:<8} {value}")
    print("One seed of each: whether the training is better takes several (--seed).")
    print(f"The report: {summary['report']}\nThe curves: tensorboard --logdir {out / 'run'}")
    return summary
