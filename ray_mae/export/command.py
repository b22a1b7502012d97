"""`export`: the encoder as files that other libraries load."""

import json
from typing import Any

from safetensors.numpy import save_file

from ray_mae.checkpoint import format as ckpt
from ray_mae.config import ExportConfig, MdaeConfig


def export(config: ExportConfig) -> dict[str, Any]:
    """Write the encoder in the format asked for; returns the summary, also in summary.json.

    encoder.safetensors and encoder.json, which `load_encoder` reads, are always there. Raises
    ValueError for a format that does not fit the method.
    """
    method = ckpt.method_config(config.checkpoint)
    fitting = ("nnunet", "monai") if isinstance(method, MdaeConfig) else ("timm",)
    if config.format not in fitting:
        raise ValueError(
            f"{config.checkpoint} holds an encoder of {method.name}: give --format "
            f"{' or '.join(fitting)}, not {config.format}"
        )
    weights = ckpt.encoder_weights(config.checkpoint)
    config.output.mkdir(parents=True, exist_ok=True)
    save_file(weights, config.output / ckpt.ENCODER)
    spacing = ckpt.spacing_of(config.checkpoint)
    ckpt.write_exported(config.output, method, spacing)
    if isinstance(method, MdaeConfig):
        from ray_mae.export.nnunet import export_monai, export_nnunet

        write = export_nnunet if config.format == "nnunet" else export_monai
        load = write(ckpt.all_weights(config.checkpoint), method, spacing, config.output)
    else:
        from ray_mae.export.timm import export_timm

        load = export_timm(weights, method, config.output)
    summary = {
        "command": "export",
        "format": config.format,
        "checkpoint": str(config.checkpoint),
        "files": sorted(p.name for p in config.output.iterdir() if p.name != "summary.json"),
        "load": load,
    }
    (config.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary
