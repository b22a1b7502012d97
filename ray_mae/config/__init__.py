"""Every setting of every command: typed, documented, bounded, in one place.

The classes are the schema of the YAML files in `jobs/`, of the command line and of the Python
API alike. A setting is known everywhere by its dotted name, such as `method.mask_ratio`. Those of a
method or an encoder stand beside it: `ray_mae/methods/NAME/settings.py`, `ray_mae/encoders/`.
"""

from ray_mae.config.adapt import AdaptConfig
from ray_mae.config.commands import (
    CheckpointConvertConfig,
    CheckpointInspectConfig,
    CheckpointListConfig,
    CheckpointVerifyConfig,
    DemoConfig,
    DemoMdaeConfig,
    DoctorConfig,
    SubmitConfig,
)
from ray_mae.config.evaluate import (
    EmbedConfig,
    ExportConfig,
    FinetuneConfig,
    PredictConfig,
    ProbeConfig,
    ProbeSettings,
    PublishConfig,
    SegmentConfig,
    SupervisedConfig,
)
from ray_mae.config.ingest import (
    BodyPart,
    IngestConfig,
    InspectConfig,
    NameSettings,
    TableColumns,
    TableEncoding,
    VolumeColumns,
    VolumeSettings,
)
from ray_mae.config.pretrain import (
    CheckpointConfig,
    EngineConfig,
    OnlineProbeConfig,
    PlanConfig,
    PretrainConfig,
    RunConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.config.search import AshaConfig, RepeatConfig, TuneConfig, TuneReportConfig
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    MethodSettings,
    OptimConfig,
    StudyDataConfig,
    VolumeDataConfig,
)
from ray_mae.config.stages import PlanStagesConfig, Stage, StagesConfig
from ray_mae.config.suite import (
    DatasetEntry,
    EncoderEntry,
    FinetuneHead,
    Heads,
    LabelCounts,
    StatisticsSettings,
    SuiteConfig,
    TaskEntry,
    Trust,
)

__all__ = [
    "AdaptConfig",
    "AshaConfig",
    "BodyPart",
    "CheckpointConfig",
    "CheckpointConvertConfig",
    "CheckpointInspectConfig",
    "CheckpointListConfig",
    "CheckpointVerifyConfig",
    "DataConfig",
    "DatasetEntry",
    "DemoConfig",
    "DemoMdaeConfig",
    "DoctorConfig",
    "EmbedConfig",
    "EncoderEntry",
    "EncoderSettings",
    "EngineConfig",
    "ExportConfig",
    "FinetuneConfig",
    "FinetuneHead",
    "Heads",
    "IngestConfig",
    "InspectConfig",
    "LabelCounts",
    "MethodSettings",
    "NameSettings",
    "OnlineProbeConfig",
    "OptimConfig",
    "PlanConfig",
    "PlanStagesConfig",
    "PredictConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProbeSettings",
    "PublishConfig",
    "RepeatConfig",
    "RunConfig",
    "ScalingConfig",
    "SegmentConfig",
    "Stage",
    "StagesConfig",
    "StatisticsSettings",
    "StudyDataConfig",
    "SubmitConfig",
    "SuiteConfig",
    "SupervisedConfig",
    "TableColumns",
    "TableEncoding",
    "TaskEntry",
    "TrackingConfig",
    "Trust",
    "TuneConfig",
    "TuneReportConfig",
    "VolumeColumns",
    "VolumeDataConfig",
    "VolumeSettings",
]
