"""`export`: the encoder as files that other libraries load. `publish` adds cards, graphs and the proof."""

from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.config import ExportConfig
from ray_mae.config.registry import load
from ray_mae.exports.folder import into, listing
from ray_mae.exports.origin import origin_of
from ray_mae.exports.parts import write_own, write_parts
from ray_mae.store import writes_to_stores
from ray_mae.summary import FILE as SUMMARY
from ray_mae.summary import write_summary

EARLIER = {
    "timm": "ray_mae.exports.earlier:write_timm_files",
    "nnunet": "ray_mae.exports.earlier:write_nnunet_files",
    "monai": "ray_mae.exports.earlier:write_state_dict",
}
"""Functions (path of the checkpoint, facts of the encoder, output folder) → how to load it, in words."""


@writes_to_stores()
def export(config: ExportConfig) -> dict[str, Any]:
    """Writes the encoder for every tool that takes its kind, or in a format of version 0.1.

    encoder.safetensors and encoder.json, which `load_encoder` reads, are always there.

    Returns:
        The summary, also in summary.json.

    Raises:
        ValueError: for a format that does not fit the encoder.
    """
    facts = ckpt.encoder_facts(config.checkpoint)
    fitting = facts.settings.exports
    if not fitting:
        raise ValueError(
            f"{config.checkpoint} holds an encoder {facts.settings.name}, as its makers published it: pass "
            "theirs on"
        )
    if config.format and config.format not in fitting:
        raise ValueError(
            f"{config.checkpoint} holds an encoder {facts.settings.name}: give --format "
            f"{' or '.join(fitting)}, not {config.format}"
        )
    with into(config.output) as folder:
        if config.format:
            write_own(config.checkpoint, facts, folder)
            how = load(EARLIER[config.format])(config.checkpoint, facts, folder)
            how_to_load = how.replace(str(folder), str(config.output))
        else:
            origin, name = origin_of(config.checkpoint), folder.name
            pool = facts.settings.default_pool
            how_to_load = write_parts(
                config.checkpoint, facts, origin, folder, name=name, pool=pool
            ).format(folder=config.output)
        files = listing(folder)
    return write_summary(
        config.output,
        {
            "command": "export",
            **({"format": config.format} if config.format else {}),
            "checkpoint": str(config.checkpoint),
            "files": files,
            "load": how_to_load,
            "pass_on": f"{config.output}, without {SUMMARY}, which names your paths; a run's folder holds "
            "pictures and reports of patients. `ray-mae publish` adds a card, and tries every tool",
        },
    )
