"""Weights that a new run begins with: of another run, of an exported encoder, or of others."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.base import from_dict, to_dict
from ray_mae.config.sections import EncoderSettings
from ray_mae.config.urls import opened
from ray_mae.data.paths import is_remote, with_os_errors
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.registry import ENCODERS
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.files import replacing, write_whole

if TYPE_CHECKING:
    from ray_mae.open_weights.ours import OurEncoder
    from ray_mae.open_weights.source import OpenEncoder

_REPORT = f"{ckpt.BEGUN_WITH}.json"
_WITHOUT_WEIGHTS = {"drop_path"}
"""Settings of encoders on which no weight depends."""


@dataclass(frozen=True)
class Beginning:
    """What the workers of a run begin with."""

    weights: Path
    """Folder that `begin_with` reads."""
    table: dict[str, Any]
    """What was taken, rewritten, resampled, left out and is new, as plain values."""


def encoder_of(
    weights: Path, output: Path | None = None, default: EncoderSettings | None = None
) -> EncoderSettings | None:
    """Returns the settings of the encoder that a run which begins with weights has, unless it says otherwise.

    Args:
        weights: of a run, an exported encoder or others.
        output: folder of the run: where it was begun, its own settings count, and the weights may be gone.
        default: the method's, for what weights of others leave open (FiLM); None: without it.

    Returns:
        The settings; None where there are no such weights, which whoever needs them says.

    Raises:
        ValueError: weights of others that cannot be read, or hold what no encoder here has.
    """
    weights, output = opened(weights), output and opened(output)
    try:
        return with_os_errors(lambda: _encoder_of(weights, output, default))
    except OSError:
        if not is_remote(weights):
            raise
        return None  # who sends a job may not read the store: whoever needs them says it


def _encoder_of(
    weights: Path, output: Path | None, default: EncoderSettings | None
) -> EncoderSettings | None:
    """The same, of paths that may be over fsspec."""
    if output is not None:
        with suppress(OSError, ValueError):  # of a run that is damaged: said where it is continued
            last = ckpt.last_committed(output)
            if last is not None:
                return ckpt.read_config(last).encoder
        if (report := _left_of(weights.resolve(), output)) is not None:
            return _settings(report)
    found = open_own_size(weights)
    if found is not None:
        from ray_mae.open_weights.ours import as_ours

        settings = as_ours(found).settings
        if isinstance(settings, ResEncSettings) and isinstance(default, ResEncSettings):
            settings = replace(settings, film=default.film)
        if isinstance(settings, ConvNextV2Settings):
            settings = replace(settings, norm="points")  # which pretraining trains
        return settings
    try:
        return ckpt.encoder_facts(weights).settings
    except FileNotFoundError:
        return None


def begin(
    weights: Path, wanted: EncoderSettings, run: Path, names: Callable[[], Iterable[str]]
) -> Beginning:
    """Makes what the workers of a new run begin with; weights that are not as the run has them are rewritten.

    Those lie in the run's folder afterwards, so that the source may go away.

    Args:
        weights: of another run, an exported encoder or others.
        wanted: settings of the run's encoder.
        run: its folder.
        names: of the weights of the run's method, for what is left out.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: they do not fit, with the settings that would.
    """
    if (report := _left_of(weights, run)) is not None:
        return Beginning(run / ckpt.BEGUN_WITH, report["table"])
    found = open_own_size(weights)
    if found is None:
        return _of_ours(weights, wanted, run)
    from ray_mae.open_weights.ours import LARGEST_DIFFERENCE, as_ours, largest_difference

    ours = as_ours(found)
    difference = None
    if found.settings.dimensions == 2:
        difference = largest_difference(found, ours)
        if not difference < LARGEST_DIFFERENCE:
            raise ValueError(
                f"{weights}: the tokens of ray-mae's network differ from those of its makers' by "
                f"{difference:.1e}, and may by {LARGEST_DIFFERENCE:g}: it has a part that was not recognised"
            )
    fitted, table = _fitted(found, ours, wanted, names)
    if difference is not None:
        table["largest_difference_of_tokens"] = difference
    _write(run, weights, fitted, table, {})
    return Beginning(run / ckpt.BEGUN_WITH, table)


def preview(
    weights: Path, wanted: EncoderSettings, names: Callable[[], Iterable[str]]
) -> dict[str, Any]:
    """Returns the table of `begin` without making anything; empty for weights of ours. Raises as `begin`."""
    found = open_own_size(weights)
    if found is None:
        return {}
    from ray_mae.open_weights.ours import as_ours

    return _fitted(found, as_ours(found), wanted, names)[1]


def _fitted(
    found: "OpenEncoder",
    ours: "OurEncoder",
    wanted: EncoderSettings,
    names: Callable[[], Iterable[str]],
) -> tuple["OurEncoder", dict[str, Any]]:
    """The weights as the run has them, and their table."""
    from ray_mae.open_weights.fit import fit_to
    from ray_mae.open_weights.table import report as table_of

    fitted = fit_to(ours, wanted, found.path)
    kept = {name.removeprefix("encoder.") for name in names()}
    return fitted, table_of(found, fitted, kept)


def _of_ours(weights: Path, wanted: EncoderSettings, run: Path) -> Beginning:
    """Of a run, a checkpoint or an exported encoder: read as it is, unless the settings are others."""
    exported = (weights / ckpt.EXPORTED).is_file()
    folder = weights if exported else ckpt.find_checkpoint(weights)
    table: dict[str, Any] = {
        "source": str(folder),
        "family": "an encoder exported by ray-mae" if exported else "a checkpoint of ray-mae",
    }
    facts = ckpt.encoder_facts(folder)
    now = facts.settings
    if facts.read:
        table["read"] = list(facts.read)
    if _of_weights(now) == _of_weights(wanted):
        return Beginning(folder, table)
    import torch

    from ray_mae.open_weights.fit import fit_to
    from ray_mae.open_weights.ours import OurEncoder

    saved = {name: torch.from_numpy(w) for name, w in ckpt.weights_to_begin_with(folder).items()}
    lead = "encoder."
    encoder = {n.removeprefix(lead): w for n, w in saved.items() if n.startswith(lead)}
    ours = OurEncoder(now, encoder, {name: (name,) for name in encoder})
    fitted = fit_to(ours, wanted, folder)
    table |= {
        "rewritten": sorted({*fitted.rewritten.values()}),
        "resampled": fitted.resampled,
        "fresh": fitted.fresh,
        "notes": fitted.notes,
    }
    others = {n: w for n, w in saved.items() if not n.startswith(lead)}
    _write(run, weights, fitted, table, others)
    if (folder / ckpt.TOKENIZER).is_file():
        write_whole(run / ckpt.BEGUN_WITH / ckpt.TOKENIZER, (folder / ckpt.TOKENIZER).read_text())
    return Beginning(run / ckpt.BEGUN_WITH, table)


def _of_weights(settings: EncoderSettings) -> dict[str, Any]:
    values = {k: v for k, v in to_dict(settings).items() if k not in _WITHOUT_WEIGHTS}
    if isinstance(settings, ResEncSettings):  # it has no table of positions
        values.pop("crop_size")
    shape = getattr(settings, "shape", None)  # a preset, or its numbers one by one
    if shape is not None:
        for name in ("preset", "width", "depth", "heads", "mlp_ratio"):
            values.pop(name, None)
        values["shape"] = shape
    return values


def open_own_size(weights: Path) -> Any:
    """The encoder of others, its positions as they are; None where these are no weights of others."""
    weights = ckpt.at_hand(weights)
    if ckpt.is_ours(weights):
        return None
    from ray_mae.open_weights.read import looks_open, read_open

    return read_open(weights, own_size=True) if looks_open(weights) else None


def describe_beginning(table: Mapping[str, Any]) -> dict[str, str]:
    """Returns the table of a beginning as names and texts, for the terminal."""

    def listed(counts: Any) -> str:
        if isinstance(counts, Mapping):
            return "; ".join(f"{k}: {v}" for k, v in counts.items())
        return ", ".join(map(str, counts))

    texts = {"begins with": f"{table['source']}, {table['family']}"}
    if "licence" in table:
        texts["licence"] = f"{table['licence']}; what it was trained on is not known"
    if "tensors" in table:
        texts["taken"] = f"{table['taken']:,} of {table['tensors']:,} tensors as they are"
    names = {"rewritten": "rewritten", "resampled": "resampled", "left_out": "left out"}
    names |= {"fresh": "new in the encoder", "notes": "note"}
    texts |= {words: listed(table.get(name, ())) for name, words in names.items()}
    return {name: text for name, text in texts.items() if text}


# ------------------------------------------------------------------------------------ a run's folder


def _write(
    run: Path,
    weights: Path,
    fitted: "OurEncoder",
    table: dict[str, Any],
    others: Mapping[str, Any],
) -> None:
    from safetensors.torch import save_file

    folder = run / ckpt.BEGUN_WITH
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name if name.startswith("decoder.") else f"encoder.{name}": w.contiguous().clone()
        for name, w in fitted.weights.items()
    } | dict(others)
    with replacing(folder / ckpt.WEIGHTS) as file:
        save_file(tensors, file)
    report = {
        "path": str(weights),
        "encoder": to_dict(fitted.settings),
        "fresh": fitted.fresh,
        "table": table,
    }
    write_whole(folder / _REPORT, json.dumps(report, indent=1) + "\n")


def _left_of(weights: Path, run: Path) -> dict[str, Any] | None:
    """What a start of the run, that came to no checkpoint, has left of weights that are gone by now."""
    report = None if weights.exists() else _read_begun(run)
    return report if report and report["path"] == str(weights) else None


def _read_begun(run: Path) -> dict[str, Any] | None:
    """Returns what is written down of the weights that a run began with, where they were rewritten for it."""
    file = run / ckpt.BEGUN_WITH / _REPORT
    return json.loads(file.read_text()) if file.is_file() else None


def fresh_names(folder: Path) -> tuple[str, ...]:
    """Returns how names of an encoder's weights begin that a source has not, and that may stay new."""
    file = folder / _REPORT
    if not file.is_file():
        return ()
    return tuple(f"encoder.{name}" for name in json.loads(file.read_text())["fresh"])


def drop_begun(run: Path) -> None:
    """Removes the weights that a run began with, once it has a checkpoint of its own; their table stays."""
    (run / ckpt.BEGUN_WITH / ckpt.WEIGHTS).unlink(missing_ok=True)


def _settings(report: dict[str, Any]) -> EncoderSettings:
    values = report["encoder"]
    return from_dict(ENCODERS[values["name"]], values)
