"""What `submit` sends, and what it refuses before anything is sent."""

import http.server
import json
import re
import shlex
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_mae import cli
from ray_mae.config import SubmitConfig
from ray_mae.submit.address import dashboard_address, open_client
from ray_mae.submit.package import pack

COMMAND = ["--", "embed", "--checkpoint", "s3://b/run", "--shards", "s3://b/shards"]
OUTPUT = ["--output", "s3://b/embeddings"]
INGEST = "-- ingest --archive dicom --output /data/shards".split()
STAYS = [
    *("scans/p.dcm", "scans/p.nii.gz", "scans/IM0001", "reports.csv", "s5.txt", "r.xml", "labels.json"),
    *("weights.pt", "figure.ipynb", "pseudonym_key", ".env", ".env.yaml", "id_rsa", "server.pem"),
    *("creds/service-account.json", "secrets.yaml", "deploy/store-credentials.yml", ".ssh/config.sh"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with settings, code, results, a large file, and what must stay here."""
    for file, content in {
        "run.yaml": "batch_size: 16\n",
        "code/a.py": "pass\n",
        "code/.gitignore": "private/\n",
        "code/private/b.py": "pass\n",
        ".gitignore": "/ignored\n!kept.dcm\n",
        "ignored/c.yaml": "batch_size: 8",
        ".venv/lib.py": "",
        ".git/config": "",
        "runs/a/metrics.jsonl": "",
        "runs/a/note.txt": "",
        "large.py": "x" * 3_000_000,
        **dict.fromkeys(STAYS, "a patient, or a key"),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    (tmp_path / "link.py").symlink_to(tmp_path / "code/a.py")
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def dry(*words: str) -> int:
    with pytest.raises(SystemExit) as error:
        cli.run(["submit", "--dry-run", *words])
    return int(error.value.code or 0)


@pytest.mark.parametrize("name", STAYS)
def test_data_and_secrets_stay_here(folder: Path, name: str) -> None:
    packed = pack(folder, max_file_mb=2, max_mb=20)
    assert (folder / name).is_file()
    assert Path(name) not in [*packed.files, *packed.large]


def test_code_and_settings_are_sent_and_no_results_nor_what_is_ignored(folder: Path) -> None:
    packed = pack(folder, max_file_mb=2, max_mb=20)
    assert [str(f) for f in packed.files] == ["code/a.py", "run.yaml"]
    assert packed.large == [Path("large.py")]
    one, two = folder / "ignored" / "1.zip", folder / "ignored" / "2.zip"
    packed.write(one)
    (folder / "run.yaml").touch()
    packed.write(two)
    assert one.read_bytes() == two.read_bytes()  # so Ray finds that it has it already
    with zipfile.ZipFile(one) as archive:
        assert archive.read("run.yaml") == b"batch_size: 16\n"


def test_a_folder_that_is_too_large_is_refused_with_what_is_large(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"3 MB to pack, more than max_mb 1; most in large\.py \(3\.0"
    ):
        pack(folder, max_file_mb=10, max_mb=1)


def test_a_dry_run_shows_what_would_be_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry("--env", "A", "--env", "B", *COMMAND, *OUTPUT, "--config", "run.yaml") == 0
    shown = capsys.readouterr().out
    assert "cluster: http://127.0.0.1:8265" in shown
    assert 'test -n "$A"' in shown
    assert 'test -n "$B"' in shown
    assert "exec python -m ray_mae embed --checkpoint s3://b/run" in shown
    assert "packed: 2 files" in shown
    assert "left out, over 2 MB: large.py" in shown
    assert "nothing was sent" in shown


def test_uv_builds_the_environment_only_where_it_is_asked_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"environment uv wants a pyproject\.toml"):
        cli.run(["submit", "--dry-run", "--environment", "uv", *COMMAND, *OUTPUT])
    (folder / "pyproject.toml").touch()
    assert dry("--environment", "uv", *COMMAND, *OUTPUT) == 0
    shown = capsys.readouterr().out
    assert "exec uv run --no-dev python -m ray_mae embed" in shown
    assert "'RAY_ENABLE_UV_RUN_RUNTIME_ENV': '1'" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "embed", "--chekpoint", "x"], "did you mean checkpoint"),
        (["--", "embedd"], "did you mean embed"),
        (["embed"], "submit wants a command"),
        (["--env", "KEY=s3cret", *COMMAND, *OUTPUT], r"env takes names of variables and no values, got KEY…"),
        (["--address", "host:6379", *COMMAND, *OUTPUT], "http://HOST:8265"),
        (["--folow", *COMMAND, *OUTPUT], "did you mean follow"),
        ([*COMMAND, "--output", "runs/b"], "--output runs/b is relative"),
        (["--", "embed", "--checkpoint", "runs/a", "--shards", "s3://b/s", *OUTPUT],
         "--checkpoint runs/a is relative, and of the working folder code and settings alone are sent"),
        ([*INGEST, "--source", "scans"], "--source scans is relative"),
        ([*INGEST, "--source", "/data", "--reports", "reports.csv"], "--reports reports.csv is relative"),
        ([*INGEST, "--source", "/data", "--tables", "code"], "--tables code is relative"),
        ([*INGEST, "--source", "/data", "--volumes.table", "run.yaml"], "--volumes.table run.yaml is rel"),
        ([*INGEST, "--source", "/data", "--pseudonym_key", "pseudonym_key"],
         "--pseudonym_key pseudonym_key is relative"),
        ([*COMMAND, *OUTPUT, "--config", "ignored/c.yaml"], "--config ignored/c.yaml is not among"),
        (["--image", "x", *COMMAND, *OUTPUT, "--config", "run.yaml"], "not sent with an image"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(folder: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        cli.run(["submit", "--dry-run", *words])
    assert "s3cret" not in str(error.value)


def test_the_address_comes_from_the_flag_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1/")
    assert dashboard_address(None) == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:2")
    assert dashboard_address(None) == "http://b:2"
    assert dashboard_address("http://c:3") == "http://c:3"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "ray://b:10001")
    with pytest.raises(ValueError, match="is not a dashboard's address"):
        dashboard_address(None)


@pytest.fixture
def server() -> Callable[[dict[str, str]], str]:
    """A web server that gives one answer to everything."""

    def start(answer: dict[str, str]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        web = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{web.server_port}"

    return start


def test_another_version_of_ray_and_no_ray_are_told(
    server: Callable[[dict[str, str]], str],
) -> None:
    with pytest.raises(RuntimeError, match=r"runs Ray 2\.40\.1, and ray_mae here Ray 2"):
        open_client(server({"ray_version": "2.40.1", "version": "4"}))
    with pytest.raises(RuntimeError, match="does not answer as Ray's dashboard does"):
        open_client(server({"hello": "world"}))
    with pytest.raises(ConnectionError, match=r"no cluster answers at http://127\.0\.0\.1:1 "):
        open_client("http://127.0.0.1:1")


def test_an_image_brings_its_own_files_and_wants_podman(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry("--image", "registry/x", *COMMAND, *OUTPUT) == 0
    shown = capsys.readouterr().out
    assert "packed" not in shown
    assert "note: nodes start the image by podman" in shown
    with pytest.raises(ValueError, match="exclude each other"):
        SubmitConfig(command=["demo"], image="registry/x", environment="uv")


def test_the_commands_of_the_guide_are_valid_and_its_files_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    text = (root / "docs/cluster.md").read_text().replace("\\\n", " ").replace("$PWD", "/here")
    sent = re.findall(r"ray-mae (submit .* -- \w.*)$", text, re.MULTILINE)
    assert len(sent) == 5
    for line in sent:
        _, config = cli.parsed(shlex.split(line))
        cli.parsed(config.command)
    planned = re.findall(r"ray-mae (plan .*)$", text, re.MULTILINE)
    assert len(planned) == 1
    cli.parsed(shlex.split(planned[0]))
    queued = re.findall(r"sbatch \S+ (\w.*)$", text, re.MULTILINE)
    assert len(queued) == 1
    cli.parsed(shlex.split(queued[0]))
    files = set(re.findall(r"(?:cluster|jobs)/[\w./-]+\w", text))
    assert len(files) > 10
    assert not [file for file in files if not (root / file).exists()]
