"""The commands of the golden runs, and what is measured of the files that they leave.

Both the recording and the test use this. It knows the command line and files, and none of the modules
of `ray_mae`.
"""

import hashlib
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import zstandard
from PIL import Image
from safetensors.numpy import load_file

HERE = Path(__file__).parent
KEY = "0123456789abcdef0123456789abcdef"
"""Of the pseudonyms: of drawn patients, so it is no secret."""
CPUS = 3
"""Of the Ray that the runs share: two workers and a reader of data."""

ARCHIVES = {
    "table": "table/table.csv",
    "dicom": "dicom",
    "volume_table": "volumes/volumes.csv",
    "nifti": "volumes/scans",
}
"""Ingests, each with its source below `archives`; the settings are `configs/ingest_….yaml`."""
KEPT = {"table": "studies", "volume_table": "volumes"}
"""Ingests whose shards are kept in `shards`, for the runs to be trained on."""
SHARDS = {
    "mvmae_v2t": "studies",
    "mvmae": "studies",
    "mdae": "volumes",
    "mae3d": "volumes",
    "dsm": "volumes",
}
"""Pretrainings, each with its shards; the settings are `configs/….yaml`."""
STOPPED = {"studies": ("mvmae_v2t", 2, 1), "volumes": ("mdae", 2, 2)}
"""Runs that were stopped: settings, workers that began, workers that go on."""
FORMATS = {"studies": ("timm",), "volumes": ("nnunet", "monai")}
"""Formats of `export` by what the run was trained on."""
STEPS, STOPPED_AT = 20, 10

_OF_THE_CLOCK = {
    *("data_wait", "samples_per_s", "inputs_per_s", "mfu", "tflops_per_worker", "eta_s"),
    *("saving", "saving_s", "upload_s"),
}
"""Figures that no two runs share."""
_OF_CODECS = {"image_bytes", "voxel_bytes"}
"""Counts that another version of a compressing library changes."""


def ingest_command(name: str, archives: Path, output: Path) -> list[str]:
    config = HERE / "configs" / f"ingest_{name}.yaml"
    source = archives / ARCHIVES[name]
    # the encoding of then, which any reader of images decodes
    return [
        *("ingest", "--config", str(config), "--source", str(source), "--output", str(output)),
        *("--encoding", "png"),
    ]


def pretrain_command(name: str, workers: int, shards: Path, output: Path) -> list[str]:
    config = HERE / "configs" / f"{name}.yaml"
    # the vocabulary of the recording, where a run does not have it from its first part
    vocabulary = HERE / "tokenizer.json"
    given = name == "mvmae_v2t" and not (output / vocabulary.name).is_file()
    return [
        *("pretrain", "--config", str(config), "--scaling.workers", str(workers)),
        *("--shards", str(shards), "--output", str(output)),
        *(["--data.tokenizer", str(vocabulary)] if given else []),
    ]


def embed_command(run: Path, shards: Path, output: Path) -> list[str]:
    return [
        *("embed", "--checkpoint", str(run), "--shards", str(shards), "--output", str(output)),
        *("--batch_size", "4", "--gpu", "false"),
    ]


def export_command(run: Path, form: str, output: Path) -> list[str]:
    return ["export", "--checkpoint", str(run), "--output", str(output), "--format", form]


