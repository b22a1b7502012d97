"""The kind of a file, by its suffix.

Only known suffixes are named, since any other part of a file's name may be a part of a person's.
"""

from pathlib import Path

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
# What follows the last dot of another name may be a part of a patient's name or number, as in
# 1.2.840.4711 or DOE.JOHN.
KNOWN_SUFFIXES = frozenset(
    ".csv .tsv .parquet .txt .json .xml .html .htm .md .pdf .yaml .yml .log .zip .gz .tgz .tar .py "
    ".bval .bvec .mat .npy .npz .png .jpg .jpeg .tif .tiff .bmp .webp .dcm .ima .nrrd .nhdr .mha .mhd .hdr "
    ".img .raw .h5 .hdf5 .pkl .xls .xlsx .doc .docx .sh .annot .label .lta .xfm .gii .tck .trk .bak .tmp"
    .split()
)  # fmt: skip


def file_kind(name: str) -> str:
    """The word for a file in summaries: a known suffix, or a general word such as `other suffix`."""
    if name.upper() == "DICOMDIR":
        return "DICOMDIR"
    if name.startswith("."):
        return "hidden"
    suffix = Path(name).suffix.lower()
    if not suffix:
        return "without suffix"
    return suffix if suffix in {*KNOWN_SUFFIXES, *VOLUME_SUFFIXES} else "other suffix"
