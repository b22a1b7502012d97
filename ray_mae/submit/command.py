"""`submit`: a command as a job of a Ray cluster."""

import os
import shlex
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.cluster.runtime import NO_USAGE_STATISTICS
from ray_mae.config import SubmitConfig
from ray_mae.submit.address import auth_errors, dashboard_address, open_client
from ray_mae.submit.follow import Follower
from ray_mae.submit.package import Package, holds_password, pack
from ray_mae.submit.paths import check_paths, is_sent, output_of

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ENVIRONMENT = {
    # as in ray_mae.cluster.runtime, for processes that Ray starts before they import it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    **NO_USAGE_STATISTICS,
}


def submit(config: SubmitConfig, command: Any, files: Sequence[Path]) -> int:
    """Sends a command to a cluster and prints how to follow it.

    Args:
        config: settings of `submit`. With `dry_run` nothing is sent.
        command: the settings that `config.command` was parsed to.
        files: YAML files that they were read from.

    Returns:
        The exit code for this process; with `follow` it is the job's.

    Raises:
        ValueError: A setting or a path that cannot be right on the cluster.
        ConnectionError: Nothing answers at the cluster's address.
        PermissionError: The cluster wants a token, or another one.
        RuntimeError: The cluster runs another Ray, or did not take the job.
    """
    for word in config.command:
        if holds_password(word):  # where everybody can read it who may see the cluster's jobs
            raise ValueError(
                "a URL with a password stands in the command: take it out, and give it to the nodes "
                "by their environment"
            )
    package = None
    if not config.image:
        sent = [file for file in files if is_sent(file)]
        package = pack(
            config.folder, config.package, sent, config.environment == "uv", config.max_mb
        )
    address = dashboard_address(config.address)
    entrypoint = entrypoint_of(config)
    environment = _runtime_env(config)
    if config.dry_run:
        warnings = check_paths(command, files, bool(config.image), local=False)
        _print_job(config, address, entrypoint, environment, package, warnings)
        if package:
            print("files: " + ", ".join(package.files))
        print("nothing was sent")
        return 0
    client, local = open_client(address)
    warnings = check_paths(command, files, bool(config.image), local)
    _print_job(config, address, entrypoint, environment, package, warnings)
    job = _send(client, address, entrypoint, environment, package)
    token = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    print(
        f"job: {job}\n"
        f"  follow: {token}ray job logs --address {address} --follow {job}\n"
        f"  stop:   {token}ray job stop --address {address} {job}"
    )
    if output := output_of(command):
        print(f"  results: {output}/summary.json, when it has ended")
    return _follow(client, job) if config.follow else 0


def _send(
    client: "JobSubmissionClient",
    address: str,
    entrypoint: str,
    environment: dict[str, Any],
    package: Package | None,
) -> str:
    """Sends the job and returns its id."""
    import requests

    with tempfile.TemporaryDirectory() as scratch, auth_errors(address):
        if package and package.files:
            archive = Path(scratch, "working_folder.zip")
            print(f"sent: {package.write(archive) / 1e6:.2f} MB")
            environment = environment | {"working_dir": str(archive)}
        try:
            job: str = client.submit_job(entrypoint=entrypoint, runtime_env=environment)
        except (RuntimeError, requests.RequestException) as error:
            # the cluster's traceback, as a rule
            last = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"{address} did not take the job: {last}") from error
    return job


def _follow(client: "JobSubmissionClient", job: str) -> int:
    """Prints what the job prints, and returns its exit code at its end."""
    try:
        details = Follower(client, job).to_the_end()
    except KeyboardInterrupt:
        print(f"\njob {job} goes on; the lines above say how to follow and how to stop it")
        return 130
    print(f"job {job}: {details.status.value.lower()}", flush=True)
    if details.status.value == "SUCCEEDED":
        return 0
    if details.driver_exit_code is None and details.message:  # it never came to the command
        print(" ".join(details.message.split()))
    return int(details.driver_exit_code or 1)


def entrypoint_of(config: SubmitConfig) -> str:
    """Returns the shell line that the cluster runs: variables that must be there, then the command."""
    checks = [
        f'test -n "${name}" || {{ echo "ray-mae: {name} is not set on the cluster: '
        'give it to its nodes, such as by a Kubernetes secret" >&2; exit 2; }'
        for name in config.env
    ]
    run = f"uv run --no-dev{_extra(config)} python" if config.environment == "uv" else "python"
    return "; ".join([*checks, f"exec {run} -m ray_mae {shlex.join(config.command)}"])


def _extra(config: SubmitConfig) -> str:
    """What uv is told where the folder is this project's own, whose commands are an extra of it."""
    project = tomllib.loads((config.folder / "pyproject.toml").read_text()).get("project", {})
    return " --extra train" if project.get("name") == "ray-mae" else ""


def _runtime_env(config: SubmitConfig) -> dict[str, Any]:
    hook = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1" if config.environment == "uv" else "0"}
    environment: dict[str, Any] = {"env_vars": _ENVIRONMENT | hook}
    if config.image:
        environment["image_uri"] = config.image
    return environment


def _print_job(
    config: SubmitConfig,
    address: str,
    entrypoint: str,
    environment: dict[str, Any],
    package: Package | None,
    warnings: list[str],
) -> None:
    print(f"cluster: {address}")
    print(f"entrypoint: {entrypoint}")
    print(f"environment: {config.image or config.environment}, {environment['env_vars']}")
    if package:
        print(f"sent along: {len(package.files)} files, {package.size / 1e6:.2f} MB")
        if package.left_out:
            print(f"left out, as no modules: {', '.join(package.left_out)}")
    if config.image:
        warnings = [*warnings, "nodes start the image by podman: pods and containers have none"]
    for warning in warnings:
        print(f"note: {warning}")
