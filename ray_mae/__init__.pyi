"""The Python API, and where each name lives: for type checkers, and for `ray_mae` itself on first use."""

from .checkpoint.commands import checkpoint_list, checkpoint_verify
from .cli import demo, demo_mdae
from .config import (
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
from .data.ingest.job import ingest
from .encoders.resenc_settings import ResEncSettings
from .encoders.vit_settings import VitSettings
from .evaluate.card.command import inspect
from .evaluate.embed import embed
from .evaluate.finetune.classifier import load_classifier
from .evaluate.finetune.command import evaluate_finetune
from .evaluate.probe.command import evaluate_probe
from .evaluate.segment.command import evaluate_segment
from .evaluate.segment.model import load_segmenter
from .exports.command import export
from .health.command import doctor
from .inference.load import load_encoder
from .methods.mdae.settings import MdaeSettings
from .methods.mvmae.settings import MvmaeSettings
from .run import pretrain
from .search.tune import tune, tune_report
from .train.forecast.command import plan

__version__: str
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
