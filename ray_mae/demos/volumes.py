"""`demo mdae`: the whole way on generated brain volumes, by the public commands."""

import shlex
import time
from typing import Any

from ray_mae.config import DemoMdaeConfig
from ray_mae.data.phantoms.brain_anatomy import PRETRAINING
from ray_mae.data.phantoms.brain_cohort import TABLE, write_volumes
from ray_mae.demos.studies import Run, close, flags, run_commands

SIZE = 32
SPACING = 6
UNSEEN = "SWI"
"""A contrast that the pretraining never sees."""

# A small network: it must learn something in a minute of two cores. For so short a time neither nearly
# all nor nearly nothing is hidden, and the noise is half as strong.
PRETRAIN = {
    "method.name": "mdae",
    "encoder.preset": "tiny",
    "encoder.crop_size": SIZE,
    "method.block_size": 8,
    "method.mask_ratio": "[0.4,0.8]",
    "method.sigma_max": 0.5,
    "data.rotate_share": 0.0,
    "data.scale_share": 0.0,
    "data.shuffle_window": 64,
    "optim.lr": 3e-3,
    "optim.batch_size": 8,
    "optim.micro_batch_size": 4,
    "scaling.gpu": "no",
    "checkpoint.every": 1000,
    "tracking.every": 10,
    "tracking.pictures_every": 1000,
}


def demo_mdae(config: DemoMdaeConfig, run: Run) -> dict[str, Any]:
    """Generates volumes, ingests, pretrains, probes seen and unseen contrasts, embeds and publishes.

    Args:
        config: settings of the demo.
        run: runs a command, given as its words.

    Returns:
        The summary, also in summary.json.
    """
    began = time.time()
    out = config.output
    print(
        f"Generating {config.patients} patients as NIfTI files in {out / 'archive'} …", flush=True
    )
    write_volumes(out / "archive", config.patients, config.seed, SIZE, processes=2)
    seconds = {"generate": time.time() - began}

    to = shlex.quote(str(out))
    ingest = (
        f"ingest --archive volume-table --source {to}/archive/{TABLE} --dataset phantoms "
        f"--insecure_pseudonyms true --volumes.spacing_mm {SPACING} "
        "--validation_share 0.2 --test_share 0.3"
    )
    seen = ",".join(PRETRAINING)
    look = f"--checkpoint {to}/run --gpu no"
    commands = {
        "ingest": f"{ingest} --output {to}/shards --volumes.modalities [{seen}]",
        "ingest unseen": f"{ingest} --output {to}/shards-unseen --volumes.modalities [{UNSEEN}]",
        "inspect": f"inspect --shards {to}/shards",
        "pretrain": f"pretrain --shards {to}/shards --output {to}/run --seed {config.seed} "
        f"--optim.steps {config.steps} {flags(PRETRAIN)}",
        "probe": f"evaluate probe {look} --shards {to}/shards --output {to}/probe",
        "probe unseen": f"evaluate probe {look} --shards {to}/shards-unseen --output {to}/probe-unseen",
        "embed": f"embed {look} --shards {to}/shards --output {to}/embeddings",
        "publish": f"publish --checkpoint {to}/run --output {to}/encoder --figures {to}/probe",
    }
    seconds |= run_commands(commands, run)
    probes = {
        "probe": f"test patients, contrasts of the pretraining ({', '.join(PRETRAINING)})",
        "probe-unseen": f"test patients, a contrast it never saw ({UNSEEN})",
    }
    return close(out, probes, seconds, time.time() - began)
