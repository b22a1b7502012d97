"""The decoder process: compressed DICOM is decoded in a child, since a damaged file can crash a decoder.

Measured on real compressed files with a few bytes changed: 1 of 50 to 100 ends the process with
GDCM's JPEG, at times with a segmentation fault. In a Ray worker that would end the task, and after
some retries the job. Here it ends the child, and one image goes to quarantine.
"""

import atexit
import json
import os
import resource
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.dicom import Header, check_header, grey_pixels, read_dicom, read_header
from ray_mae.data.decoding.dicom_frames import read_values
from ray_mae.data.quarantine import QuarantineError, undecodable

# The largest radiographs take a second or two; what takes this long will not end.
SECONDS = 60.0
START_SECONDS = 600.0
# Of the child's memory: the values as decoded, as numbers of 32 bits, and twice as floats in between;
# and room for the file itself, for threads of decoders, for what Python needs.
BYTES_PER_PIXEL, ROOM = 32, 1 << 30


def read_dicom_isolated(path: Path, max_pixels: int) -> tuple[NDArray[np.uint8], Header]:
    """Read a DICOM file as `read_dicom` does, compressed ones in the decoder process.

    Args:
        path: of the file, on this machine.
        max_pixels: rows times columns at most.

    Returns:
        The image [H, W] in grey values of 8 bits, and the header.

    Raises:
        QuarantineError: the file is not usable. The reason is decoder-ended where the decoder crashed,
            took too long or found no memory, twice.
    """
    header = read_header(path, max_pixels)
    check_header(header, max_pixels)
    if not header.compressed:
        return grey_pixels(path, max_pixels), header
    image, fields = _decode("image", path, max_pixels)
    return image, Header(**fields)


def read_values_isolated(path: Path, compressed: bool, max_pixels: int) -> NDArray[np.float32]:
    """Read the frames of a DICOM file as `read_values` does, compressed ones in the decoder process.

    Args:
        path: of the file, on this machine.
        compressed: whether the header says that a decoder is needed.
        max_pixels: of all frames together, at most.

    Returns:
        The rescaled values [F, H, W].

    Raises:
        QuarantineError: as `read_dicom_isolated`.
    """
    if not compressed:
        return read_values(path, max_pixels)
    return _decode("values", path, max_pixels)[0]


def _decode(what: str, path: Path, max_pixels: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """An array and its fields from the decoder process, from a fresh one where the first ended.

    It may not be the file's fault: a busy node is slow, and a full one ends whom it likes. Raises
    QuarantineError if the second ends as well.
    """
    try:
        return _decode_once(what, path, max_pixels)
    except QuarantineError as error:
        if error.reason != "decoder-ended":
            raise
    return _decode_once(what, path, max_pixels)


def _decode_once(what: str, path: Path, max_pixels: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """As `_decode`, once. Where the reason is decoder-ended, the process is no more."""
    global _decoder
    if _decoder is None:
        # On a busy machine this takes a while. A process that cannot start at all is no matter of this
        # image: the error ends the task, and Ray tries it again.
        _decoder = DecoderProcess()
    try:
        return _decoder.read(what, path, max_pixels)
    except (EOFError, BrokenPipeError, TimeoutError) as error:
        end = _decoder.stop()
        _decoder = None
        slow = isinstance(error, TimeoutError)
        harm = f"took more than {SECONDS:.0f} s" if slow else f"crashed (exit status {end})"
        raise QuarantineError("decoder-ended", f"the decoder {harm}") from error
    except QuarantineError as problem:
        if problem.reason == "decoder-ended":  # its memory may be in pieces
            _decoder.stop()
            _decoder = None
        raise


class DecoderProcess:
    """A child process that reads one file after the other for us."""

    def __init__(self) -> None:
        # It ends by itself when its standard input closes, so it never outlives this process.
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        atexit.register(self.stop)
        try:
            self.receive(deadline=time.monotonic() + START_SECONDS)  # it says when it has started
        except (EOFError, TimeoutError) as error:
            raise RuntimeError(
                f"the decoder of compressed DICOM files did not start within {START_SECONDS:.0f} s "
                f"(exit status {self.stop()}): `{sys.executable} -m {__name__}` should wait for input"
            ) from error

    def read(self, what: str, path: Path, max_pixels: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """The image or the values of one file. EOFError or TimeoutError if the process came to harm.

        what: image or values.
        """
        self.requests.write(json.dumps([what, str(path.absolute()), max_pixels]).encode() + b"\n")
        self.requests.flush()
        deadline = time.monotonic() + SECONDS
        reply = json.loads(self.receive(deadline))
        if "problem" in reply:
            code = reply["errno"]  # whether it is transient
            raise QuarantineError(*reply["problem"]) from (
                OSError(code, os.strerror(code)) if code else None
            )
        array = np.frombuffer(self.receive(deadline), reply["dtype"]).reshape(reply["shape"])
        return array, reply["fields"]

    def receive(self, deadline: float) -> bytearray:
        """The next message: its length in 8 bytes, then its bytes."""
        return self._bytes(int.from_bytes(self._bytes(8, deadline)), deadline)

    def _bytes(self, count: int, deadline: float) -> bytearray:
        received = bytearray()
        while len(received) < count:
            ready, _, _ = select.select([self.replies], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(self.replies.fileno(), count - len(received))
            if not part:
                raise EOFError
            received += part
        return received

    def stop(self) -> int:
        """End the process, if it still lives; its exit status."""
        atexit.unregister(self.stop)
        self.process.kill()
        return self.process.wait()


_decoder: DecoderProcess | None = None


def _address_space() -> int:
    """Bytes of memory that this process may touch so far."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit_memory(most: int) -> None:
    """Limit this process's memory: what needs more ends with MemoryError, and the node keeps its own.

    A file may be unusable by what its header and its stream declare; a decoder need not keep to it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _serve() -> None:
    """Run as the child: a request a line on standard input, replies on standard output."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not end up among the replies

    def send(message: bytes | memoryview) -> None:
        replies.write(len(message).to_bytes(8) + bytes(message))
        replies.flush()

    started = _address_space()
    send(b"ready")
    for line in sys.stdin.buffer:
        what, path, max_pixels = json.loads(line)
        _limit_memory(started + BYTES_PER_PIXEL * max_pixels + ROOM)
        fields: dict[str, Any] = {}
        array: NDArray[Any]
        try:
            if what == "values":
                array = read_values(Path(path), max_pixels)
            else:
                array, header = read_dicom(Path(path), max_pixels)
                fields = asdict(header)
        except QuarantineError as error:
            send(_problem(error))
        except BaseException as error:  # a panic in a decoder written in Rust is no Exception
            send(_problem(undecodable(error)))
        else:
            about = {"shape": array.shape, "dtype": array.dtype.str, "fields": fields}
            send(json.dumps(about).encode())
            send(array.tobytes())


def _problem(error: QuarantineError) -> bytes:
    code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    return json.dumps({"problem": [error.reason, error.detail], "errno": code}).encode()


if __name__ == "__main__":
    _serve()
