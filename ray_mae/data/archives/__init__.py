"""One small module per archive layout. Each lists its images as records."""

from collections.abc import Callable

from ray_mae.config import IngestConfig
from ray_mae.data.archives import dicom, table
from ray_mae.data.archives.record import Archive, Progress

READERS: dict[str, Callable[[IngestConfig, Progress], Archive]] = {
    "dicom": dicom.read,
    "table": table.read,
}
