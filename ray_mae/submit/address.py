"""The jobs API of a Ray cluster, whose errors are one clear line."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ray_mae.cluster import ray_private

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_SETTINGS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_HOME = "http://127.0.0.1:8265"


def address_of(given: str | None) -> str:
    """The dashboard's address: as given, from the environment, or of this machine."""
    address = given or next((os.environ[name] for name in _SETTINGS if os.environ.get(name)), _HOME)
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address} (from the environment) is not a dashboard's address: give --address http://HOST:8265"
        )
    return address.rstrip("/")


def join(address: str) -> tuple["JobSubmissionClient", bool]:
    """A client of the cluster, and whether the cluster runs on this machine.

    Raises ConnectionError, PermissionError or RuntimeError, each with what to do about it.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        # Ray's client has no time limit of its own
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"no cluster answers at {address} ({error}): start one, forward its port "
            "(kubectl port-forward, ray dashboard), or give --address"
        ) from error
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):  # they tell of each request
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    with told(address), _only(address):
        try:
            client = JobSubmissionClient(address)
            version = ray_private.dashboard_version(client)
        except (requests.RequestException, ValueError, KeyError) as error:
            raise RuntimeError(
                f"{address} does not answer as Ray's dashboard does ({type(error).__name__})"
            ) from error
    theirs, ours = version["ray_version"], ray.__version__
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise RuntimeError(
            f"{address} runs Ray {theirs}, and ray_mae here Ray {ours}: use an image, or an installation "
            "here, of the same version"
        )
    return client, Path("/tmp/ray", version.get("session_name") or "unknown").is_dir()


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what Ray says of tokens into one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "required" in str(error):
            said = (
                "wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        else:
            said = "refuses the token of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH: it is another cluster's"
        raise PermissionError(f"{address} {said}") from error


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Hide other addresses: to Ray's client the environment counts more than its argument."""
    kept = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
