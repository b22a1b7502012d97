"""Settings that bring an archive in, and of the dataset card."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ray_mae.config.base import ValidatedConfig, setting

BodyPart = Literal[
    "chest", "abdomen", "pelvis", "hip", "spine", "head", "tooth", "neck", "breast", "shoulder", "arm",
    "hand", "leg", "knee", "foot", "extremity", "phantom", "several", "unknown",
]  # fmt: skip
"""What a header says that a radiograph shows."""
Attribute = Literal["sex", "age", "site", "manufacturer", "model", "field_strength"]
"""What may be kept of the person, place and scanner of a study or volume."""
_PERSON: tuple[Attribute, ...] = ("sex", "age")
_SCANNER: tuple[Attribute, ...] = ("site", "manufacturer", "model")
ATTRIBUTES_OF: dict[str, tuple[Attribute, ...]] = {
    "table": (*_PERSON, *_SCANNER),
    "dicom": (*_PERSON, *_SCANNER),
    "chestxray14": _PERSON,
    "chexpert": _PERSON,
    "mimic-cxr": _PERSON,
    "openi": ("age",),
    "padchest": (*_PERSON, "manufacturer"),
    **dict.fromkeys(
        ("bids", "dicom-series", "openmind", "volume-table"),
        (*_PERSON, *_SCANNER, "field_strength"),
    ),
    "brats": (),
    "nifti": (),
}
"""What each archive can say."""
TableEncoding = Literal["utf-8", "windows-1252"]


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Names of the columns of a table archive."""

    study: str = "study"
    """Column with the study identifier."""
    patient: str = "patient"
    """Column with the patient identifier; splits are by patient."""
    path: str = "path"
    """Column with the image path, relative to the table's folder or absolute."""
    view: str = "view"
    """Column with the view: frontal, lateral, PA, AP, LL …; anything else is unknown."""
    text: str = "text"
    """Column with the report text; Findings and Impression sections are found in it."""
    split: str | None = "split"
    """Column with train, val or test; null, or without it, patients are split by hash."""
    date: str = "date"
    """Column with the study's date or year, read where `year_bucket` asks for it."""
    labels: str | None = None
    """One column with positive label names separated by | or ;. Without it, one column per label
    name, holding 1 or yes, 0 or no, -1 (uncertain) or nothing (not mentioned)."""
    label_names: list[str] | Literal["own"] | None = field(default=None, metadata={"some": True})
    """Labels of the studies: columns of the table, or names in the column `labels`, in this order. own:
    all that the archive has, also a public one. Default: the 14 of CheXpert, and what means the same."""
    sex: str = "sex"
    """Column with the sex (M or F), read where `attributes` asks for it."""
    age: str = "age"
    """Column with the age in years, the same."""
    site: str = "site"
    """Column with the site, the same."""
    manufacturer: str = "manufacturer"
    """Column with the manufacturer of the scanner, the same."""
    model: str = "model"
    """Column with the model of the scanner, the same."""


