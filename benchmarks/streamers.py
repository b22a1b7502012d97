"""What benchmarks/object_store.py asks of MosaicML streaming and litData, in a Python that has them.

python -m benchmarks.streamers write IMAGES s3://BUCKET
python -m benchmarks.streamers streaming|litdata CACHE s3://BUCKET
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ray_mae.data.decoding.stored_images import decode

CHUNK = 32_000_000


def main() -> None:
    what, folder, bucket = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    os.environ["S3_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL"]
    result = _write(folder, bucket) if what == "write" else _epoch(what, folder, bucket)
    print(json.dumps(result))


def _write(folder: Path, bucket: str) -> dict[str, Any]:
    import boto3
    import litdata
    from streaming import MDSWriter

    files = sorted(folder.iterdir())
    with MDSWriter(
        out=str(folder.parent / "mds"), columns={"image": "bytes"}, size_limit=CHUNK
    ) as writer:
        for file in files:
            writer.write({"image": file.read_bytes()})
    litdata.optimize(
        fn=_read,
        inputs=[str(file) for file in files],
        output_dir=str(folder.parent / "litdata"),
        chunk_bytes=CHUNK,
        num_workers=1,
    )
    client = boto3.client("s3")
    for name in ("mds", "litdata"):
        for path in (folder.parent / name).rglob("*"):
            if path.is_file():
                key = f"{name}/{path.relative_to(folder.parent / name)}"
                client.upload_file(str(path), bucket.removeprefix("s3://"), key)
    return {}


def _read(path: str) -> dict[str, bytes]:
    return {"image": Path(path).read_bytes()}


def _epoch(what: str, cache: Path, bucket: str) -> dict[str, float]:
    """One pass over all images, shuffled, and what it took."""
    before = _size(cache)
    if what == "streaming":
        from streaming import StreamingDataset

        began, cpu = time.perf_counter(), time.process_time()
        samples: Any = StreamingDataset(
            remote=f"{bucket}/mds", local=str(cache), shuffle=True, batch_size=64
        )
    else:
        import litdata
        from litdata.streaming import downloader

        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # a server of this machine
        began, cpu = time.perf_counter(), time.process_time()
        samples = litdata.StreamingDataset(
            f"{bucket}/litdata",
            cache_dir=str(cache),
            shuffle=True,
            storage_options={"endpoint_url": os.environ["AWS_ENDPOINT_URL"]},
        )
    images = sum(decode(bytes(sample["image"])).size > 0 for sample in samples)
    return {
        "images": images,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "bytes": _size(cache) - before,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
