"""Notices of clouds, by a machine's metadata as each of them serves it."""

import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_mae.cluster import notices
from ray_mae.cluster.notices import CLOUDS, drain_command, watch

LAUNCHER = Path(__file__).parents[2] / "cluster/launcher"
SOON = datetime.now(UTC) + timedelta(days=1)
AZURE = (
    '{"Events": [{"EventType": "Freeze", "Resources": ["me"], "NotBefore": ""},'
    '{"EventType": "Preempt", "Resources": ["WHO"], "NotBefore": "WHEN"}]}'
).replace("WHEN", format_datetime(SOON, usegmt=True))
AWS_PATH, GCP_PATH = (
    "/latest/meta-data/spot/instance-action",
    "/computeMetadata/v1/instance/preempted",
)
AZURE_PATH = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = {"/metadata/instance/compute/name?api-version=2021-02-01&format=text": "me"}
TOKEN = {"/latest/api/token": "a token"}


@pytest.fixture
def machine() -> Iterator[Callable[[dict[str, str]], str]]:
    """Serves metadata by path: what is not there is 404, without a cloud's header 403."""
    servers = []

    def start(answers: dict[str, str]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                allowed = {
                    "metadata-flavor": "Google",
                    "metadata": "true",
                    "x-aws-ec2-metadata-token": "a token",
                    "x-aws-ec2-metadata-token-ttl-seconds": "60",
                }
                known = any(headers.get(name) == value for name, value in allowed.items())
                status = 403 if not known else 200 if self.path in answers else 404
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answers.get(self.path, "").encode())

            def do_PUT(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        web = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(web)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{web.server_port}"

    yield start
    for web in servers:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize(
    ("cloud", "answers", "seconds"),
    [
        ("aws", TOKEN, None),
        ("aws", TOKEN | {AWS_PATH: f'{{"action": "terminate", "time": "{SOON:%Y-%m-%dT%H:%M:%SZ}"}}'}, 86400),
        ("aws", TOKEN | {AWS_PATH: '{"action": "stop", "time": "2020-01-01T00:00:00Z"}'}, 0),
        ("gcp", {GCP_PATH: "FALSE"}, None),
        ("gcp", {GCP_PATH: "TRUE\n"}, 30),
        ("azure", {AZURE_PATH: '{"DocumentIncarnation": 1, "Events": []}'}, None),
        ("azure", {AZURE_PATH: AZURE.replace("WHO", "me")} | NAME, 86400),
        ("azure", {AZURE_PATH: AZURE.replace("WHO", "a neighbour")} | NAME, None),
    ],
)  # fmt: skip
def test_each_cloud_is_understood(
    machine: Callable[[dict[str, str]], str],
    monkeypatch: pytest.MonkeyPatch,
    cloud: str,
    answers: dict[str, str],
    seconds: int | None,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # metadata never goes through it
    left = CLOUDS[cloud](machine(answers))
    if not seconds:
        assert left == seconds
    else:
        assert left is not None
        assert 0 < left <= seconds  # the tests may take an hour


def test_a_notice_drains_the_node_after_answers_that_say_nothing(
    machine: Callable[[dict[str, str]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers: dict[str, str] = {}
    base = machine(answers)
    ran: list[list[str]] = []

    def run(command: list[str]) -> Any:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(notices.subprocess, "run", run)
    threading.Timer(0.5, lambda: answers.update({GCP_PATH: "TRUE"})).start()
    assert watch("gcp", base, every_s=0.1) == 0
    assert ran == [drain_command("gcp", 30)]
    printed = capsys.readouterr().out
    assert printed.count("does not tell of notices") == 1
    assert "gcp takes this machine away in 30 s" in printed


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_worker_of_the_launcher_listens_to_its_cloud(cloud: str) -> None:
    config = yaml.safe_load((LAUNCHER / f"{cloud}.yaml").read_text())
    *_, command = config["worker_start_ray_commands"]
    assert f"python -m ray_mae.cluster.notices {cloud} < /dev/null" in command
    assert command.startswith("RAY_AUTH_MODE=token setsid nohup ")
    assert command.endswith("&")  # it does not hold up the start
