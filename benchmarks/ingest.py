"""How fast ingest is beside a bare loop of the same work, on real files, by one worker and by more.

    python -m benchmarks.ingest --images FOLDER --dicom FOLDER --volumes FOLDER [--files 6000,600,60]

The files of each folder are written again and again, under other names and of other patients, until there
are as many as asked for. The bare loop calls the same functions in one process without Ray: read, decode,
window, shrink and encode an image; read, crop, z-score, resample and encode a volume. It lists nothing,
groups nothing into studies, writes no shard, and a file that crashes its decoder would end it. CPU seconds
are those of all processes of the job after Ray's start; times are of the whole command after it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from pydicom import dcmread

from benchmarks.record import finish, parser_of
from ray_mae.config import IngestConfig
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.decoding.voxels import encode_voxels
from ray_mae.data.quarantine import QuarantineError

INGEST = """
import json, sys, time
import ray_mae.cluster.runtime  # before ray, which would make a second environment under `uv run`
import psutil, ray
from pathlib import Path
from ray_mae.config import IngestConfig
from ray_mae.data.ingest.job import ingest

def spent():
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total

archive, source, output, workers = sys.argv[1:]
ray.init(address="local", num_cpus=int(workers), include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
time.sleep(3)  # what Ray starts in the background
before, began = spent(), time.monotonic()
ingest(IngestConfig(archive=archive, source=Path(source), output=Path(output), insecure_pseudonyms=True))
print(json.dumps([time.monotonic() - began, spent() - before]))
"""

IMAGES = (".png", ".jpg", ".jpeg")
Write = Callable[[Sequence[Path], Path, int], tuple[str, Path]]
"""Writes an archive of so many copies into a folder; its name as ingest has it, and its source."""


def write_table(files: Sequence[Path], root: Path, count: int) -> tuple[str, Path]:
    """Images of a table, two of each study."""
    rows = ["study,patient,path,view"]
    for number, file in enumerate(islice(cycle(files), count)):
        name = f"{number // 1000:03d}/{number}{file.suffix}"
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, root / name)
        rows.append(f"s{number // 2},p{number // 4},{name},frontal")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return "table", root / "table.csv"


def write_dicom(files: Sequence[Path], root: Path, count: int) -> tuple[str, Path]:
    """DICOM files, two of each study, their pixel data as it is."""
    datasets = [dcmread(file) for file in files]
    for number, ds in enumerate(islice(cycle(datasets), count)):
        ds.PatientID, ds.StudyInstanceUID = f"p{number // 4}", f"1.2.{number // 2}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.3.{number}"
        path = root / f"{number // 1000:03d}" / f"{number}.dcm"
        path.parent.mkdir(exist_ok=True)
        ds.save_as(path)
    return "dicom", root


def write_scans(files: Sequence[Path], root: Path, count: int) -> tuple[str, Path]:
    """NIfTI files, a folder for each patient."""
    for number, file in enumerate(islice(cycle(files), count)):
        path = root / f"sub-{number}" / f"T1w{''.join(file.suffixes[-2:])}"
        path.parent.mkdir()
        shutil.copyfile(file, path)
    return "nifti", root


def prepare_image(path: Path, config: IngestConfig) -> None:
    """What ingest does of an image in the decoder process."""
    ImagePreparation.of(config).prepare(path)


def prepare_volume(path: Path, config: IngestConfig) -> None:
    """The same of a volume."""
    prepared = Preparation.of(config.volumes).prepare([path], {})
    encode_voxels(prepared.image.values, config.volumes.dtype, config.volumes.compression)


@dataclass(frozen=True)
class Case:
    """An archive to be ingested."""

    name: str
    suffixes: tuple[str, ...]
    write: Write
    prepare: Callable[[Path, IngestConfig], None]

    def usable(self, folder: Path) -> list[Path]:
        """The files of a folder that ingest takes."""
        config = IngestConfig(archive="dicom", source=folder, output=folder)
        found = []
        for path in sorted(p for p in folder.rglob("*") if p.name.endswith(self.suffixes)):
            try:
                self.prepare(path, config)
            except QuarantineError as reason:
                print(f"{path.name} is left out: {reason}")
                continue
            found.append(path)
        return found

    def loop(self, files: Sequence[Path]) -> float:
        """CPU seconds of a file in a bare loop."""
        config = IngestConfig(archive="dicom", source=files[0], output=files[0])
        began = time.process_time()
        for path in files:
            self.prepare(path, config)
        return (time.process_time() - began) / len(files)


CASES = (
    Case("PNG and JPEG", IMAGES, write_table, prepare_image),
    Case("DICOM", (".dcm",), write_dicom, prepare_image),
    Case("NIfTI", (".nii", ".nii.gz"), write_scans, prepare_volume),
)


def ingest(archive: str, source: Path, output: Path, workers: int) -> tuple[float, float]:
    """Seconds and CPU seconds of one ingest in a process of its own."""
    job = subprocess.run(
        [sys.executable, "-c", INGEST, archive, str(source), str(output), str(workers)],
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    seconds, spent = json.loads(job.stdout.splitlines()[-1])
    return seconds, spent


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=Path, help="folder of radiographs as PNG and JPEG")
    parser.add_argument("--dicom", type=Path, help="folder of radiographs as DICOM")
    parser.add_argument("--volumes", type=Path, help="folder of NIfTI files")
    parser.add_argument("--files", default="6000,600,60", help="of each, so many")
    parser.add_argument("--workers", default="1,2", help="to compare")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    folders = (given.images, given.dicom, given.volumes)
    for case, folder, count in zip(CASES, folders, map(int, given.files.split(",")), strict=True):
        if folder is None:
            continue
        files = case.usable(folder)
        with tempfile.TemporaryDirectory(prefix="ingest-bench-") as work:
            few = max(1, count // 5)
            archives = {}
            for size in (few, count):
                root = Path(work, f"archive-{size}")
                root.mkdir()
                archives[size] = case.write(files, root, size)
            written = sorted(p for p in root.rglob("*") if p.name.endswith(case.suffixes))
            bare = case.loop(written[:few])
            for workers in map(int, given.workers.split(",")):
                outputs = {size: Path(work, f"{size}-by-{workers}") for size in archives}
                (_, before), (seconds, spent) = (
                    ingest(*archives[size], outputs[size], workers) for size in archives
                )
                summary = json.loads((outputs[count] / "summary.json").read_text())
                further = (spent - before) / (count - few)
                rows.append(
                    {
                        "files": f"{count:,} {case.name}",
                        "KiB a file": sum(p.stat().st_size for p in written) / count / 1024,
                        "workers": workers,
                        "taken": summary["volumes" if archives[count][0] == "nifti" else "images"][
                            "out"
                        ],
                        "bare loop, ms a file": 1e3 * bare,
                        "ingest, CPU ms a file": 1e3 * spent / count,
                        "a further file": 1e3 * further,
                        "of the loop's speed by CPU": count * bare / spent,
                        "for a further file": bare / further,
                        "files/s": count / seconds,
                        "of the loop's speed by time, a worker": count * bare / seconds / workers,
                    }
                )
                print(rows[-1], flush=True)
    finish(
        given,
        rows,
        "Both do the same to the pixels; ingest besides lists, groups, isolates, compares and writes, and "
        "starts workers. What a further file takes is the difference to an ingest of a fifth of the files.",
    )


if __name__ == "__main__":
    main()
