"""What runs in the decoder process: requests on standard input, one a line, replies on standard output."""

import json
import math
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray_mae.data.decoding.dicom import read_header
from ray_mae.data.decoding.dicom_frames import read_frames
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.voxels import ENCODING, encode_labels, encode_valid, encode_voxels
from ray_mae.data.paths import is_transient
from ray_mae.data.quarantine import QuarantineError, undecodable

Reply = tuple[dict[str, Any], list[bytes]]
"""Fields that JSON can hold, and bytes."""
GRACE_SECONDS = 30
"""After the time of a request in which the parent ends this process, which may itself be gone."""


def _header(paths: list[Path], max_pixels: int, year: bool, attributes: list[str]) -> Reply:
    check_regular(paths)
    return asdict(read_header(paths[0], max_pixels, year=year, attributes=attributes)), []


def _frames(paths: list[Path], max_voxels: int, attributes: list[str]) -> Reply:
    check_regular(paths)
    return asdict(read_frames(paths[0], max_voxels, attributes)), []


def _image(paths: list[Path], preparation: dict[str, Any]) -> Reply:
    check_regular(paths)
    prepared = ImagePreparation(**preparation).prepare(paths[0])
    fields = {
        "height": prepared.height,
        "width": prepared.width,
        "header": prepared.header and asdict(prepared.header),
    }
    return fields, [prepared.image]


def _volume(
    paths: list[Path], masks: list[str], preparation: dict[str, Any], dtype: Any, compression: int
) -> Reply:
    from ray_mae.data.decoding.preprocessing import Preparation

    check_regular(paths)
    first = len(paths) - len(masks)
    prepared = Preparation.from_json(preparation).prepare(
        paths[:first], dict(zip(masks, paths[first:], strict=True))
    )
    image = prepared.image
    parts = {"voxels": encode_voxels(image.values, dtype, compression)}
    if prepared.valid is not None:
        parts["valid"] = encode_valid(prepared.valid)
    if prepared.segmentation is not None:
        parts["segmentation"] = encode_labels(prepared.segmentation, compression)
    fields = {
        "encoding": ENCODING,
        "dtype": dtype,
        "shape": list(image.values.shape),
        "spacing_mm": image.spacing.tolist(),
        "affine": image.affine.ravel().tolist(),
        "mean": prepared.mean,
        "std": prepared.std,
        "valid": None,
        "segmentation": None,
        "parts": list(parts),
        "face": prepared.face,
        "mended": prepared.mended,
    }
    return fields, list(parts.values())


def _z_scores(paths: list[Path], spacing_mm: float | list[float] | None) -> Reply:
    from ray_mae.config import VolumeSettings
    from ray_mae.data.decoding.preprocessing import Preparation

    check_regular(paths)
    usual = Preparation.of(VolumeSettings())
    wanted = replace(usual, bounds=replace(usual.bounds, spacing_mm=spacing_mm))
    values = wanted.prepare(paths, {}).image.values
    return {"shape": values.shape}, [values.tobytes()]


def _each(read: Callable[..., Reply], paths: list[Path], **arguments: Any) -> Reply:
    """The fields of each file, or what is wrong with it; null for what is worth another attempt."""
    each: list[dict[str, Any] | None] = []
    for path in paths:
        try:
            each.append(read([path], **arguments)[0])
        except QuarantineError as error:
            transient = is_transient(error, remote=False)
            each.append(None if transient else {"problem": [error.reason, error.detail]})
    return {"each": each}, []


REQUESTS: dict[str, Callable[..., Reply]] = {
    "header": _header, "frames": _frames, "image": _image, "volume": _volume, "z_scores": _z_scores,
    "each header": partial(_each, _header), "each frames": partial(_each, _frames),
}  # fmt: skip


def check_regular(paths: Sequence[Path]) -> None:
    """Raise QuarantineError for a pipe, a socket or a device: opening or reading it may never end."""
    for path in paths:
        with suppress(OSError):  # the reader says what is wrong with it
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise QuarantineError("unreadable", "no regular file: a pipe, a socket or a device")


def _address_space() -> int:
    """Bytes of memory that this process may touch so far."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit_memory(most: int) -> None:
    """Limit this process's memory: what needs more ends with MemoryError, and the node keeps its own.

    A file may be unusable by what its header and its stream declare; a decoder need not keep to it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Serve requests until standard input closes."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not end up among the replies
    with suppress(
        OSError
    ):  # where memory runs out, this process is to be ended, and not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")

    def send(message: bytes) -> None:
        replies.write(len(message).to_bytes(8))
        replies.write(message)

    started: int | None = None  # of volumes it is more: their libraries are imported when one comes
    send(b"ready")
    replies.flush()
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["request"] in ("volume", "z_scores") and "scipy" not in sys.modules:
            _limit_memory(resource.getrlimit(resource.RLIMIT_AS)[1])
            import ray_mae.data.decoding.preprocessing  # noqa: F401

            started = None
        started = started or _address_space()
        _limit_memory(started + message["memory"])
        signal.alarm(math.ceil(message["seconds"]) + GRACE_SECONDS)
        paths = [Path(path) for path in message["paths"]]
        try:
            fields, parts = REQUESTS[message["request"]](paths, **message["arguments"])
        except QuarantineError as error:
            send(_problem(error))
        except BaseException as error:  # a panic in a decoder written in Rust is no Exception
            send(_problem(undecodable(error)))
        else:
            send(json.dumps({"fields": fields, "parts": len(parts)}).encode())
            for part in parts:
                send(part)
        signal.alarm(0)
        replies.flush()


def _problem(error: QuarantineError) -> bytes:
    code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    return json.dumps({"problem": [error.reason, error.detail], "errno": code}).encode()


if __name__ == "__main__":
    main()
