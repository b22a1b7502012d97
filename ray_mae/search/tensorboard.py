"""The searched settings of a trial in TensorBoard, whose HParams page compares them by their probe."""

import time
from pathlib import Path
from typing import Any

from ray_mae.data.paths import is_remote
from ray_mae.search.space import category
from ray_mae.store import Mirror

METRIC = "probe/auroc"
"""The tag under which the online probe writes its AUROC beside the losses."""


def write_hparams(folder: Path, values: dict[str, Any]) -> None:
    """Writes them into the trial's own TensorBoard folder, beside the curves."""
    if is_remote(folder):
        with Mirror(folder) as mirror:
            write_hparams(mirror.local, values)
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    plain = {name: str(v) if v is None else category(v) for name, v in values.items()}
    writer = EventFileWriter(str(folder / "tensorboard"), filename_suffix=".hparams")
    for summary in (
        hparams.hparams_config_pb(
            [hparams.HParam(name) for name in plain], [hparams.Metric(METRIC, display_name="AUROC")]
        ),
        hparams.hparams_pb(plain, trial_id=folder.name),
    ):
        writer.add_event(Event(wall_time=time.time(), summary=summary))
    writer.close()
