"""The online probe: how well a checkpoint's frozen features do, while the run goes on.

Ray Train calls it in a task of its own, off the training workers. It sees training and validation
patients and never a test patient, so that it may choose among checkpoints and among runs.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.checkpoint.convert import keep_best
from ray_mae.checkpoint.format import run_config
from ray_mae.config.pretrain import OnlineProbeConfig, PretrainConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.metrics.jsonl import append_jsonl
from ray_mae.train.run_folder import PROBES, RESAMPLES

if TYPE_CHECKING:  # Ray Train's controller knows this module and has no use for PyTorch
    import numpy as np
    import ray.train

    from ray_mae.evaluate.cohort import Cohort

C_VALUES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularisation to choose from."""


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
    with checkpoint.as_directory() as folder:
        step = json.loads((Path(folder) / "state.json").read_text())["step"]
        try:
            result = online_probe(Path(folder), ShardSet.read(run.folders, run.shares), run.probe)
        except Exception as error:
            append_jsonl(run.output / PROBES, {"step": step, "error": f"{error}"})
            raise
        metrics = {name: result[name] for name in result if name.startswith("probe_auroc")}
        if run.checkpoint.keep_best:
            keep_best(run.output, Path(folder), metrics)
    _keep_resamples(run.output, step, result.pop("resamples"))
    record = {
        "step": step,
        **result,
        "checkpoint": Path(checkpoint.path).name,
        "seconds": round(time.time() - began, 1),
    }
    append_jsonl(run.output / PROBES, record)
    _write_tensorboard(run, step, result)
    return metrics


def online_probe(checkpoint: Path, shards: ShardSet, settings: OnlineProbeConfig) -> dict[str, Any]:
    """Probes on validation patients: a logistic regression per label, fitted to training patients.

    The regularisation C is chosen on training patients alone, by fits to three quarters of them that
    are scored on the other quarter, the selection split.

    Args:
        checkpoint: folder of a checkpoint.
        shards: whose training and validation samples are read.
        settings: of the probe.

    Returns:
        probe_auroc, probe_auroc_low and probe_auroc_high, the macro AUROC and its 95 % interval over
        patients; labels, the AUROC of each; left_out, those that are too rare; uncertain and unmentioned,
        what such states counted as; by_count, the first three for fits to few labelled samples,
        the mean over settings.draws of them, with the C that all labelled samples chose; samples and
        patients by split; resamples, the macro AUROC in each resample of the patients, so that runs of
        the same settings can be compared in pairs.

    Raises:
        ValueError: where no label can be probed, or the features are not finite.
    """
    import numpy as np
    import torch

    from ray_mae.evaluate.metrics import estimate, macro, measure, patient_resamples
    from ray_mae.evaluate.samples import Samples
    from ray_mae.inference.load import load_encoder

    torch.set_num_threads(settings.cpus)
    samples = probed_samples(shards, settings)
    cohort, targets, rows = samples.cohort, samples.targets, samples.rows
    encoder, _ = load_encoder(checkpoint)
    # of a few rows in all files: they are compared in the background, as the run's own readers do
    reader = Samples(shards, cohort.location, settings.batch_size, 1, wait=False)
    x = {split: _features(encoder, reader, index) for split, index in rows.items()}
    weights = patient_resamples(cohort.patient[rows["val"]], settings.bootstrap, settings.seed)

    values, C_of, resampled = {}, {}, []
    for i, name in samples.labels.items():
        train, val = (targets[rows[split], i] for split in ("train", "val"))
        known = ~np.isnan(val)
        C_of[i] = _choose_regularisation(x["train"], train, samples.selection)
        p = _probability(x["train"], train, C_of[i], x["val"][known])
        values[name] = float(measure(val[known], p)["auroc"][0])
        resampled.append(measure(val[known], p, weights[known])["auroc"])
    resamples = {"all": macro(np.stack(resampled))}
    whole = estimate(float(np.mean(list(values.values()))), resamples["all"])

    draw = np.random.default_rng(settings.seed)
    by_count = {}
    for count in settings.label_counts:
        subsets = [draw.permutation(len(rows["train"]))[:count] for _ in range(settings.draws)]
        few = [
            _few(x, targets[:, i], rows, part, C, weights)
            for part in subsets
            for i, C in C_of.items()
        ]
        resamples[str(count)] = np.nanmean([r for _, r in few], axis=0)
        e = estimate(float(np.mean([value for value, _ in few])), resamples[str(count)])
        by_count[str(count)] = [e.value, e.low, e.high]
    return {
        "probe_auroc": whole.value,
        "probe_auroc_low": whole.low,
        "probe_auroc_high": whole.high,
        "labels": values,
        "left_out": samples.left_out,
        "uncertain": settings.uncertain,
        "unmentioned": settings.unmentioned,
        "by_count": by_count,
        "samples": {split: len(index) for split, index in rows.items()},
        "patients": {split: len(set(cohort.patient[index])) for split, index in rows.items()},
        "resamples": {name: r.tolist() for name, r in resamples.items()},
    }


@dataclass(frozen=True)
class ProbedSamples:
    """Whom a probe is fitted to and scored on, and on which labels."""

    cohort: "Cohort"
    """Of training and validation patients alone."""
    targets: "np.ndarray"
    """[S, L] 0, 1, or NaN where unknown."""
    labels: dict[int, str]
    """Columns of targets with enough of both classes, and their names."""
    left_out: list[str]
    """The names of the others."""
    rows: dict[str, "np.ndarray"]
    """Rows of the cohort by split."""
    selection: "np.ndarray"
    """[n] bool of the training rows: the selection split, which chooses the regularisation C."""


