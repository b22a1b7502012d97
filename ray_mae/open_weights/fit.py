"""Weights of an encoder of ours for other settings: resampled, folded, or refused with what would do."""

from dataclasses import replace
from pathlib import Path

import torch

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.encoders.resenc import ResEnc, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.open_weights.fold import resample_kernel, resample_positions
from ray_mae.open_weights.ours import OurEncoder, preset_of
from ray_mae.open_weights.primus import shape_settings


def fit_to(ours: OurEncoder, wanted: EncoderSettings, path: Path) -> OurEncoder:
    """Returns the weights for an encoder of other settings: another size of image or patch is resampled.

    Args:
        ours: what there is.
        wanted: settings of the run.
        path: of the source, for messages.

    Raises:
        ValueError: the settings are of another network, with those to set.
    """
    if type(wanted) is not type(ours.settings):
        raise ValueError(
            f"{path} holds an encoder {ours.settings.name}, the run has {wanted.name}: set encoder.name "
            f"{ours.settings.name}, with a method that trains it"
        )
    if isinstance(wanted, ResEncSettings):
        return _fit_resenc(ours, wanted, path)
    if isinstance(wanted, ConvNextV2Settings):
        return _fit_convnextv2(ours, wanted, path)
    if isinstance(wanted, PrimusSettings):
        return _fit_primus(ours, wanted, path)
    if not isinstance(wanted, VitSettings):
        return ours
    now = ours.settings
    assert isinstance(now, VitSettings)
    _require_same(now, wanted, path)
    weights, resampled = dict(ours.weights), dict(ours.resampled)
    notes, fresh = list(ours.notes), list(ours.fresh)
    if wanted.patch_size != now.patch_size:
        weights["patch.weight"] = resample_kernel(weights["patch.weight"], wanted.patch_size)
        resampled["patch.weight"] = f"from patches of {now.patch_size} to {wanted.patch_size} px"
    side = wanted.image_size // wanted.patch_size
    before = round(len(weights["position"]) ** 0.5)
    if wanted.positions == "learned" and side != before:
        weights["position"] = resample_positions(weights["position"], side)
        resampled["position"] = (
            f"from {before} × {before} to {side} × {side} patches (bicubic, antialiased)"
        )
    elif side != before:  # what the settings say, and no weight
        del weights["position"]
        fresh.append("position")
    if wanted.norm_eps != now.norm_eps:
        notes.append(
            f"Its layer norms were trained with eps {now.norm_eps:g}, encoder.norm_eps is "
            f"{wanted.norm_eps:g}."
        )
    return replace(
        ours, settings=wanted, weights=weights, resampled=resampled, fresh=fresh, notes=notes
    )


def _require_same(now: VitSettings, wanted: VitSettings, path: Path) -> None:
    """Raise where a network of the wanted settings cannot hold the weights."""
    if now.shape != wanted.shape:
        preset = preset_of(now.shape)
        sets = ", ".join(f"encoder.{name} {value:g}" if name != "preset" else f"encoder.preset {value}"
                         for name, value in preset.items())  # fmt: skip
        shape = now.shape
        raise ValueError(
            f"{path} was made with width {shape.width}, depth {shape.depth}, heads {shape.heads}, mlp_ratio "
            f"{shape.mlp_ratio:g}: set {sets}, or leave them out"
        )
    if now.qk_norm != wanted.qk_norm:
        raise ValueError(
            f"{path} was made with{'' if now.qk_norm else 'out'} qk_norm: set encoder.qk_norm "
            f"{str(now.qk_norm).lower()}"
        )
    if now.registers != wanted.registers:
        raise ValueError(
            f"{path} has {now.registers or 'no'} registers: set encoder.registers {now.registers}"
        )
    if now.positions != wanted.positions:
        kind = "a learned table of" if now.positions == "learned" else "fixed sine-cosine"
        raise ValueError(f"{path} has {kind} positions: set encoder.positions {now.positions}")


def _fit_resenc(ours: OurEncoder, wanted: ResEncSettings, path: Path) -> OurEncoder:
    now = ours.settings
    assert isinstance(now, ResEncSettings)
    if now.preset != wanted.preset:
        raise ValueError(
            f"{path} has the stages of encoder.preset {now.preset}: set that, or leave it out"
        )
    if now.film and not wanted.film:
        network = ResEnc(now)
        inner = {n: w for n, w in ours.weights.items() if not n.startswith("decoder.")}
        network.load_state_dict(inner)
        fold_film(network)
        folded = dict(network.state_dict())
        rewritten = {
            name: "FiLM at noise level 0 folded into the norms"
            for name, w in folded.items()
            if not torch.equal(w, inner[name])
        }
        kept = {n: w for n, w in ours.weights.items() if n.startswith("decoder.")}
        return replace(ours, settings=wanted, weights=folded | kept, rewritten=rewritten)
    fresh = [*ours.fresh, *(("film.", "time.") if wanted.film and not now.film else ())]
    return replace(ours, settings=wanted, fresh=fresh)


def _fit_convnextv2(ours: OurEncoder, wanted: ConvNextV2Settings, path: Path) -> OurEncoder:
    """A norm after the mean is left out where the run has one before it, which is fresh."""
    now = ours.settings
    assert isinstance(now, ConvNextV2Settings)
    if (now.widths, now.blocks) != (wanted.widths, wanted.blocks):
        own = f", encoder.width {now.width}" if now.width else ""
        raise ValueError(
            f"{path} has stages of {list(now.widths)} channels: set encoder.preset {now.preset}{own}, or "
            "leave them out"
        )
    if now.norm == wanted.norm:
        return replace(ours, settings=wanted)
    before, after = ("norm_pre" if s.norm == "points" else "head.norm" for s in (now, wanted))
    weights = {n: w for n, w in ours.weights.items() if not n.startswith(f"{before}.")}
    width = now.widths[-1]
    weights |= {f"{after}.weight": torch.ones(width), f"{after}.bias": torch.zeros(width)}
    fresh = [*ours.fresh, f"{after}.weight", f"{after}.bias"]
    return replace(ours, settings=wanted, weights=weights, fresh=fresh)


def _fit_primus(ours: OurEncoder, wanted: PrimusSettings, path: Path) -> OurEncoder:
    from ray_mae.encoders.primus import resample_grid

    now = ours.settings
    assert isinstance(now, PrimusSettings)
    if now.shape != wanted.shape or now.plain != wanted.plain:
        values = {**shape_settings(now.shape), "plain": str(now.plain).lower()}
        sets = ", ".join(f"encoder.{name} {value}" for name, value in values.items())
        raise ValueError(f"{path} holds {now.described}: set {sets}, or leave them out")
    if now.patch_size != wanted.patch_size:
        raise ValueError(
            f"{path} has patches of {now.patch_size}³ voxels: set encoder.patch_size {now.patch_size}"
        )
    weights, resampled = dict(ours.weights), dict(ours.resampled)
    if now.side != wanted.side:
        weights["eva.pos_embed"] = resample_grid(weights["eva.pos_embed"], wanted.side)
        resampled["eva.pos_embed"] = f"from {now.side}³ to {wanted.side}³ patches (trilinear)"
    return replace(ours, settings=wanted, weights=weights, resampled=resampled)
