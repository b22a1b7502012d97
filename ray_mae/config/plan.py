"""Settings of the forecast of a run."""

from dataclasses import dataclass
from pathlib import Path

from ray_mae.config.pretrain import MdaeRun, MvmaeRun
from ray_mae.settings import Checked, setting


@dataclass(frozen=True, kw_only=True)
class _Planned(Checked):
    shards: Path | None = None
    """Folder that `ingest` wrote; or say how many samples there will be."""
    samples: int | None = setting(None, ge=1)
    """Training studies or volumes, where there are no shards yet."""
    views_per_sample: float = setting(1.6, ge=1)
    """Views of a study where there are no shards yet; MIMIC-CXR has 1.7, PadChest 1.5."""
    bytes_per_view: float | None = setting(None, gt=0)
    """Stored size of a view, or of a volume, where there are no shards yet; default: 35 kB and 5 MB."""
    gpu: str | None = None
    """Name of the GPU, such as H100, "A100 40GB" or "RTX 4090"."""
    gpus: int | None = setting(None, ge=1)
    """How many; default: scaling.workers."""
    peak_tflops: float | None = setting(None, gt=0)
    """Of a GPU that has no name here, or instead of the named one's: dense peak in the run's precision."""
    gpu_memory: float | None = setting(None, gt=0)
    """The same: its memory in GiB."""
    mfu: float | None = setting(None, gt=0, le=1)
    """Share of the peak that a run uses; default: 0.3 for studies, 0.15 for volumes, which is a guess."""
    price_per_gpu_hour: float | None = setting(None, ge=0)
    """In any currency: what the run costs is shown in the same."""
    output: Path | None = None
    """Folder for summary.json; default: none is written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shards is None and self.samples is None:
            raise ValueError("how much data? Give --shards, or --samples where there are none yet")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(MvmaeRun, _Planned):
    """Before a run: batch, steps, memory per GPU under ZeRO, storage, hours. Nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class PlanMdaeConfig(MdaeRun, _Planned):
    """Before a run of MDAE: batch, steps, memory per GPU under ZeRO, storage, hours."""


AnyPlanConfig = PlanConfig | PlanMdaeConfig
PLAN: dict[str, type[PlanConfig] | type[PlanMdaeConfig]] = {
    "mvmae": PlanConfig,
    "mdae": PlanMdaeConfig,
}
"""The settings of `plan` by `method.name`: those of `pretrain`, and more."""