def probed_samples(shards: ShardSet, settings: OnlineProbeConfig) -> ProbedSamples:
    """Draws them, without a checkpoint.

    Args:
        shards: whose training and validation samples are drawn.
        settings: of the probe.

    Raises:
        ValueError: where no label can be probed.
    """
    import numpy as np

    from ray_mae.evaluate.cohort import hint_of_policy, read_cohort

    cohort = read_cohort(shards, ("train", "val"), settings.labels)
    targets, names, _ = cohort.targets(settings)
    draw = np.random.default_rng(settings.seed)
    rows = {
        split: np.sort(draw.permutation(cohort.labelled(targets, split))[:most])
        for split, most in (("train", settings.train_samples), ("val", settings.val_samples))
    }
    selection = _quarter(cohort.patient[rows["train"]], settings.seed)
    labels = {
        i: name
        for i, name in enumerate(names)
        if _probeable(
            targets[rows["train"], i], targets[rows["val"], i], selection, settings.min_positive
        )
    }
    left_out = [name for i, name in enumerate(names) if i not in labels]
    if not labels or (settings.labels and left_out):
        what = ", ".join(left_out) if settings.labels else "no label"
        verb = "lacks" if settings.labels else "has"
        raise ValueError(
            f"{what} of {', '.join(map(str, shards.paths))} {verb} {settings.min_positive} positive and "
            f"negative samples among training and validation patients{hint_of_policy(settings)}: lower "
            "probe.min_positive, or set probe.every to 0"
        )
    return ProbedSamples(cohort, targets, labels, left_out, rows, selection)


def _few(
    x: dict[str, "np.ndarray"],
    target: "np.ndarray",
    rows: dict[str, "np.ndarray"],
    part: "np.ndarray",
    C: float,
    weights: "np.ndarray",
) -> tuple[float, "np.ndarray"]:
    """AUROC of one label and in each resample, of a fit to `part` of the training samples.

    Half where the part knows one class alone: such a fit tells nobody apart.
    """
    import numpy as np

    from ray_mae.evaluate.metrics import measure

    train, val = target[rows["train"]][part], target[rows["val"]]
    if min((train == 1).sum(), (train == 0).sum()) == 0:
        return 0.5, np.full(weights.shape[1], 0.5)
    known = ~np.isnan(val)
    p = _probability(x["train"][part], train, C, x["val"][known])
    resampled = measure(val[known], p, weights[known])["auroc"]
    return float(measure(val[known], p)["auroc"][0]), resampled


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


def _quarter(patient: "np.ndarray", seed: int) -> "np.ndarray":
    """[n] bool: samples of a random quarter of the patients."""
    import numpy as np

    patients = np.unique(patient)
    quarter = np.random.default_rng(seed).permutation(patients)[: max(1, len(patients) // 4)]
    return np.isin(patient, quarter)


def _probeable(train: "np.ndarray", val: "np.ndarray", selection: "np.ndarray", least: int) -> bool:
    """Whether there are enough of both classes to fit and to score, and one each to choose by."""
    parts = ((train[~selection], least), (val, least), (train[selection], 1))
    return all(min((y == 1).sum(), (y == 0).sum()) >= n for y, n in parts)


def _fit(x: "np.ndarray", y: "np.ndarray", C: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from ray_mae.evaluate.probe.scaling import FeatureScaler

    model = make_pipeline(FeatureScaler(), LogisticRegression(C=C, max_iter=2000))
    return model.fit(x, y)


def _choose_regularisation(x: "np.ndarray", y: "np.ndarray", selection: "np.ndarray") -> float:
    """The C whose fit to the others does best on the selection split; of equals the smallest."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(y)
    fit, score = known & ~selection, known & selection
    scores = {
        C: roc_auc_score(y[score], _fit(x[fit], y[fit], C).decision_function(x[score]))
        for C in C_VALUES
    }
    return max(scores, key=lambda C: (scores[C], -C))


def _probability(x: "np.ndarray", y: "np.ndarray", C: float, x_val: "np.ndarray") -> "np.ndarray":
    """Probabilities of x_val [m, D] from a fit to x [n, D], y [n] (NaN unknown)."""
    import numpy as np

    known = ~np.isnan(y)
    return _fit(x[known], y[known], C).predict_proba(x_val)[:, 1]


def _keep_resamples(run: Path, step: int, resamples: dict[str, list[float]]) -> None:
    import numpy as np

    (run / RESAMPLES).mkdir(exist_ok=True)
    arrays: Any = {name: np.array(values) for name, values in resamples.items()}
    np.savez(run / RESAMPLES / f"{step:08d}.npz", **arrays)


def _write_tensorboard(run: PretrainConfig, step: int, result: dict[str, Any]) -> None:
    """Beside the losses in TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(run.output / "tensorboard"), filename_suffix=".probe")
    for name in ("probe_auroc", "probe_auroc_low", "probe_auroc_high"):
        board.add_scalar(f"probe/{name.removeprefix('probe_')}", result[name], step)
    for label, value in result["labels"].items():
        board.add_scalar(f"probe/{label.replace(' ', '_')}", value, step)
    board.close()
