"""One module per layout of an archive. Each lists the archive's images or volumes as records."""

from collections.abc import Callable

from ray_mae.config import IngestConfig
from ray_mae.data.archives.records import Archive, ImageRecord, Progress, VolumeRecord
from ray_mae.data.archives.studies import (
    chestxray14,
    chexpert,
    dicom,
    mimic_cxr,
    openi,
    padchest,
    table,
)
from ray_mae.data.archives.volumes import bids, brats, dicom_series, nifti, openmind, volume_table

READERS: dict[str, Callable[[IngestConfig, Progress], Archive[ImageRecord]]] = {
    "chestxray14": chestxray14.read,
    "chexpert": chexpert.read,
    "dicom": dicom.read,
    "mimic-cxr": mimic_cxr.read,
    "openi": openi.read,
    "padchest": padchest.read,
    "table": table.read,
}
VOLUME_READERS: dict[str, Callable[[IngestConfig, Progress], Archive[VolumeRecord]]] = {
    "bids": bids.read,
    "brats": brats.read,
    "dicom-series": dicom_series.read,
    "nifti": nifti.read,
    "openmind": openmind.read,
    "volume-table": volume_table.read,
}