def figures(run: Path) -> list[dict[str, float]]:
    """The figures of each step, less those of the clock: losses and their parts, rates, norms."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in record.items() if k not in _OF_THE_CLOCK} for record in records]


def ingested(folder: Path) -> dict[str, Any]:
    """What an ingest left: counts, reasons of the quarantine, and each shard's hash and content."""
    manifest = json.loads((folder / "manifest.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    flows = {name: summary[name] for name in ("studies", "images", "volumes") if name in summary}
    return {
        "kind": manifest["kind"],
        "dataset": manifest["dataset"],
        "spacing_mm": manifest["spacing_mm"],
        "flows": flows,
        "quarantined": summary["quarantined"],
        "splits": {
            split: {name: count for name, count in counts.items() if name not in _OF_CODECS}
            for split, counts in summary["splits"].items()
        },
        "shards": {
            shard["file"]: {
                "split": shard["split"],
                "row_groups": shard["row_groups"],
                "sha256": sha256(folder / shard["file"]),
                "rows": shard_content(folder / shard["file"]),
            }
            for shard in manifest["shards"]
        },
    }


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def shard_content(file: Path) -> list[dict[str, Any]]:
    """The rows of a shard; of images, voxels and masks the statistics of what they decode to."""
    return [_plain(row) for row in pq.read_table(file).to_pylist()]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = dict(row)
    if "views" in row:
        made["views"] = [
            {**view, "image": _statistics(np.asarray(Image.open(io.BytesIO(view["image"]))))}
            for view in row["views"]
        ]
    else:
        made["voxels"] = _statistics(_voxels(row["voxels"], row["dtype"], row["shape"]))
        if row["valid"] is not None:
            bits = np.unpackbits(np.frombuffer(row["valid"], np.uint8))
            made["valid"] = _statistics(bits[: np.prod(row["shape"])].reshape(row["shape"]))
        if row["segmentation"] is not None:
            made["segmentation"] = _statistics(_voxels(row["segmentation"], "uint8", row["shape"]))
        made["labels"] = dict(row["labels"])
    return made


def _voxels(data: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    """The encoding zstd-shuffle: low and high bytes of the values apart, compressed."""
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(zstandard.decompress(data), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _statistics(array: np.ndarray) -> dict[str, Any]:
    """Shape, sum, sum of squares, and means weighted along each axis, which tell a turned array."""
    values = array.astype(np.float64)
    ramps = []
    for axis, length in enumerate(values.shape):
        sums = values.sum(axis=tuple(a for a in range(values.ndim) if a != axis))
        ramps.append(float((sums * np.arange(length)).sum() / values.size))
    return {
        "shape": list(values.shape),
        "mean": float(values.mean()),
        "square": float((values**2).mean()),
        "ramps": ramps,
    }


def embedded(folder: Path) -> dict[str, list[float]]:
    """By study or volume, the first eight dimensions of its embedding and the sum over all."""
    table = pq.read_table(folder / "embeddings.parquet")
    names, vectors = table.column(0).to_pylist(), table["embedding"].to_pylist()
    made = {
        name: [*vector[:8], float(np.sum(vector))]
        for name, vector in zip(names, vectors, strict=True)
    }
    return dict(sorted(made.items()))


def exported(folder: Path) -> dict[str, dict[str, Any]]:
    """By file, the shape, sum and absolute sum of each tensor, or what a JSON file for others says."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors":
            found[file.name] = load_file(file)
        elif file.suffix in (".pt", ".pth"):
            loaded = torch.load(file, weights_only=True)
            loaded = loaded.get("network_weights", loaded)
            found[file.name] = {name: tensor.numpy() for name, tensor in loaded.items()}
    made: dict[str, dict[str, Any]] = {
        file: {name: _tensor(tensors[name]) for name in sorted(tensors)}
        for file, tensors in found.items()
    }
    for name in ("timm.json", "nnunet_configuration.json"):
        if (folder / name).is_file():
            made[name] = json.loads((folder / name).read_text())
    return made


def _tensor(array: np.ndarray) -> dict[str, Any]:
    values = array.astype(np.float64)
    # the ramp tells tensors apart that hold the same values in another order
    ramp = float((values.ravel() * np.linspace(0, 1, values.size)).sum())
    return {
        "shape": list(array.shape),
        "sum": float(values.sum()),
        "abs_sum": float(np.abs(values).sum()),
        "ramp": ramp,
    }


def pack_run(run: Path, file: Path) -> None:
    """A run's folder as one file, without what only shows it."""
    shown = ("tensorboard", "pictures")
    file.parent.mkdir(parents=True, exist_ok=True)
    preset = 9 | lzma.PRESET_EXTREME
    with tarfile.open(file, "w:xz", preset=preset, format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(run.rglob("*")):
            name = path.relative_to(run)
            if path.is_file() and name.parts[0] not in shown:
                archive.add(path, str(name), filter=_nobody)


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names of who made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def unpack_run(file: Path, run: Path) -> None:
    run.mkdir(parents=True)
    with tarfile.open(file) as archive:
        archive.extractall(run, filter="data")
