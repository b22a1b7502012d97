"""The decoder process: every file of an archive is read in a child, under limits of memory and time.

A damaged or hostile file can crash a decoder (1 of 50 to 100 compressed DICOM files with a few bytes
changed ends the process with GDCM's JPEG), keep it busy for ever, or take a node's memory. In a Ray
worker that would end the task, and after some retries the job. Here it ends the child, and one image or
volume goes to quarantine. One child serves a worker for all its files; it also shrinks and encodes, so
that what comes back is what is stored.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.dicom import Header
from ray_mae.data.decoding.dicom_frames import SliceFile
from ray_mae.data.decoding.geometry import Spacing
from ray_mae.data.decoding.image_preprocessing import ImagePreparation, PreparedImage
from ray_mae.data.decoding.voxels import VoxelType
from ray_mae.data.paths import retry_transient
from ray_mae.data.quarantine import QuarantineError

SERVER = "ray_mae.data.decoding.decoder_requests"
# The largest radiographs take a second or two, the largest volumes a minute on a busy node: what takes
# so much longer will not end.
SECONDS = 60.0
VOLUME_SECONDS = 600.0
START_SECONDS = 600.0
# Of the child's memory: the values as decoded, as numbers of 32 bits, and twice as floats in between;
# of a volume at its own and at the stored spacing, with its masks; and room for the file itself, for
# threads of decoders, for what Python needs.
BYTES_PER_PIXEL, BYTES_PER_VOXEL, ROOM = 32, 48, 1 << 30
PIPE_BYTES = 1 << 16
"""That a pipe holds: a small image comes by one reading, with the messages around it."""
AT_A_TIME = 32
"""Headers by one request: asking takes as long as reading a small one."""


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    memory: int
    """Bytes that the child may take for it."""
    seconds: float


def read_headers_isolated(
    paths: Sequence[Path],
    max_pixels: int,
    *,
    year: bool = False,
    attributes: Sequence[str] = (),
) -> Iterator[Header | QuarantineError]:
    """Read headers in the decoder process; see `ray_mae.data.decoding.dicom.read_header`.

    Yields:
        The header of each file in turn, or why it has none.
    """
    limits = _limits_of_image(max_pixels)
    wanted = {"max_pixels": max_pixels, "year": year, "attributes": list(attributes)}
    for fields in _decode_each("header", paths, limits, **wanted):
        yield fields if isinstance(fields, QuarantineError) else Header(**fields)


def read_frames_isolated(
    paths: Sequence[Path], max_voxels: int, attributes: Sequence[str] = ()
) -> Iterator[SliceFile | QuarantineError]:
    """Read headers in the decoder process; see `ray_mae.data.decoding.dicom_frames.read_frames`.

    Yields:
        The header of each file in turn, or why it has none.
    """
    limits = _limits_of_image(max_voxels)
    wanted = {"max_voxels": max_voxels, "attributes": list(attributes)}
    for fields in _decode_each("frames", paths, limits, **wanted):
        yield fields if isinstance(fields, QuarantineError) else SliceFile.from_json(fields)


def prepare_image_isolated(path: Path, preparation: ImagePreparation) -> PreparedImage:
    """Read and preprocess a radiograph in the decoder process; see `ImagePreparation.prepare`.

    Raises:
        QuarantineError: the file is not usable. The reason is decoder-ended where the decoder crashed,
            took too long or found no memory, twice.
    """
    limits = _limits_of_image(preparation.max_pixels)
    fields, parts = _decode("image", [path], limits, preparation=vars(preparation))
    header = fields.pop("header")
    return PreparedImage(image=parts[0], header=header and Header(**header), **fields)


def prepare_volume_isolated(
    paths: Sequence[Path],
    masks: Mapping[str, Path],
    preparation: Mapping[str, Any],
    dtype: VoxelType,
    compression: int,
) -> dict[str, Any]:
    """Read, preprocess and encode a volume in the decoder process.

    Args:
        paths: of its files: one, or the slices of a DICOM series.
        masks: paths by name, see `Preparation.prepare`.
        preparation: the fields of a `Preparation`, as of `asdict`.
        dtype: of the stored voxels.
        compression: level of zstd.

    Returns:
        The columns of VOLUME_SCHEMA that come from the files; and mended, what was wrong with them.

    Raises:
        QuarantineError: as `prepare_image_isolated`.
    """
    fields, parts = _decode(
        "volume", [*paths, *masks.values()], _limits_of_volume(preparation["bounds"]["max_voxels"]),
        masks=list(masks), preparation=preparation, dtype=dtype, compression=compression,
    )  # fmt: skip
    return fields | dict(zip(fields.pop("parts"), parts, strict=True))


def prepare_file(path: Path, spacing_mm: Spacing) -> NDArray[np.float32]:
    """Read a volume from its files and preprocess it as `ingest` does.

    Args:
        path: a NIfTI file, or a folder with one DICOM series.
        spacing_mm: between the voxels, along each axis or for all; None: as it is.

    Returns:
        Z-scores [X, Y, Z] in RAS order.

    Raises:
        ValueError: `ingest` would put the volume into quarantine, with the reason.
    """
    from ray_mae.config import VolumeSettings

    paths = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    limits = _limits_of_volume(VolumeSettings().max_voxels)
    try:
        fields, parts = _decode("z_scores", paths, limits, spacing_mm=spacing_mm)
    except QuarantineError as error:
        raise ValueError(f"{path} is no usable volume: {error}") from error
    return np.frombuffer(parts[0], np.float32).reshape(fields["shape"]).copy()


def _limits_of_image(max_pixels: int) -> Limits:
    return Limits(ROOM + BYTES_PER_PIXEL * max_pixels, SECONDS)


def _limits_of_volume(max_voxels: int) -> Limits:
    return Limits(ROOM + BYTES_PER_VOXEL * max_voxels, VOLUME_SECONDS)


def _decode_each(
    request: str, paths: Sequence[Path], limits: Limits, **arguments: Any
) -> Iterator[dict[str, Any] | QuarantineError]:
    """The fields of each file in turn, or what is wrong with it: many files by one request.

    Where the process ends at one of them, or a disk is away for a moment, each is asked for by itself.
    """
    for start in range(0, len(paths), AT_A_TIME):
        chunk = paths[start : start + AT_A_TIME]
        try:
            reply, _ = _decode_once(_message(f"each {request}", chunk, limits, arguments), limits)
            replies = reply["each"]
        except QuarantineError:
            replies = [None] * len(chunk)
        for path, fields in zip(chunk, replies, strict=True):
            if fields is not None:
                yield QuarantineError(*fields["problem"]) if "problem" in fields else fields
                continue
            try:
                ask = partial(_decode, request, [path], limits, **arguments)
                yield retry_transient(ask, remote=False)[0]
            except QuarantineError as problem:
                yield problem


def _message(
    request: str, paths: Sequence[Path], limits: Limits, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "request": request, "paths": [str(path.absolute()) for path in paths],
        "memory": limits.memory, "seconds": limits.seconds, "arguments": arguments,
    }  # fmt: skip


def _decode(
    request: str, paths: Sequence[Path], limits: Limits, **arguments: Any
) -> tuple[dict[str, Any], list[bytes]]:
    """The reply of the decoder process: fields, and bytes. From a fresh process where the first ended.

    It may not be the file's fault: a busy node is slow, and a full one ends whom it likes. Raises
    QuarantineError if the second ends as well.
    """
    message = _message(request, paths, limits, arguments)
    try:
        return _decode_once(message, limits)
    except QuarantineError as error:
        if error.reason != "decoder-ended":
            raise
    return _decode_once(message, limits)


def _decode_once(message: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], list[bytes]]:
    """As `_decode`, once. Where the reason is decoder-ended, the process is no more."""
    global _decoder
    if _decoder is None:
        # On a busy machine this takes a while. A process that cannot start at all is no matter of this
        # image: the error ends the task, and Ray tries it again.
        _decoder = DecoderProcess()
    try:
        return _decoder.ask(message, limits.seconds)
    except (EOFError, BrokenPipeError, TimeoutError) as error:
        end = _decoder.stop()
        _decoder = None
        slow = isinstance(error, TimeoutError)
        harm = f"took more than {limits.seconds:.0f} s" if slow else f"crashed (exit status {end})"
        raise QuarantineError("decoder-ended", f"the decoder {harm}") from error
    except QuarantineError as problem:
        if problem.reason == "decoder-ended":  # its memory may be in pieces
            _decoder.stop()
            _decoder = None
        raise


class DecoderProcess:
    """A child process that reads one file after the other for us."""

    def __init__(self) -> None:
        # It ends by itself when its standard input closes, so it never outlives this process; and when a
        # request takes too long.
        self.process = subprocess.Popen(
            [sys.executable, "-m", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "OMP_NUM_THREADS": "1",  # one task has one core, and each thread takes address space
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self._ahead = bytearray()  # of the replies, what was read with what came before
        atexit.register(self.stop)
        try:
            self.receive(deadline=time.monotonic() + START_SECONDS)  # it says when it has started
        except (EOFError, TimeoutError) as error:
            raise RuntimeError(
                f"the decoder process did not start within {START_SECONDS:.0f} s (exit status "
                f"{self.stop()}): `{sys.executable} -m {SERVER}` should wait for input"
            ) from error

    def ask(self, message: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[bytes]]:
        """Fields and bytes of the reply. EOFError or TimeoutError if the process came to harm."""
        self.requests.write(json.dumps(message).encode() + b"\n")
        self.requests.flush()
        deadline = time.monotonic() + seconds
        reply = json.loads(self.receive(deadline))
        if "problem" in reply:
            code = reply["errno"]  # whether it is transient
            raise QuarantineError(*reply["problem"]) from (
                OSError(code, os.strerror(code)) if code else None
            )
        return reply["fields"], [self.receive(deadline) for _ in range(reply["parts"])]

    def receive(self, deadline: float) -> bytes:
        """The next message: its length in 8 bytes, then its bytes."""
        return self._bytes(int.from_bytes(self._bytes(8, deadline)), deadline)

    def _bytes(self, count: int, deadline: float) -> bytes:
        while len(self._ahead) < count:
            ready, _, _ = select.select([self.replies], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(self.replies.fileno(), max(count - len(self._ahead), PIPE_BYTES))
            if not part:
                raise EOFError
            self._ahead += part
        with memoryview(self._ahead) as ahead:
            received = bytes(ahead[:count])
        del self._ahead[:count]
        return received

    def stop(self) -> int:
        """End the process, if it still lives; its exit status."""
        atexit.unregister(self.stop)
        self.process.kill()
        return self.process.wait()


_decoder: DecoderProcess | None = None
