"""An S3 server on this machine, as tests use it: fsspec, pyarrow and boto3 find it by the environment."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from s3fs import S3FileSystem

BUCKET = "archive"


@contextmanager
def s3_server() -> Iterator[str]:
    """Gives the URL of an empty bucket, s3://archive, during a block.

    The server (moto's) is a process of its own and keeps everything in memory. The variables that name it
    are those that a user of any S3-compatible store sets, so that processes started in the block have them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    given = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    S3FileSystem.clear_instance_cache()  # those of before looked for their keys elsewhere
    try:
        _wait_for(endpoint, process)
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield f"s3://{BUCKET}"
    finally:
        process.terminate()
        process.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the S3 server did not start")
