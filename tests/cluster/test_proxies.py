"""A proxy of the environment is named where it is in the way."""

import errno
import http.server
import threading
from collections.abc import Iterator

import pytest

from ray_mae.cluster.proxies import describe_proxy, proxy_of
from ray_mae.data.paths import retry_transient
from ray_mae.submit.address import open_client

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy() -> Iterator[int]:
    """Port of a proxy that lets nobody through."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403, "by company policy")

        def log_message(self, *_: object) -> None:
            pass

    web = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield web.server_port
    web.shutdown()
    web.server_close()


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://host:8265", None),
        ({"HTTP_PROXY": "http://me:s3cret@proxy:3128"}, "http://host:8265", ("proxy", 3128)),
        ({"http_proxy": "proxy:3128"}, "http://host:8265", ("proxy", 3128)),
        ({"https_proxy": "http://proxy:3128"}, "http://host:8265", None),
        ({"ALL_PROXY": "socks5://proxy"}, "https://host", ("proxy", 1080)),
        (
            {"http_proxy": "http://proxy", "NO_PROXY": "127.0.0.1,.local"},
            "http://127.0.0.1:1",
            None,
        ),
        ({"http_proxy": "http://proxy", "NO_PROXY": "*"}, "http://host", None),
        ({"http_proxy": "http://proxy", "NO_PROXY": "other"}, "http://host", ("proxy", 80)),
    ],
)
def test_the_environment_says_which_proxy_is_used(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    url: str,
    expected: tuple[str, int] | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == expected
    assert "s3cret" not in describe_proxy(url)


def test_submit_names_the_proxy_that_refuses_and_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, proxy: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
    refused = rf"or the proxy does: .* proxy 127\.0\.0\.1:{proxy} of HTTP_PROXY for cluster"
    with pytest.raises(PermissionError, match=refused):
        open_client("http://cluster.example:8265")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(
        ConnectionError, match=r"proxy 127\.0\.0\.1:1 of HTTP_PROXY.*NO_PROXY names"
    ):
        open_client("http://cluster.example:8265")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ConnectionError, match="forward its port") as error:
        open_client("http://127.0.0.1:1")
    assert "proxy of" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"HTTPS_PROXY": "http://proxy:3128"}, "proxy proxy:3128"), ({}, "no HTTPS_PROXY")],
)
def test_a_store_that_cannot_be_reached_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    class ConnectTimeoutError(Exception):
        """As botocore and aiohttp name theirs."""

    def unreachable() -> None:
        raise ConnectTimeoutError("Connect timeout on endpoint URL")

    monkeypatch.setattr("ray_mae.data.paths.WAITS", ())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match=named) as error:
        retry_transient(unreachable)
    assert error.value.errno == errno.EIO
