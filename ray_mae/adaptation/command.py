"""`adapt`: pretrainings from several starts on more and more of one's own studies, each probed alike."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_mae.adaptation.curve import Encoder, points_of, verdict
from ray_mae.adaptation.report import CurveReport, write_curve
from ray_mae.adaptation.subsets import write_subset
from ray_mae.checkpoint.compatibility import cautions
from ray_mae.checkpoint.format import find_checkpoint, read_config
from ray_mae.cluster.runtime import cluster
from ray_mae.config import AdaptConfig, PretrainConfig
from ray_mae.config.adapt import RANDOM
from ray_mae.config.base import to_dict
from ray_mae.config.pretrain import default_encoder
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate import baselines
from ray_mae.evaluate.cohort import Cohort, draw_patients, read_cohort
from ray_mae.evaluate.features import matrix, what_is_seen
from ray_mae.evaluate.probe.embedding import embed_cohort, in_order_of
from ray_mae.evaluate.probe.labelled import ProbeData, needed_splits, probeable
from ray_mae.evaluate.probe.linear import probe
from ray_mae.lock import hold
from ray_mae.methods.registry import run_of
from ray_mae.run import pretrain
from ray_mae.terminal import ProgressLine, console, warn

SHARDS, RUNS = "shards", "runs"
"""Folders of the parts of the archive, and of the pretrainings."""


def adapt(config: AdaptConfig) -> dict[str, Any]:
    """Draws the adaptation curve.

    For each start, number of studies and seed there is a pretraining in runs/, which goes on where it was
    when the command is started again. All encoders, and each start as it came, are probed on the same
    studies.

    Args:
        config: settings of the command.

    Returns:
        The summary, which summary.json holds, too.

    Raises:
        FileNotFoundError: a start or the shards are not there.
        ValueError: these do not go together, or no label can be probed: before anything is trained.
        InUseError: another command writes into the folder.
        Interrupted: a signal ended it; the same command goes on.
    """
    began = time.time()
    config = replace(config, shards=config.shards.resolve(), output=config.output.resolve())
    config.output.mkdir(parents=True, exist_ok=True)
    with hold(config.output, "ray-mae adapt"):
        return _adapt(config, began)


def _adapt(config: AdaptConfig, began: float) -> dict[str, Any]:
    manifest = Manifest.read(config.shards)
    notes = [
        f"{name}: {note}"
        for name, path in config.named.items()
        for note in cautions(path, config.shards, config.run.mismatch)
    ]
    warn(notes)
    splits = needed_splits({s.split for s in manifest.shards}, config.probe)
    cohort = read_cohort(ShardSet.read(config.shards), splits, config.probe.labels)
    targets, names, no_classes = cohort.targets(config.probe)
    data = ProbeData(targets, names, cohort.patient, cohort.split)
    _, rare = probeable(data, config.probe)
    sizes = sizes_of(config, manifest)
    noun = NOUNS[manifest.kind]
    plan = list(_plan(config, sizes))
    console.print(
        f"{len(plan)} pretrainings: from {', '.join(_starts(config))}, on "
        f"{', '.join(f'{n:,}' for n in sizes)} {noun}, {len(config.seeds)} seeds"
    )
    trained: dict[Encoder, Path] = {}
    patients = cohort.patient[cohort.split == "train"]
    exact: dict[Encoder, int] = {}
    with cluster(cpus=max(config.run.logical_cpus, config.probe.workers + 1)):
        for i, encoder in enumerate(plan):
            console.print(
                f"[{i + 1} of {len(plan)}] from {encoder.start}, {encoder.studies:,} {noun}"
            )
            shards, exact[encoder] = _shards(config, encoder, patients)
            run = _run(config, encoder, shards, trained)
            pretrain(run)
            trained[encoder] = run.output
        matrices, table = _features(config, trained, splits, cohort)
    data = in_order_of(table, cohort, data)
    progress, done = ProgressLine("probed", "labels of encoders"), itertools.count(1)
    result = probe(
        {encoder.name: values for encoder, values in matrices.items()},
        data,
        config.probe,
        lambda *_: progress.show(next(done), len(matrices) * (len(names) - len(rare))),
    )
    result.left_out.update(no_classes)
    reference = next(iter(config.named))
    points = points_of(
        {e: result.features[e.name].macro["auroc"].value for e in matrices},
        {e: result.resampled[e.name] for e in matrices},
        reference,
        len(np.unique(data.patient[data.rows("test")])),
        next(iter(result.evidence.values())) if len(result.evidence) == 1 else None,
    )
    verdicts = [verdict(points, start, reference, noun) for start in _starts(config)]
    report = CurveReport(
        title=f"Adaptation to {manifest.dataset}",
        noun=noun,
        reference=reference,
        points=points,
        verdicts=verdicts,
        result=result,
        exact={e.name: n for e, n in exact.items()},
        sees=what_is_seen(next(iter(config.named.values())), None, config.probe.sees),
        cautions=notes,
        settings={"dataset": manifest.dataset, "adapt": to_dict(config)},
    )
    return write_curve(config.output, report, began)


def sizes_of(config: AdaptConfig, manifest: Manifest) -> list[int]:
    """How many training samples the points have: those asked for that are fewer than all, then all."""
    every = manifest.rows("train")
    sizes = sorted({n for n in config.train_studies if n < every})
    if more := sorted({n for n in config.train_studies if n > every}):
        warn(
            [
                f"train_studies {', '.join(map(str, more))}: there are {every:,}, which are the last point"
            ]
        )
    return [*sizes, every]


def _starts(config: AdaptConfig) -> list[str]:
    return [*config.named, *([RANDOM] if config.random else [])]


def _plan(config: AdaptConfig, sizes: list[int]) -> Iterator[Encoder]:
    """The pretrainings, the smallest first; that from random weights takes the first start's architecture."""
    for studies in sizes:
        for seed in config.seeds:
            for start in _starts(config):
                yield Encoder(start, studies, seed)


