"""What names say of faces in heads, and the mask by which a volume's face is taken out."""

import importlib.util
import re
from collections import Counter
from pathlib import PurePosixPath

from ray_mae.config import VolumeSettings
from ray_mae.data.archives.records import VolumeRecord
from ray_mae.data.schema import FACES

_START, _END = r"(?:^|[^a-z])", r"(?:[^a-z]|$)"
_DEFACED = re.compile(
    f"{_START}(?:(?:py|mri_?)?defaced?|refaced?|facemasked|quickshear(?:ed)?|anonymi[sz]ed){_END}"
)
_BRAIN = re.compile(
    f"{_START}(?:skull_?-?strip(?:ped)?|brain_?-?extract(?:ed|ion)|desc-brain|synthstrip|hd-?bet){_END}"
    r"|[^a-z](?:bet|brain)\.(?:nii|mgz|mgh)"
)
EXTRACTED = frozenset({"brats"})
"""Archives whose volumes are of brains alone, as they are published."""


def face_by_name(record: VolumeRecord, archive: str) -> str | None:
    """head, defaced or brain, where the archive, the header or the file's name says so.

    Args:
        record: of the volume.
        archive: its layout.
    """
    if record.said_of_face:
        return record.said_of_face
    name = "/".join(PurePosixPath(record.paths[0]).parts[-4:]).lower()
    if record.anonymised or _DEFACED.search(name):
        return "defaced"
    return "brain" if archive in EXTRACTED or _BRAIN.search(name) else None


def face_of(by_name: str | None, by_content: str) -> str:
    """One of FACES: a name is believed, but not that a skull is gone which the voxels show."""
    if by_content == "defaced" or (by_name == "defaced" and by_content != "brain"):
        return "defaced"
    return by_name if by_name and by_content == "unknown" else by_content


def mask_of(record: VolumeRecord, settings: VolumeSettings) -> str | None:
    """Path of the mask by which the face is taken out; None where that is not asked for."""
    if settings.faces == "keep" or settings.face_mask is None:
        return None
    path = PurePosixPath(record.paths[0])
    if len(record.paths) > 1:  # the slices of a series lie in a folder of its own
        path = path.parent
    name = re.sub(r"\.(nii|mgh)(\.gz)?$|\.(mgz|hdr|img)$", "", path.name, flags=re.IGNORECASE)
    return settings.face_mask.format(folder=path.parent, name=name)


def check_faces(settings: VolumeSettings) -> None:
    """Raise ValueError where the settings of faces do not go together, or a package is missing."""
    if settings.faces == "keep":
        if settings.face_mask is not None:
            raise ValueError(
                "volumes.face_mask names masks, and volumes.faces keep does not use them: set it to mask, "
                "quickshear or brain"
            )
        return
    try:
        named = settings.face_mask and settings.face_mask.format(folder="", name="\0")
    except (KeyError, IndexError, ValueError):
        named = ""
    if not named or "\0" not in named:
        raise ValueError(
            f"volumes.faces {settings.faces} wants volumes.face_mask, the path of each volume's mask with "
            "{name} and perhaps {folder} in it, such as {folder}/{name}_facemask.nii.gz, got "
            f"{settings.face_mask}"
        )
    if settings.faces == "quickshear" and importlib.util.find_spec("quickshear") is None:
        raise ValueError(
            "volumes.faces quickshear wants the package quickshear on every node: install ray-mae[deface]"
        )


def describe_faces(counts: Counter[str]) -> dict[str, int]:
    """Volumes by FACES, of counts by f"face/{face}"."""
    return {face: counts[f"face/{face}"] for face in FACES if counts[f"face/{face}"]}


def caution_of(faces: dict[str, int]) -> str | None:
    """What to say of volumes in which somebody may be recognised; None if nothing."""
    heads, unknown = faces.get("head", 0), faces.get("unknown", 0)
    if not heads:
        return None
    return (
        f"{heads:,} of {sum(faces.values()):,} volumes show a head with its skull, so perhaps a face that "
        f"can be recognised, and of {unknown:,} it cannot be told: volumes.faces takes faces out"
    )
