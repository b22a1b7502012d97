"""The online probe: how well a checkpoint's frozen features do, while the run goes on.

Ray Train calls it in a task of its own, off the training workers. It sees training and validation
patients and never a test patient, so that it may choose among checkpoints and among runs.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.checkpoint.convert import keep_best
from ray_mae.checkpoint.format import WITHOUT_OPTIMIZER, run_config
from ray_mae.config.pretrain import OnlineProbeConfig
from ray_mae.data.paths import is_remote
from ray_mae.data.shard_set import ShardSet
from ray_mae.store import Mirror, fetched
from ray_mae.train.metrics.jsonl import append_jsonl
from ray_mae.train.run_folder import PROBES, RESAMPLES

if TYPE_CHECKING:  # Ray Train's controller knows this module and has no use for PyTorch
    import numpy as np
    import ray.train

    from ray_mae.evaluate.heads.base import Data
    from ray_mae.evaluate.probe.validation import ProbedSamples


def probe_checkpoint(checkpoint: "ray.train.Checkpoint", config: dict[str, Any]) -> dict[str, Any]:
    """Probes a checkpoint; Ray Train calls it. The result goes to probes.jsonl, too.

    Args:
        checkpoint: that was written.
        config: settings of the run, as plain values.

    Returns:
        probe_auroc, probe_auroc_low and probe_auroc_high, of the mean over labels.

    Raises:
        ValueError: where no label can be probed, or the features are not finite. The error stands in
            probes.jsonl: Ray Train writes it to its log alone.
    """
    run = run_config(config)
    began = time.time()
    # of one in a store the optimiser stays there
    place = run.output / Path(checkpoint.path).name
    with (
        fetched(place, WITHOUT_OPTIMIZER)
        if is_remote(place)
        else checkpoint.as_directory() as folder
    ):
        step = json.loads((Path(folder) / "state.json").read_text())["step"]
        try:
            result = online_probe(Path(folder), ShardSet.read(run.folders, run.shares), run.probe)
        except Exception as error:
            append_jsonl(run.output / PROBES, {"step": step, "error": f"{error}"})
            raise
        metrics = {name: result[name] for name in result if name.startswith("probe_auroc")}
        if run.checkpoint.keep_best:
            keep_best(run.output, Path(folder), metrics)
    resamples = result.pop("resamples")
    if is_remote(run.output):
        with Mirror(run.output) as mirror:
            _keep_files(mirror.local, step, resamples, result)
    else:
        _keep_files(run.output, step, resamples, result)
    record = {
        "step": step,
        **result,
        "checkpoint": Path(checkpoint.path).name,
        "seconds": round(time.time() - began, 1),
    }
    append_jsonl(run.output / PROBES, record)
    return metrics


def online_probe(checkpoint: Path, shards: ShardSet, settings: OnlineProbeConfig) -> dict[str, Any]:
    """Probes on validation patients: a logistic regression per label, fitted to training patients, or what
    settings.head says.

    The regularisation C, or what the head has in its place, is chosen on training patients alone, by fits
    to three quarters of them that are scored on the other quarter, the selection split.

    Args:
        checkpoint: folder of a checkpoint.
        shards: whose training and validation samples are read.
        settings: of the probe.

    Returns:
        probe_auroc, probe_auroc_low and probe_auroc_high, the macro AUROC and its 95 % interval over
        patients, NaN where these are too few; labels, the AUROC of each; head; evidence, what the validation
        patients can tell of each; left_out, those that are too rare; uncertain and unmentioned, what such
        states counted as; by_count, the first three for fits to few labelled samples, the mean over
        settings.draws of them, with the settings that all labelled samples chose, from three draws on with an
        interval that covers the draw as well; samples and patients by split; resamples, the macro AUROC in
        each resample of the patients, so that runs of the same settings can be compared in pairs.

    Raises:
        ValueError: where no label can be probed, or the features are not finite.
    """
    import numpy as np
    import torch

    from ray_mae.evaluate.cohort import draw_patients
    from ray_mae.evaluate.metrics import patient_resamples
    from ray_mae.evaluate.probe.validation import ValidationProbe
    from ray_mae.evaluate.samples import Samples
    from ray_mae.inference.load import load_encoder

    torch.set_num_threads(settings.cpus)
    samples = probed_samples(shards, settings)
    encoder, _ = load_encoder(checkpoint)
    # of a few rows in all files: they are compared in the background, as the run's own readers do
    reader = Samples(shards, samples.cohort.location, settings.batch_size, 1, wait=False)
    x = {split: _features(encoder, reader, index) for split, index in samples.rows.items()}
    patient = {split: samples.cohort.patient[index] for split, index in samples.rows.items()}
    weights = patient_resamples(patient["val"], settings.bootstrap, settings.seed)
    probe = ValidationProbe(samples, x, patient["val"], weights)

    chosen: Any
    if settings.head == "linear":
        chosen = {i: probe.choose_regularisation(i) for i in samples.labels}
    else:
        data = {split: _data(encoder, reader, samples, x, split, settings.head) for split in x}
        chosen = probe.choose_head(settings.head, data, settings.seed)
    everyone = np.ones(len(patient["train"]), bool)
    of_all = probe.fit_and_score(everyone, chosen)
    whole = probe.macro([of_all])
    resamples = {"all": whole.resampled}
    by_count = {}
    for count in settings.label_counts:
        parts = [
            np.isin(patient["train"], draw_patients(patient["train"], count, settings.seed, draw))
            for draw in range(settings.draws)
        ]
        few = probe.macro([probe.fit_and_score(part, chosen) for part in parts])
        resamples[str(count)] = few.resampled
        by_count[str(count)] = [few.auroc.value, few.auroc.low, few.auroc.high]
    evidence = {name: probe.evidence[i] for i, name in samples.labels.items()}
    return {
        "probe_auroc": whole.auroc.value,
        "probe_auroc_low": whole.auroc.low,
        "probe_auroc_high": whole.auroc.high,
        "labels": {name: of_all[i].value for i, name in samples.labels.items()},
        "evidence": {name: asdict(one) for name, one in evidence.items()},
        "left_out": samples.left_out,
        "head": settings.head,
        "uncertain": settings.uncertain,
        "unmentioned": settings.unmentioned,
        "by_count": by_count,
        "samples": {split: len(of) for split, of in patient.items()},
        "patients": {split: len(set(of)) for split, of in patient.items()},
        "resamples": {name: r.tolist() for name, r in resamples.items()},
    }


def probed_samples(shards: ShardSet, settings: OnlineProbeConfig) -> "ProbedSamples":
    """Draws them, without a checkpoint.

    Args:
        shards: whose training and validation samples are drawn.
        settings: of the probe.

    Raises:
        ValueError: where no label can be probed.
    """
    from ray_mae.evaluate.cohort import hint_of_policy, read_cohort
    from ray_mae.evaluate.probe.validation import ProbedSamples, at_most, probeable, quarter

    cohort = read_cohort(shards, ("train", "val"), settings.labels)
    targets, names, _ = cohort.targets(settings)
    rows = {
        split: at_most(cohort, cohort.labelled(targets, split), most, settings.seed)
        for split, most in (("train", settings.train_samples), ("val", settings.val_samples))
    }
    selection = quarter(cohort.patient[rows["train"]], settings.seed)
    labels = {
        i: name
        for i, name in enumerate(names)
        if probeable(targets[:, i], cohort.patient, rows, selection, settings.min_positive)
    }
    left_out = [name for i, name in enumerate(names) if i not in labels]
    if not labels or (settings.labels and left_out):
        what = ", ".join(left_out) if settings.labels else "no label"
        verb = "lacks" if settings.labels else "has"
        raise ValueError(
            f"{what} of {', '.join(map(str, shards.paths))} {verb} {settings.min_positive} patients "
            "with a positive and as many with a negative sample among training and among validation patients"
            f"{hint_of_policy(settings)}: lower probe.min_positive, or set probe.every to 0"
        )
    return ProbedSamples(cohort, targets, labels, left_out, rows, selection)


def _data(
    encoder: Any,
    reader: Any,
    samples: "ProbedSamples",
    x: dict[str, "np.ndarray"],
    split: str,
    head: str,
) -> "Data":
    """Samples as heads take them: with tokens where the head looks at these."""
    import numpy as np

    from ray_mae.evaluate.heads.base import Data
    from ray_mae.evaluate.heads.registry import HEADS
    from ray_mae.evaluate.probe.tokens import read_tokens

    rows = samples.rows[split]
    return Data(
        {encoder.pool: x[split].astype(np.float32)},
        samples.targets[rows][:, list(samples.labels)],
        samples.cohort.patient[rows],
        read_tokens(encoder, reader, rows) if HEADS[head].needs == "tokens" else None,
    )


def _features(encoder: Any, reader: Any, rows: "np.ndarray") -> "np.ndarray":
    """[n, D] float64. Raises ValueError where they are not finite."""
    import numpy as np
    import torch

    from ray_mae.data.kinds import of_encoder

    kind = of_encoder(encoder.settings)
    collator = kind.evaluation_collator(encoder.settings.input_size)
    batches = []
    with torch.inference_mode():
        for arrays, _ in reader.each(rows, collator):
            batches.append(encoder.embed(kind.to_batch(arrays)).float().numpy())
    features = np.concatenate(batches).astype(np.float64)
    if not np.isfinite(features).all():
        raise ValueError(
            "the encoder's features are not finite: the training diverged; lower optim.lr, or set optim.clip"
        )
    return features


def _keep_files(
    run: Path, step: int, resamples: dict[str, list[float]], result: dict[str, Any]
) -> None:
    """NPZ of the resamples, and TensorBoard's, in the folder of a run."""
    import numpy as np

    (run / RESAMPLES).mkdir(exist_ok=True)
    arrays: Any = {name: np.array(values) for name, values in resamples.items()}
    np.savez(run / RESAMPLES / f"{step:08d}.npz", **arrays)
    _write_tensorboard(run, step, result)


def _write_tensorboard(run: Path, step: int, result: dict[str, Any]) -> None:
    """Beside the losses in TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(run / "tensorboard"), filename_suffix=".probe")
    for name in ("probe_auroc", "probe_auroc_low", "probe_auroc_high"):
        board.add_scalar(f"probe/{name.removeprefix('probe_')}", result[name], step)
    for label, value in result["labels"].items():
        board.add_scalar(f"probe/{label.replace(' ', '_')}", value, step)
    board.close()