def _shards(config: AdaptConfig, encoder: Encoder, patient: NDArray[np.str_]) -> tuple[Path, int]:
    """Where its studies are, and how many there are: patients are taken as a whole."""
    if encoder.studies == len(patient):
        return config.shards, len(patient)
    chosen = set(draw_patients(patient, encoder.studies, encoder.seed))
    folder = config.output / SHARDS / f"{encoder.studies}-seed{encoder.seed}"
    return folder, write_subset(config.shards, chosen, folder).rows("train")


def _run(
    config: AdaptConfig, encoder: Encoder, shards: Path, trained: dict[Encoder, Path]
) -> PretrainConfig:
    """Settings of a pretraining: its encoder is that of the start, unless the settings name another.

    One from random weights has the network that the first start's has.
    """
    values = to_dict(config.run) | {
        "shards": [str(shards)],
        "output": str(config.output / RUNS / encoder.name),
        "seed": encoder.seed,
        "weights": None,
    }
    if encoder.start in config.named:
        values["weights"] = str(config.named[encoder.start].resolve())
        method = config.run.method
        if config.run.encoder == method.default_encoder():
            own = default_encoder(method, values["weights"], values["output"])
            values["encoder"] = to_dict(own)
    else:
        first = Encoder(next(iter(config.named)), encoder.studies, encoder.seed)
        values["encoder"] = to_dict(read_config(find_checkpoint(trained[first])).encoder)
    return run_of(values)


def _features(
    config: AdaptConfig, trained: dict[Encoder, Path], splits: list[str], cohort: Cohort
) -> tuple[dict[Encoder, NDArray], pa.Table]:
    """Features [S, D] of every encoder, and the rows they are of, by identifier."""
    settings = config.probe
    matrices: dict[Encoder, NDArray] = {}
    first = next(iter(config.named))
    untrained = {Encoder(name, 0, 0): path for name, path in config.named.items()}
    rows: pa.Table | None = None
    for encoder, path in {**untrained, **trained}.items():
        console.print(f"features of {encoder.name}")
        kinds = [baselines.TRAINED]
        if config.random and encoder == Encoder(first, 0, 0):
            kinds.append(baselines.RANDOM)  # as it came, of the same architecture
        table = embed_cohort(path, config.shards, splits, cohort, settings, kinds)
        matrices[encoder] = matrix(table[baselines.TRAINED])
        if baselines.RANDOM in kinds:
            matrices[Encoder(RANDOM, 0, 0)] = matrix(table[baselines.RANDOM])
        rows = table.drop_columns(kinds) if rows is None else rows
    assert rows is not None
    return matrices, rows
