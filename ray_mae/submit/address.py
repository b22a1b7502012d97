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
from ray_mae.cluster.proxies import describe_proxy, proxy_of

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_SETTINGS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_HOME = "http://127.0.0.1:8265"


def dashboard_address(option: str | None) -> str:
    """Returns the dashboard's address.

    Args:
        option: of the command line; None takes the environment's, or this machine's.

    Raises:
        ValueError: The environment has no address of a dashboard.
    """
    address = option or next(
        (os.environ[name] for name in _SETTINGS if os.environ.get(name)), _HOME
    )
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address} (from the environment) is not a dashboard's address: give --address http://HOST:8265"
        )
    return address.rstrip("/")


def open_client(address: str) -> tuple["JobSubmissionClient", bool]:
    """Returns a client of the cluster, and whether the cluster runs on this machine.

    Args:
        address: of `dashboard_address`.

    Raises:
        ConnectionError: Nothing answers at the address.
        PermissionError: The cluster wants a token, or another one.
        RuntimeError: It is no Ray dashboard, or another version of Ray.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    proxy = proxy_of(address)
    try:
        # Ray's client has no time limit of its own
        socket.create_connection(proxy or (host, port), timeout=10).close()
    except OSError as error:
        remedy = (
            "start one, forward its port (kubectl port-forward, ray dashboard), or give --address"
        )
        if proxy:
            remedy = describe_proxy(address)
        raise ConnectionError(f"no cluster answers at {address} ({error}): {remedy}") from error
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):  # they log each request
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    with auth_errors(address), _without_addresses():
        try:
            client = JobSubmissionClient(address)
            version = ray_private.dashboard_version(client)
        except (requests.RequestException, ValueError, KeyError) as error:
            hint = f": {describe_proxy(address)}" if proxy else ""
            raise RuntimeError(
                f"{address} does not answer as Ray's dashboard does ({type(error).__name__}){hint}"
            ) from error
    theirs, ours = version["ray_version"], ray.__version__
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise RuntimeError(
            f"{address} runs Ray {theirs}, and ray_mae here Ray {ours}: use an image, or an installation "
            "here, of the same version"
        )
    return client, Path("/tmp/ray", version.get("session_name") or "unknown").is_dir()


@contextmanager
def auth_errors(address: str) -> Iterator[None]:
    """Raises PermissionError, with one line on what to do, for what Ray says of tokens in a block."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "required" in str(error):
            problem = (
                "wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        else:
            problem = "refuses the token of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH: it is another cluster's"
        if proxy_of(address):  # which may refuse in the same way
            problem += f"; or the proxy does: {describe_proxy(address)}"
        raise PermissionError(f"{address} {problem}") from error


@contextmanager
def _without_addresses() -> Iterator[None]:
    """Hides addresses of the environment, which count more to Ray's client than its argument."""
    hidden = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
