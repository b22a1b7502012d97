"""`export`: the encoder as files that other libraries load."""

from typing import Any

from safetensors.numpy import save_file

from ray_mae.checkpoint import format as ckpt
from ray_mae.config import ExportConfig
from ray_mae.config.registry import load
from ray_mae.summary import FILE as SUMMARY
from ray_mae.summary import write_summary

FORMATS = {
    "timm": "ray_mae.exports.timm:export_timm",
    "nnunet": "ray_mae.exports.nnunet:export_nnunet",
    "monai": "ray_mae.exports.nnunet:export_monai",
}
"""Functions (path of the checkpoint, facts of the encoder, output folder) → how to load it, in words."""


def export(config: ExportConfig) -> dict[str, Any]:
    """Writes the encoder in the format asked for.

    encoder.safetensors and encoder.json, which `load_encoder` reads, are always there.

    Returns:
        The summary, also in summary.json.

    Raises:
        ValueError: for a format that does not fit the encoder.
    """
    facts = ckpt.encoder_facts(config.checkpoint)
    fitting = facts.settings.exports
    if config.format not in fitting:
        raise ValueError(
            f"{config.checkpoint} holds an encoder {facts.settings.name}: give --format "
            f"{' or '.join(fitting)}, not {config.format}"
        )
    config.output.mkdir(parents=True, exist_ok=True)
    save_file(ckpt.encoder_weights(config.checkpoint), config.output / ckpt.ENCODER)
    ckpt.write_exported(config.output, facts)
    how_to_load = load(FORMATS[config.format])(config.checkpoint, facts, config.output)
    files = sorted(p.name for p in config.output.iterdir() if p.name != "summary.json")
    return write_summary(
        config.output,
        {
            "command": "export",
            "format": config.format,
            "checkpoint": str(config.checkpoint),
            "files": files,
            "load": how_to_load,
            "pass_on": f"{config.output}, without {SUMMARY}, which names your paths; a run's folder holds "
            "pictures and reports of patients",
        },
    )
