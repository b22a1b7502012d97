"""The Arrow schemas of a study row and a volume row, and the manifest of a folder of shards: the contract.

Everything that writes shards writes this; everything that reads shards reads only this.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.paths import is_remote, resolve_path, with_os_errors
from ray_mae.files import write_whole

SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")
VIEWS = ("frontal", "lateral", "unknown")
NOUNS = {"study": "studies", "volume": "volumes"}
"""What rows are called, by kind of the manifest."""

PSEUDONYMS = {
    "secret": "with a secret key",
    "public by data set": "with a key that everybody knows, another one for each data set",
    "public": "with a key that everybody knows, the same for all data sets",
}
"""How pseudonyms are made, by the word in the manifest."""

FACES = {
    "head": "skull, so perhaps a face",
    "defaced": "no face, as the archive says or by a mask",
    "brain": "brain alone",
    "unknown": "cannot be told",
}
"""What a volume shows of a head, by the word in its row."""

Row = dict[str, Any]
"""A row of a shard as plain Python values, by the names of STUDY_SCHEMA or VOLUME_SCHEMA."""

ATTRIBUTES = {
    "sex": pa.string(),  # M, F or O
    "age": pa.int16(),  # whole years, 90 for all above 89
    "site": pa.string(),  # the archive's own words, as the next two
    "manufacturer": pa.string(),
    "model": pa.string(),
    "field_strength": pa.float64(),  # tesla
}
"""What rows may have besides, in columns of these names: only in data sets that were asked for it. Volumes
have their site in any case."""


def study_schema(labels: int = len(CHEXPERT_LABELS), attributes: Sequence[str] = ()) -> pa.Schema:
    """Of studies with so many labels, and with these of ATTRIBUTES (null where unknown)."""
    states = pa.field("labels", pa.list_(pa.int8(), labels), nullable=False)
    at = STUDY_SCHEMA.get_field_index("labels")
    return _with_attributes(STUDY_SCHEMA.set(at, states), attributes)


def volume_schema(attributes: Sequence[str] = ()) -> pa.Schema:
    """Of volumes with these of ATTRIBUTES (null where unknown)."""
    return _with_attributes(VOLUME_SCHEMA, attributes)


def _with_attributes(schema: pa.Schema, attributes: Sequence[str]) -> pa.Schema:
    wanted = [name for name in ATTRIBUTES if name in attributes and name not in schema.names]
    return pa.schema([*schema, *(pa.field(name, ATTRIBUTES[name]) for name in wanted)])


STUDY_SCHEMA = pa.schema(
    [
        pa.field("study_id", pa.string(), nullable=False),  # pseudonym
        pa.field("patient_id", pa.string(), nullable=False),  # pseudonym
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # one of SPLITS
        pa.field(
            "views",
            pa.list_(
                pa.struct(
                    [
                        pa.field("image", pa.large_binary(), nullable=False),
                        pa.field("encoding", pa.string(), nullable=False),  # zstd, png or jpeg
                        pa.field("height", pa.int32(), nullable=False),
                        pa.field("width", pa.int32(), nullable=False),
                        pa.field("view", pa.string(), nullable=False),  # one of VIEWS
                        pa.field("position", pa.string()),  # the archive's own word
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("findings", pa.string()),
        pa.field("impression", pa.string()),
        # a state for each label of the manifest, here CheXpert's 14: see ray_mae.data.labels
        pa.field("labels", pa.list_(pa.int8(), len(CHEXPERT_LABELS)), nullable=False),
        # the archive's own names of what is none of the labels; null where it names nothing
        pa.field("other_labels", pa.list_(pa.string())),
        pa.field("years", pa.string()),  # 2010-2014; null where no date is kept
    ]
)

VOLUME_SCHEMA = pa.schema(
    [
        pa.field("volume_id", pa.string(), nullable=False),  # pseudonym
        pa.field("patient_id", pa.string(), nullable=False),  # pseudonym
        pa.field("session_id", pa.string()),  # pseudonym; volumes of one session are co-registered
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("site", pa.string()),  # the archive's own word for where it was taken
        pa.field("split", pa.string(), nullable=False),  # one of SPLITS
        pa.field("modality", pa.string(), nullable=False),  # T1w, T1c, T2w, FLAIR …, or unknown
        # voxels in RAS order, z-scored over the foreground; see ray_mae.data.decoding.voxels
        pa.field("voxels", pa.large_binary(), nullable=False),
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("spacing_mm", pa.list_(pa.float32(), 3), nullable=False),
        pa.field("affine", pa.list_(pa.float64(), 16), nullable=False),  # voxel → RAS mm, by rows
        pa.field("mean", pa.float64(), nullable=False),  # of the foreground, before z-scoring
        pa.field("std", pa.float64(), nullable=False),
        pa.field("valid", pa.large_binary()),  # packed bits; null: every voxel is valid
        pa.field("segmentation", pa.large_binary()),  # uint8 label map, same encoding and shape
        pa.field("labels", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("face", pa.string()),  # one of FACES; null: shards of earlier versions do not say
    ]
)


@dataclass(frozen=True)
class Shard:
    """One Parquet file. All its rows belong to one split."""

    file: str
    split: str
    rows: int
    row_groups: list[int]
    """Rows of each row group, in file order."""
    images: int
    bytes: int
    sha256: str
    footer: str = ""
    """SHA-256 of the Parquet footer, by which a reader over a network knows the file; "": of an earlier
    version."""


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds: manifest.json."""

    kind: str
    """study or volume: which of the two schemas the rows have."""
    dataset: str
    schema_version: int
    shards: list[Shard]
    """By split, then by file name."""
    spacing_mm: float | None = None
    """Between the voxels of every volume; None: each has its own, or these are studies."""
    pseudonyms: str | None = None
    """One of PSEUDONYMS: how they were made. None: shards of earlier versions do not say."""
    labels: list[str] | None = None
    """Of studies: names of the states in `labels`, in their order. None: CheXpert's 14."""
    attributes: list[str] = field(default_factory=list)
    """Those of ATTRIBUTES that were asked for."""
    faces: dict[str, int] | None = None
    """Volumes by FACES. None: these are studies, or shards of earlier versions."""

    form: dict[str, Any] = field(default_factory=dict)
    """How samples are stored, see `ray_mae.data.stored_form`; empty in shards of earlier versions."""

    FILE = "manifest.json"

    def of_split(self, split: str) -> list[Shard]:
        """The shards of one split, in file order."""
        return [s for s in self.shards if s.split == split]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the states of studies, in their order."""
        return CHEXPERT_LABELS if self.labels is None else tuple(self.labels)

    def rows(self, split: str) -> int:
        """Studies or volumes in one split."""
        return sum(s.rows for s in self.of_split(split))

    def write(self, folder: Path) -> None:
        values = asdict(self)
        for shard in values["shards"]:
            if not shard["footer"]:  # earlier versions do not know it
                del shard["footer"]
        write_whole(folder / self.FILE, json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises FileNotFoundError or ValueError with what to do where there is no usable one.

        OSError where a store cannot be read.
        """
        path = resolve_path(folder) / cls.FILE
        text = _text_of(path)
        if text is None:
            raise FileNotFoundError(
                f"{path} is missing: {folder} holds no shards; run `ray-mae ingest --output {folder}`"
            )
        raw = json.loads(text)
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path} has schema version {raw.get('schema_version')}, this ray_mae reads "
                f"{SCHEMA_VERSION}: ingest the archive again"
            )
        raw["shards"] = [Shard(**s) for s in raw["shards"]]
        return cls(**raw)


def _text_of(path: Path) -> str | None:
    """The text of a file; None where there is none."""
    if not is_remote(path):
        return path.read_text() if path.is_file() else None
    try:  # a store that cannot be asked is none without the file
        return with_os_errors(path.read_text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise type(error)(
            error.errno, f"{path} cannot be read ({error.strerror or error})"
        ) from error
