"""The Python API, and where each name lives: for type checkers, and for `ray_mae` itself on first use."""

from .adaptation.command import adapt
from .benchmarking.command import benchmark, benchmark_fit, benchmark_open, benchmark_report
from .checkpoint.commands import checkpoint_convert, checkpoint_list, checkpoint_verify
from .checkpoint.inspect import checkpoint_inspect
from .cli import demo, demo_mdae
from .cluster.interruption import Interrupted
from .config import (
    AdaptConfig,
    AshaConfig,
    CheckpointConfig,
    CheckpointConvertConfig,
    CheckpointInspectConfig,
    CheckpointListConfig,
    CheckpointVerifyConfig,
    DatasetEntry,
    DemoConfig,
    DemoMdaeConfig,
    DoctorConfig,
    EmbedConfig,
    EncoderEntry,
    EngineConfig,
    ExportConfig,
    FinetuneConfig,
    FinetuneHead,
    Heads,
    IngestConfig,
    InspectConfig,
    LabelCounts,
    NameSettings,
    OnlineProbeConfig,
    OptimConfig,
    PlanConfig,
    PlanStagesConfig,
    PredictConfig,
    PretrainConfig,
    ProbeConfig,
    ProbeSettings,
    PublishConfig,
    RepeatConfig,
    RunConfig,
    ScalingConfig,
    SegmentConfig,
    StagesConfig,
    StatisticsSettings,
    StudyDataConfig,
    SuiteConfig,
    TableColumns,
    TaskEntry,
    TrackingConfig,
    Trust,
    TuneConfig,
    TuneReportConfig,
    VolumeColumns,
    VolumeDataConfig,
    VolumeSettings,
)
from .data.decoding.files import decode_image, decode_volume
from .data.ingest.job import ingest
from .encoders.convnextv2_settings import ConvNextV2Settings
from .encoders.primus_settings import PrimusSettings
from .encoders.resenc_settings import ResEncSettings
from .encoders.vit_settings import VitSettings
from .evaluate.card.command import inspect
from .evaluate.embed import embed
from .evaluate.finetune.classifier import load_classifier
from .evaluate.finetune.command import evaluate_finetune
from .evaluate.predict.command import predict
from .evaluate.probe.command import evaluate_probe
from .evaluate.segment.command import evaluate_segment
from .evaluate.segment.model import load_segmenter
from .exports.command import export
from .exports.publish import publish
from .health.command import doctor
from .inference.load import load_encoder
from .methods.dino.settings import DinoSettings
from .methods.ganmae.settings import GanmaeSettings
from .methods.mae.settings import MaeSettings
from .methods.mdae.settings import MdaeSettings
from .methods.mvmae.settings import MvmaeSettings
from .methods.rmae.settings import RmaeSettings
from .methods.simclr.settings import SimclrSettings
from .methods.simmim.settings import SimmimSettings
from .methods.supervised.settings import SupervisedSettings
from .methods.videomac.settings import VideomacSettings
from .methods.voco.settings import VocoSettings
from .methods.volumefusion.settings import VolumefusionSettings
from .run import pretrain
from .search.tune import tune, tune_report
from .train.forecast.command import plan

__version__: str
__all__ = [
    "AdaptConfig",
    "AshaConfig",
    "CheckpointConfig",
    "CheckpointConvertConfig",
    "CheckpointInspectConfig",
    "CheckpointListConfig",
    "CheckpointVerifyConfig",
    "ConvNextV2Settings",
    "DatasetEntry",
    "DemoConfig",
    "DemoMdaeConfig",
    "DinoSettings",
    "DoctorConfig",
    "EmbedConfig",
    "EncoderEntry",
    "EngineConfig",
    "ExportConfig",
    "FinetuneConfig",
    "FinetuneHead",
    "GanmaeSettings",
    "Heads",
    "IngestConfig",
    "InspectConfig",
    "Interrupted",
    "LabelCounts",
    "MaeSettings",
    "MdaeSettings",
    "MvmaeSettings",
    "NameSettings",
    "OnlineProbeConfig",
    "OptimConfig",
    "PlanConfig",
    "PlanStagesConfig",
    "PredictConfig",
    "PretrainConfig",
    "PrimusSettings",
    "ProbeConfig",
    "ProbeSettings",
    "PublishConfig",
    "RepeatConfig",
    "ResEncSettings",
    "RmaeSettings",
    "RunConfig",
    "ScalingConfig",
    "SegmentConfig",
    "SimclrSettings",
    "SimmimSettings",
    "StagesConfig",
    "StatisticsSettings",
    "StudyDataConfig",
    "SuiteConfig",
    "SupervisedSettings",
    "TableColumns",
    "TaskEntry",
    "TrackingConfig",
    "Trust",
    "TuneConfig",
    "TuneReportConfig",
    "VideomacSettings",
    "VitSettings",
    "VocoSettings",
    "VolumeColumns",
    "VolumeDataConfig",
    "VolumeSettings",
    "VolumefusionSettings",
    "adapt",
    "benchmark",
    "benchmark_fit",
    "benchmark_open",
    "benchmark_report",
    "checkpoint_convert",
    "checkpoint_inspect",
    "checkpoint_list",
    "checkpoint_verify",
    "decode_image",
    "decode_volume",
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
    "predict",
    "pretrain",
    "publish",
    "tune",
    "tune_report",
]