@dataclass(frozen=True, kw_only=True)
class VolumeColumns:
    """Names of the columns of a table of volumes. Columns that are not there are left out."""

    path: str = "path"
    """Column with the file's path, relative to the table's folder or absolute."""
    patient: str = "patient"
    """Column with the patient identifier; splits are by patient."""
    volume: str | None = "volume"
    """Column with the volume identifier; null, or without it, the path."""
    session: str | None = "session"
    """Column with the session (visit) identifier."""
    modality: str | None = "modality"
    """Column with the contrast: T1w, T1c, T2w, FLAIR …"""
    split: str | None = "split"
    """Column with train, val or test; null, or without it, patients are split by hash."""
    site: str | None = "site"
    """Column with the site."""
    valid: str | None = "mask"
    """Column with the path of a mask that is not 0 where voxels are valid."""
    anonymised: str | None = "anonymised"
    """Column with the path of a mask that is not 0 where a face was removed: not valid."""
    anatomy: str | None = "anatomy"
    """Column with the path of a mask of the anatomy; without it the foreground is found."""
    segmentation: str | None = "segmentation"
    """Column with the path of a label map."""
    sex: str = "sex"
    """Column with the sex (M or F), read where `attributes` asks for it; of `bids` in participants.tsv."""
    age: str = "age"
    """Column with the age in years, the same."""
    manufacturer: str = "manufacturer"
    """Column with the manufacturer of the scanner, the same; `bids` has this and the next two in the JSON
    files of the images."""
    model: str = "model"
    """Column with the model of the scanner, the same."""
    field_strength: str = "field_strength"
    """Column with the strength of the magnetic field in tesla, the same."""


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """How volumes are read, checked and stored."""

    columns: VolumeColumns = field(default_factory=VolumeColumns)
    """Names of the columns, for `volume-table`, participants.tsv and the table of `dicom-series`."""
    table: Path | None = None
    """For `dicom-series`: table (CSV or Parquet) with one row per series, found by volume (its
    SeriesInstanceUID) or by path (its folder below the source), or per patient. It gives labels, split
    and site, of a series also modality and session; its patient replaces the PatientID of the files."""
    labels: list[str] = field(default_factory=list)
    """Columns with numbers that become labels: of a table, of participants.tsv (`bids`), or of what
    the manifest says of a subject (`openmind`). No other column is taken, as it may be a record number
    or a date of birth; columns_of_numbers in summary.json names those that `bids` and `openmind`
    have."""
    label_prefix: str = "label_"
    """Columns of the table whose names start with this become labels too, under the rest of it."""
    patient_pattern: str | None = None
    """For `nifti` and `brats`: regular expression that is searched in a file's path below the source,
    with a group (?P<patient>…) and perhaps (?P<session>…). Default of `nifti`: a name sub-…, else the
    first folder that is no split, contrast or collection (imagesTr, train, T1 …) and does not hold all
    files, else the file name; each up to the word that names a session or a contrast. A sample of what
    came out is shown before anything is written; what names cannot tell is refused."""
    spacing_mm: float | None = setting(1.0, gt=0)
    """Stored distance between voxels along each axis, in mm; null keeps each volume's own."""
    margin_mm: float = setting(4.0, ge=0)
    """Room around the anatomy that is kept when a volume is cropped to it."""
    modalities: list[str] | None = None
    """Keep only these, such as [T1w, FLAIR]; the others go to quarantine. Null keeps all."""
    max_quality_score: float | None = None
    """For `openmind`: images whose image_quality_score is above this go to quarantine (1 is best); null
    keeps all, as it does those without a score."""
    derived: Literal["keep", "quarantine"] = "keep"
    """For `openmind`: what becomes of images that say derived_from, such as maps of diffusion."""
    four_dimensional: Literal["quarantine", "first"] = "quarantine"
    """What becomes of NIfTI files with several volumes (time, echoes, directions): quarantine, or the
    first volume of each is taken and counted as mended."""
    orientation: str | None = None
    """Axes of NIfTI files whose header says no orientation (qform_code and sform_code 0), as three
    letters of R or L, A or P, S or I in the order of the stored axes, such as LAS or RAS. Null puts
    them into quarantine: left and right would be a guess."""
    max_voxels: int = setting(512**3, ge=1)
    """Volumes with more voxels, as they are or at `spacing_mm`, are quarantined before memory is
    taken for them."""
    min_slices: int = setting(4, ge=2)
    """Volumes with fewer slices along an axis are quarantined."""
    max_spacing_mm: float = setting(10.0, gt=0)
    """Volumes whose slices lie further apart are quarantined."""
    max_extent_mm: float = setting(600.0, gt=0)
    """Volumes that are longer than this along an axis are quarantined."""
    min_solid: float = setting(0.4, ge=0, le=1)
    """Least share of the foreground that lies 4 mm or more below its surface; heads and brains have
    0.6 and more. 0 switches the check off."""
    max_deviation: float = setting(100.0, gt=1)
    """Volumes with a voxel further than this from the mean, in standard deviations of the
    foreground, are quarantined."""
    faces: Literal["keep", "mask", "quickshear", "brain"] = "keep"
    """What becomes of faces. keep: volumes stay as they are, and those that show a skull are counted. By
    masks of your own tool (face_mask): mask takes out where they are not 0, brain all but where they are
    not 0; quickshear (the extra `deface`) cuts the face off along a plane in front of a brain mask. A volume
    without its mask is quarantined."""
    face_mask: str | None = None
    """Path of each volume's mask, relative to the source or absolute, with {folder} for the folder of its
    file and {name} for the file's name without .nii.gz (of a DICOM series: that of its folder), such as
    /masks/{folder}/{name}_face.nii.gz."""
    dtype: Literal["int16", "float16", "float32"] = "float16"
    """How z-scores are stored; int16 in steps of 1/512, up to 64 standard deviations."""
    compression: int = setting(3, ge=1, le=19)
    """Level of zstd."""
    volumes_per_shard: int = setting(64, ge=1)
    """Volumes per Parquet file."""
    volumes_per_row_group: int = setting(4, ge=1)
    """Volumes per Parquet row group: the unit in which shards are read."""


