"""ray_mae: pretrain medical vision encoders on your own archive, on your own Ray cluster.

The commands of `ray-mae` are functions here, with the same settings.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import ray_mae.cluster.runtime  # noqa: F401  sets what Ray reads when it is imported

__version__ = version("ray-mae")

_HOMES = {
    "ingest": "ray_mae.data.ingest.job",
    "inspect": "ray_mae.evaluate.card.command",
    "pretrain": "ray_mae.run",
    "plan": "ray_mae.train.forecast.command",
    "doctor": "ray_mae.health.command",
    "checkpoint_list": "ray_mae.checkpoint.commands",
    "checkpoint_verify": "ray_mae.checkpoint.commands",
    "tune": "ray_mae.search.tune",
    "tune_report": "ray_mae.search.tune",
    "embed": "ray_mae.evaluate.embed",
    "evaluate_probe": "ray_mae.evaluate.probe.command",
    "evaluate_finetune": "ray_mae.evaluate.finetune.command",
    "evaluate_segment": "ray_mae.evaluate.segment.command",
    "load_classifier": "ray_mae.evaluate.finetune.classifier",
    "load_segmenter": "ray_mae.evaluate.segment.model",
    "export": "ray_mae.exports.command",
    "demo": "ray_mae.cli",
    "demo_mdae": "ray_mae.cli",
    "load_encoder": "ray_mae.inference.load",
    "IngestConfig": "ray_mae.config",
    "InspectConfig": "ray_mae.config",
    "PretrainConfig": "ray_mae.config",
    "DoctorConfig": "ray_mae.config",
    "PlanConfig": "ray_mae.config",
    "EmbedConfig": "ray_mae.config",
    "ProbeConfig": "ray_mae.config",
    "FinetuneConfig": "ray_mae.config",
    "SegmentConfig": "ray_mae.config",
    "ExportConfig": "ray_mae.config",
    "DemoConfig": "ray_mae.config",
    "DemoMdaeConfig": "ray_mae.config",
    "MvmaeSettings": "ray_mae.methods.mvmae.settings",
    "MdaeSettings": "ray_mae.methods.mdae.settings",
    "VitSettings": "ray_mae.encoders.vit_settings",
    "ResEncSettings": "ray_mae.encoders.resenc_settings",
    "CheckpointListConfig": "ray_mae.config",
    "CheckpointVerifyConfig": "ray_mae.config",
    "TuneConfig": "ray_mae.config",
    "TuneReportConfig": "ray_mae.config",
}

if TYPE_CHECKING:
    from ray_mae.checkpoint.commands import checkpoint_list, checkpoint_verify
    from ray_mae.cli import demo, demo_mdae
    from ray_mae.config import (
        CheckpointListConfig,
        CheckpointVerifyConfig,
        DemoConfig,
        DemoMdaeConfig,
        DoctorConfig,
        EmbedConfig,
        ExportConfig,
        FinetuneConfig,
        IngestConfig,
        InspectConfig,
        PlanConfig,
        PretrainConfig,
        ProbeConfig,
        SegmentConfig,
        TuneConfig,
        TuneReportConfig,
    )
    from ray_mae.data.ingest.job import ingest
    from ray_mae.encoders.resenc_settings import ResEncSettings
    from ray_mae.encoders.vit_settings import VitSettings
    from ray_mae.evaluate.card.command import inspect
    from ray_mae.evaluate.embed import embed
    from ray_mae.evaluate.finetune.classifier import load_classifier
    from ray_mae.evaluate.finetune.command import evaluate_finetune
    from ray_mae.evaluate.probe.command import evaluate_probe
    from ray_mae.evaluate.segment.command import evaluate_segment
    from ray_mae.evaluate.segment.model import load_segmenter
    from ray_mae.exports.command import export
    from ray_mae.health.command import doctor
    from ray_mae.inference.load import load_encoder
    from ray_mae.methods.mdae.settings import MdaeSettings
    from ray_mae.methods.mvmae.settings import MvmaeSettings
    from ray_mae.run import pretrain
    from ray_mae.search.tune import tune, tune_report
    from ray_mae.train.forecast.command import plan

__all__ = [
    "CheckpointListConfig",
    "CheckpointVerifyConfig",
    "DemoConfig",
    "DemoMdaeConfig",
    "DoctorConfig",
    "EmbedConfig",
    "ExportConfig",
    "FinetuneConfig",
    "IngestConfig",
    "InspectConfig",
    "MdaeSettings",
    "MvmaeSettings",
    "PlanConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ResEncSettings",
    "SegmentConfig",
    "TuneConfig",
    "TuneReportConfig",
    "VitSettings",
    "checkpoint_list",
    "checkpoint_verify",
    "demo",
    "demo_mdae",
    "doctor",
    "embed",
    "evaluate_finetune",
    "evaluate_probe",
    "evaluate_segment",
    "export",
    "ingest",
    "inspect",
    "load_classifier",
    "load_encoder",
    "load_segmenter",
    "plan",
    "pretrain",
    "tune",
    "tune_report",
]


def __getattr__(name: str) -> Any:
    """Import on first use: torch and Ray take seconds, and `--help` needs neither."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ray_mae' has no attribute '{name}'")
