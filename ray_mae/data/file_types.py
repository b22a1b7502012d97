"""What may be said of a file's name: its suffix, if it is a known one, and nothing else."""

from pathlib import Path

VOLUMES = (".nii.gz", ".nii", ".mgz", ".mgh")
# What follows the last dot of another name may be a part of a patient's name or number, as in
# 1.2.840.4711 or DOE.JOHN.
KNOWN = frozenset(
    ".csv .tsv .parquet .txt .json .xml .html .htm .md .pdf .yaml .yml .log .zip .gz .tgz .tar .py "
    ".bval .bvec .mat .npy .npz .png .jpg .jpeg .tif .tiff .dcm .ima .nrrd .nhdr .mha .mhd .hdr .img "
    ".raw .h5 .hdf5 .pkl .xls .xlsx .doc .docx .sh .annot .label .lta .xfm .gii .tck .trk .bak .tmp"
    .split()
)  # fmt: skip


def kind_of(name: str) -> str:
    """What the summary and the card call a file."""
    if name.upper() == "DICOMDIR":
        return "DICOMDIR"
    if name.startswith("."):
        return "hidden"
    suffix = Path(name).suffix.lower()
    if not suffix:
        return "without suffix"
    return suffix if suffix in {*KNOWN, *VOLUMES} else "other suffix"
