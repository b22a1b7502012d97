"""What a reader of a probe should know besides its numbers, in sentences."""

from collections.abc import Mapping, Sequence

from ray_mae.config import ProbeSettings
from ray_mae.evaluate.probe.fits import MAX_ITERATIONS
from ray_mae.evaluate.probe.heads import Heads
from ray_mae.evaluate.probe.labelled import Draw, ProbeData, fitted_on
from ray_mae.evaluate.scores import Evidence, LabelValues, doubtful


def notes_on_draws(data: ProbeData, draws: Sequence[Draw], config: ProbeSettings) -> list[str]:
    """How many studies were used, where train_studies says so."""
    if config.train_studies is None:
        return []
    fitted = fitted_on(data.split, config)
    every = int(fitted.sum())
    if config.train_studies > every:
        return [f"train_studies is {config.train_studies}, but there are only {every}."]
    used = [int((draw.fit | draw.choose & fitted).sum()) for draw in draws]
    if min(used) == every:
        return []
    much = f"{min(used)}" if min(used) == max(used) else f"{min(used)} to {max(used)}"
    often = f" in each of {len(draws)} draws of patients" if len(draws) > 1 else ""
    return [f"{much} of {every} training studies were used{often} (train_studies)."]


def notes_on_fits(name: str, draws: Sequence[Heads]) -> list[str]:
    """What a reader should know of the fits of a feature set."""
    notes = []
    for number, of in enumerate(draws):
        where = f", draw {number + 1}" if len(draws) > 1 else ""
        if of.constant_features:
            notes.append(
                f"{name} features{where}: {of.constant_features} of them do not vary over the labelled "
                "studies and count nothing."
            )
        for label, head in of.heads.items():
            if head.constant:
                notes.append(
                    f"{name} features{where}: {label} has one class among the labelled studies: it is "
                    "predicted by its prevalence, an AUROC of 0.5."
                )
            elif head.failed:
                at = ", ".join(f"{C:g}" for C in head.failed)
                notes.append(
                    f"{name} features{where}: {label} did not converge in up to {MAX_ITERATIONS} iterations "
                    f"at C = {at} (chosen: {head.C:g})."
                )
    return notes


def notes_on_errors(
    name: str, scored: Mapping[str, LabelValues], evidence: Mapping[str, Evidence]
) -> list[str]:
    """A line where the resamples' error of an AUROC is not DeLong's, of the first draw."""
    ratios = {
        label: ratio
        for label, values in scored.items()
        if (ratio := doubtful(values, evidence[label])) is not None
    }
    if not ratios:
        return []
    text = ", ".join(f"{label} ({ratio:.2f})" for label, ratio in ratios.items())
    return [
        f"{name} features: the standard error of AUROC over resamples differs from DeLong's, its ratio to it "
        f"in brackets: {text}."
    ]


def notes_on_evidence(evidence: Mapping[str, Evidence], resamples: int) -> list[str]:
    """A line per label that some resamples cannot score or whose patients are too few to tell."""
    notes = []
    for name, one in evidence.items():
        if skipped := round((1 - one.usable) * resamples):
            notes.append(
                f"{name}: {skipped} of {resamples} resamples hold one class only; the label is skipped in "
                "them."
            )
        if one.interval == "none":
            notes.append(
                f"{name}: {one.positive_patients} test patients with a positive study and "
                f"{one.negative_patients} with a negative one are too few to tell: there is no interval."
            )
    return notes
