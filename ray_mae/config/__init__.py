"""Every setting of every command: typed, documented, bounded, in one place.

The classes are the schema of the YAML files in `jobs/`, of the command line and of the Python
API alike. A setting is known everywhere by its dotted name, such as `method.mask_ratio`.
"""

from ray_mae.config.checkpoint import (
    CheckpointConvertConfig,
    CheckpointListConfig,
    CheckpointVerifyConfig,
)
from ray_mae.config.demo import DemoConfig, DemoMdaeConfig
from ray_mae.config.doctor import DoctorConfig
from ray_mae.config.evaluate import (
    EmbedConfig,
    ExportConfig,
    FinetuneConfig,
    ProbeConfig,
    SegmentConfig,
    SupervisedConfig,
)
from ray_mae.config.ingest import (
    IngestConfig,
    InspectConfig,
    TableColumns,
    VolumeColumns,
    VolumeSettings,
)
from ray_mae.config.methods import MdaeConfig, MvmaeConfig
from ray_mae.config.plan import PLAN, AnyPlanConfig, PlanConfig, PlanMdaeConfig
from ray_mae.config.pretrain import (
    PRETRAIN,
    AnyPretrainConfig,
    AnyRun,
    CheckpointConfig,
    DataConfig,
    EngineConfig,
    MdaeRun,
    MvmaeRun,
    OnlineProbeConfig,
    OptimConfig,
    PretrainConfig,
    PretrainMdaeConfig,
    RunSettings,
    ScalingConfig,
    TrackingConfig,
    VolumeDataConfig,
    pretrain_config,
)
from ray_mae.config.search import (
    TUNE,
    AnyTuneConfig,
    AshaConfig,
    RepeatConfig,
    Search,
    TuneConfig,
    TuneMdaeConfig,
    TuneReportConfig,
)
from ray_mae.config.submit import SubmitConfig

__all__ = [
    "PLAN",
    "PRETRAIN",
    "TUNE",
    "AnyPlanConfig",
    "AnyPretrainConfig",
    "AnyRun",
    "AnyTuneConfig",
    "AshaConfig",
    "CheckpointConfig",
    "CheckpointConvertConfig",
    "CheckpointListConfig",
    "CheckpointVerifyConfig",
    "DataConfig",
    "DemoConfig",
    "DemoMdaeConfig",
    "DoctorConfig",
    "EmbedConfig",
    "EngineConfig",
    "ExportConfig",
    "FinetuneConfig",
    "IngestConfig",
    "InspectConfig",
    "MdaeConfig",
    "MdaeRun",
    "MvmaeConfig",
    "MvmaeRun",
    "OnlineProbeConfig",
    "OptimConfig",
    "PlanConfig",
    "PlanMdaeConfig",
    "PretrainConfig",
    "PretrainMdaeConfig",
    "ProbeConfig",
    "RepeatConfig",
    "RunSettings",
    "ScalingConfig",
    "Search",
    "SegmentConfig",
    "SubmitConfig",
    "SupervisedConfig",
    "TableColumns",
    "TrackingConfig",
    "TuneConfig",
    "TuneMdaeConfig",
    "TuneReportConfig",
    "VolumeColumns",
    "VolumeDataConfig",
    "VolumeSettings",
    "pretrain_config",
]
