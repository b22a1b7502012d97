"""Settings of an adaptation curve."""

from dataclasses import dataclass, field
from pathlib import Path

from ray_mae.config.base import ValidatedConfig
from ray_mae.config.evaluate import ProbeSettings
from ray_mae.config.pretrain import RunConfig, as_list


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(ValidatedConfig):
    """Pretrain on more and more of one's own studies, from open weights and random ones, and probe each."""

    shards: Path
    """Folder that `ingest` wrote: one's own archive."""
    output: Path
    """Folder of the curve: runs, report.html, adapt.json, adapt.csv, summary.json."""
    starts: list[Path] | Path
    """What pretraining begins with: open weights, and runs of your own; each has its file's or folder's name.
    All is compared with the first one, as it came."""
    random: bool = True
    """Begin with random weights of the first start's architecture, too."""
    train_studies: list[int] = field(
        default_factory=lambda: [1000, 3000, 10000], metadata={"ge": 1, "some": True}
    )
    """Studies or volumes to pretrain on, each a point of the curve: patients are drawn until there are so
    many. All of them are always the last point."""
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"ge": 0, "some": True})
    """Of the weights, the order and the draw of patients. An interval over seeds takes three or more."""
    run: RunConfig
    """Settings of every pretraining, as of `pretrain`. With optim.steps all points have one budget; with
    optim.epochs it grows with the studies."""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    """Of every encoder; as of `evaluate probe`. Its labelled training studies are the same for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [path.name for path in as_list(self.starts)]
        if not names:
            raise ValueError("starts names nothing to begin with: give [PATH]")
        if RANDOM in names or len({*names}) < len(names):
            raise ValueError(
                f"starts must be of different names, none of them {RANDOM}, got {', '.join(names)}: a link "
                "of another name will do"
            )
        if self.run.weights:
            raise ValueError("run.weights is what starts says: leave it out")
        p = self.probe
        if p.train_studies or p.crop_size or p.validation == "spent":
            raise ValueError(
                "probe.train_studies, probe.validation and probe.crop_size are not for a curve: leave them "
                "out"
            )

    @property
    def named(self) -> dict[str, Path]:
        """The starts by name."""
        return {path.name: path for path in as_list(self.starts)}


RANDOM = "random"
"""Name of the start from fresh weights."""