@dataclass(frozen=True, kw_only=True)
class NameSettings:
    """A detector of names in reports, beside the rules that always apply."""

    model: Path | None = None
    """Folder of a token classifier of Hugging Face's layout (config.json, weights, tokenizer.json), such as a
    de-identification model. Needs the extra `names`. A report in which it finds a name is in no shard; it
    stands in names_to_review.csv of the output, for its owner alone."""
    labels: list[str] | None = None
    """Labels of the model that count, without B- and I-. Null: those that mean a person, a number of one or
    a way to reach one."""
    min_score: float = setting(0.5, gt=0, le=1)
    """Probability from which a finding counts."""
    reviewed: Path | None = None
    """A names_to_review.csv with decisions of a person: `keep` takes the report in as it is, `withhold` and
    nothing leave it out."""


@dataclass(frozen=True, kw_only=True)
class IngestConfig(ValidatedConfig):
    """Turn an archive of studies or volumes into shards: decode, check, pseudonymise, write."""

    archive: Literal[
        "dicom", "table",
        "chestxray14", "chexpert", "mimic-cxr", "openi", "padchest",
        "bids", "brats", "dicom-series", "nifti", "openmind", "volume-table",
    ]  # fmt: skip
    """Layout of the archive. Studies: a folder of DICOM images, a table of image files, or a public
    archive as it is published: ChestX-ray14, CheXpert (also CheXpert Plus), MIMIC-CXR (DICOM or JPG),
    Open-i (IU X-ray) or PadChest. Volumes: a BIDS or BraTS folder, a folder of DICOM series, of
    NIfTI files, an OpenMind (nnssl) manifest, or a table of volume files."""
    source: Path
    """Folder of the archive; for `table` and `volume-table` the CSV or Parquet table, for
    `openmind` the pretrain_data.json."""
    output: Path
    """Folder for the shards, the manifest, the quarantine table and summary.json."""
    overwrite: bool = False
    """Write the shards of a folder anew that were made with other settings. A run that is reading them
    ends with an error."""
    reports: Path | None = None
    """For `dicom`: table (CSV or Parquet) with report text, labels and split by study, or a folder
    of text files named STUDY.txt. Default: reports.csv in the source folder, if there. A patient
    column, if there, replaces the PatientID of the files. For `dicom-series` see volumes.table. For
    `mimic-cxr` mimic-cxr-reports.zip or a folder with the report files, for `openi` NLMCXR_reports.tgz
    or a folder with the XML files; default: what of these is in the source folder."""
    tables: Path | None = None
    """For public archives: folder with the tables that are published beside the images (metadata,
    split, labels), if they are not in the source folder."""
    stores: list[str] = field(default_factory=list)
    """Stores that a table or manifest may name in URLs (s3, gs, https …), besides those of `source`,
    `reports` and `tables`. What lies in others is quarantined and never asked for."""
    official_split: bool = True
    """For public archives: keep the split that is published with the archive; where it has no
    validation patients, validation_share of its training patients are taken. False splits all
    patients by hash."""
    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """For `mimic-cxr`: which of its two label tables is read."""
    table_encoding: TableEncoding = "utf-8"
    """How lines of your own tables (CSV) are read that are no UTF-8: not at all, or as windows-1252, as older
    programs on Windows write them."""
    columns: TableColumns = field(default_factory=TableColumns)
    """Names of the table's columns (the reports table uses the same names)."""
    dataset: str = "archive"
    """Name of the data set, written into every row."""
    image_size: int = setting(256, ge=16, le=4096)
    """Stored size of the short side of an image, in pixels; images are never enlarged."""
    # measured on X-rays at 256 px by benchmarks/encodings.py
    encoding: Literal["zstd", "png", "jpeg"] = "zstd"
    """How stored images are encoded (one channel): zstd and png are exact, zstd is read seven times as
    fast and takes a tenth more bytes; jpeg takes half of them, and is wrong by about a grey level."""
    bits: Literal[8, 12, 16] = 8
    """Of a stored pixel, at most. 8: what the image's own window shows (without one, percentiles of its
    values). 12 and 16: what lies half a window's width beyond it as well, so that training chooses windows
    anew (data.window_jitter) and evaluation sees the image's own; 1.8 and 3 times the bytes, with encoding
    zstd. Files of 8 bits stay so."""
    jpeg_quality: int = setting(95, ge=50, le=100)
    """Quality of the jpeg encoding."""
    studies_per_shard: int = setting(512, ge=1)
    """Studies per Parquet file."""
    studies_per_row_group: int = setting(32, ge=1)
    """Studies per Parquet row group: the unit in which shards are read."""
    validation_share: float = setting(0.1, ge=0, lt=1)
    """Share of the patients in the validation split, where the archive brings no split."""
    test_share: float = setting(0.1, ge=0, lt=1)
    """Share of the patients in the test split, where the archive brings no split."""
    leaks: Literal["report", "keep_together"] = "report"
    """What is done about images of different patients that look the same (one person under two numbers, one
    film twice), and about volumes whose voxels are the same. report: `inspect` names them. keep_together:
    their patients come into one split, train before val before test; a split of the archive's own stays.
    Every file is read twice for it."""
    pseudonym_key: Path | None = None
    """File with the secret key of the pseudonyms. Default: environment RAY_MAE_PSEUDONYM_KEY."""
    insecure_pseudonyms: bool = False
    """Use a publicly known key instead: only for generated or public data. It differs by `dataset`, and the
    manifest, the summary and the card say so."""
    max_pixels: int = setting(100_000_000, ge=1)
    """Images with more pixels than this are quarantined before memory is taken for them."""
    burned_in: Literal["quarantine", "keep"] = "quarantine"
    """What becomes of DICOM images whose header says of burned-in text anything but NO: a name or a
    date in the pixels cannot be taken out by rule. Kept ones are counted in the summary."""
    secondary_captures: Literal["quarantine", "keep"] = "quarantine"
    """What becomes of scanned forms, drawings and screenshots among DICOM images: secondary captures that
    are no digitised film and name no view, and what ImageType or ConversionType calls so."""
    for_processing: Literal["alone", "quarantine", "keep"] = "alone"
    """What becomes of a detector's raw values (FOR PROCESSING) among DICOM images: taken only where their
    study has no picture made to be looked at, never, or always."""
    body_parts: list[BodyPart] | None = None
    """Keep only DICOM images whose header says that they show one of these, such as [chest] or [chest,
    unknown]; the others go to quarantine. `several` are headers that name more than one part. Null keeps
    all but phantoms. The summary counts the parts in any case."""
    names: NameSettings = field(default_factory=NameSettings)
    """A detector of names in reports."""
    year_bucket: int = setting(0, ge=0, le=100)
    """Keep the years of a study's date in buckets of so many, with 5 as 2010-2014: of DICOM from StudyDate,
    of tables from columns.date, of PadChest and MIMIC-CXR (whose dates are shifted) from their tables.
    0 reads no date; nothing finer than the bucket is ever kept."""
    attributes: list[Attribute] = field(default_factory=list)
    """What else is kept of a study or volume, of what its archive says (docs/labels.md). Of `table` and
    `volume-table` it is in their columns, of `dicom` and `dicom-series` in PatientSex, PatientAge,
    InstitutionName, Manufacturer, ManufacturerModelName and MagneticFieldStrength or in columns of the
    table beside them. Ages above 89 become 90. What is not named here is never read."""
    max_aspect: float = setting(4.0, ge=1)
    """Images whose long side is more than this times the short one are quarantined: images are padded
    to squares, and one strip would make every image of its batch as large."""
    max_views: int = setting(16, ge=1)
    """Studies with more images than this are quarantined as implausible."""
    volumes: VolumeSettings = field(default_factory=VolumeSettings)
    """For archives of volumes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits > 8 and self.encoding != "zstd":
            raise ValueError(f"bits {self.bits} wants encoding zstd: {self.encoding} is for 8 bits")
        can = ATTRIBUTES_OF[self.archive]
        if never := [name for name in self.attributes if name not in can]:
            raise ValueError(
                f"attributes: the archive {self.archive} says no {', no '.join(never)}; of what can be "
                f"kept it says {', '.join(can) or 'nothing'}"
            )
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"attributes names one twice, got {', '.join(self.attributes)}")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(ValidatedConfig):
    """The card of a data set: counts, leaks between splits and to other data sets, pictures, as JSON and
    one page."""

    shards: Path
    """Folder that `ingest` wrote."""
    against: list[Path] = field(default_factory=list)
    """Folders of other data sets that are trained on or tested beside it: they are counted, and patients
    and images that stand in several of them, or in two splits of any, are reported."""
    output: Path | None = None
    """Folder for card.json and card.html; default: the shards' own, which gets croissant.json, too."""
    sample: int = setting(128, ge=1, le=100_000)
    """Studies or volumes read for intensities and pictures, dealt over views, contrasts and sites."""
    pictures: int = setting(12, ge=0, le=200)
    """Images per view, or volumes per contrast, that are shown."""
    duplicates: bool = True
    """Read every image or volume once, to find the same one in two splits or data sets."""
    leaks: int = setting(24, ge=0, le=1000)
    """Pairs of each kind of leak that are named, with pictures; the others are counted."""
    seed: int = setting(0, ge=0)
    """Seed of the sample."""
