"""How fast ingest is, beside a bare loop of pydicom, with more workers, and after a kill in the middle.

    python -m benchmarks.ingest [--files 20000] [--side 128] [--cores 1,2]

Writes a generated archive of small DICOM files, two views a study. Memory is that of the processes of
the job (proportional share, as /proc counts it), sampled once a second.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

INGEST = """
import sys
import ray_mae.cluster.runtime  # before ray, which would make a second environment under `uv run`
import ray
from pathlib import Path
from ray_mae.config import IngestConfig
from ray_mae.data.ingest.job import ingest
ray.init(address="local", num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
ingest(IngestConfig(archive="dicom", source=Path(sys.argv[1]), output=Path(sys.argv[2]),
                    insecure_pseudonyms=True, studies_per_shard=256))
"""


def write_archive(root: Path, files: int, side: int) -> None:
    """Radiographs of noise and a ramp, a folder for every 500 studies."""
    rng = np.random.default_rng(0)
    ramp = np.arange(side * side, dtype=np.uint16).reshape(side, side) % 4000
    for number in range(files):
        study = number // 2
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, f"1.2.{number}"
        ds.StudyInstanceUID, ds.PatientID, ds.Modality = f"1.1.{study}", f"p{study}", "DX"
        ds.ViewPosition, ds.PhotometricInterpretation = ("PA", "LL")[number % 2], "MONOCHROME2"
        ds.Rows = ds.Columns = side
        ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = (ramp + rng.integers(0, 90, ramp.shape, dtype=np.uint16)).tobytes()
        path = root / f"{study // 500:03d}" / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)


def bare_loop(root: Path) -> float:
    """Images per second of reading and decoding and nothing else, on one core."""
    paths = sorted(root.rglob("*.dcm"))[:4000]
    began = time.monotonic()
    for path in paths:
        _ = dcmread(path).pixel_array
    return len(paths) / (time.monotonic() - began)


def run(source: Path, output: Path, cores: int, kill_after: int | None = None) -> dict[str, float]:
    """One ingest in a process of its own; killed when so many shards are there, if that is asked."""
    began = time.monotonic()
    job = subprocess.Popen(
        [sys.executable, "-c", INGEST, str(source), str(output), str(cores)],
        start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    peak, ours = [0.0, 0.0], psutil.Process(job.pid)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            try:
                driver = ours.memory_info().rss / 2**20
                tree = [ours, *ours.children(recursive=True)]
                total = sum(p.memory_full_info().pss for p in tree) / 2**20
            except (psutil.Error, OSError):
                continue
            peak[:] = max(peak[0], driver), max(peak[1], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    while job.poll() is None:
        time.sleep(0.2)
        if kill_after is not None and len(list(output.glob("*.parquet"))) >= kill_after:
            os.killpg(job.pid, signal.SIGKILL)
            for child in ours.children(recursive=True):
                child.kill()
            kill_after = None
    done.set()
    watcher.join()
    return {"seconds": time.monotonic() - began, "driver_MB": peak[0], "all_MB": peak[1]}


def digests(output: Path) -> dict[str, str]:
    return {
        s["file"]: s["sha256"] for s in json.loads((output / "manifest.json").read_text())["shards"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--cores", default="1,2", help="workers to compare")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        root, work = Path(folder, "archive"), Path(folder)
        write_archive(root, args.files, args.side)
        bare = bare_loop(root)
        print(f"bare pydicom loop: {bare:.0f} images/s on one core", flush=True)
        for cores in map(int, args.cores.split(",")):
            took = run(root, work / f"of-{cores}", cores)
            said = json.loads((work / f"of-{cores}" / "summary.json").read_text())
            rate = said["images"]["out"] / took["seconds"]
            print(f"{cores} workers: {said['images']['out']} images in {took['seconds']:.0f} s with "
                  f"start-up, {rate:.0f}/s, {rate / cores:.0f}/s per worker = "
                  f"{rate / cores / bare:.0%} of the bare loop; memory at most {took['driver_MB']:.0f} MB "
                  f"in the driver, {took['all_MB']:.0f} MB in all processes", flush=True)  # fmt: skip
        shards = len(digests(work / f"of-{cores}"))
        run(root, work / "killed", cores, kill_after=shards // 2)
        left = len(list((work / "killed" / ".ingest").glob("*.parquet.json")))
        took = run(root, work / "killed", cores)
        said = json.loads((work / "killed" / "summary.json").read_text())
        print(f"killed with {left} of {shards} shards noted; started again: {said['shards']}, "
              f"{took['seconds']:.0f} s; same shards as an undisturbed run: "
              f"{digests(work / 'killed') == digests(work / f'of-{cores}')}")  # fmt: skip


if __name__ == "__main__":
    main()
