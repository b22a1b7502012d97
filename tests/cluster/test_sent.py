"""What `submit` sends, and what it refuses before anything is sent."""

import http.server
import json
import re
import shlex
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_mae import cli
from ray_mae.config import SubmitConfig
from ray_mae.submit.address import dashboard_address, open_client
from ray_mae.submit.package import pack

COMMAND = ["--", "embed", "--checkpoint", "/runs/a", "--shards", "/data/shards"]
OUTPUT = ["--output", "/data/embeddings"]
INGEST = "-- ingest --archive dicom --output /data/shards".split()
STAYS = [
    *("scans/p.dcm", "scans/p.nii.gz", "scans/IM0001", "reports.csv", "s5.txt", "r.xml", "labels.json"),
    *("weights.pt", "figure.ipynb", "pseudonym_key", ".env", ".env.yaml", "id_rsa", "server.pem"),
    *("creds/service-account.json", "secrets.yaml", "deploy/store-credentials.yml", ".ssh/config.sh"),
    *("secrets.toml", "credentials.cfg", "secrets.py", "kubeconfig.yaml", "api_keys.yaml", "setup.py"),
    *("pseudonym_key.yaml", "data/cohort/patient.yaml", "tests/test_a.py", "conftest.py", "other.yaml"),
    *("code/patient.yaml", "code/key.json", "code/private/b.py", "code/.hidden.py", "code/link.py"),
    *("pyproject.toml", "uv.lock", "README.md", "LICENSE", "run.sh", "code2/__init__.py"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with settings, import packages, results, and what must stay here."""
    for file, content in {
        "run.yaml": "batch_size: 16\n",
        "code/__init__.py": "",
        "code/a.py": "pass\n",
        "code/deep/b.py": "pass\n",
        "code/templates/page.html.j2": "page",
        "code/.gitignore": "private/\n",
        "code/__pycache__/a.pyc": "",
        "single.py": "pass\n",
        "ray_mae/__init__.py": "",
        "ray_mae/notes/patient.yaml": "",
        ".gitignore": "/ignored\n",
        "ignored/c.yaml": "batch_size: 8",
        "nested/sub.yaml": "optim: optim.yaml\n",
        "nested/optim.yaml": "base_lr: 0.5\n",
        "runs/a/metrics.jsonl": "",
        **dict.fromkeys(STAYS, "a patient, or a key"),
        "pyproject.toml": '[project]\nname = "mine"\nreadme = "README.md"\nlicense-files = ["LIC*"]\n',
    }.items():
        if not file.endswith("link.py"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(content)
    (tmp_path / "code/link.py").symlink_to(tmp_path / "secrets.py")
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def dry(*words: str) -> int:
    with pytest.raises(SystemExit) as error:
        cli.run(["submit", "--dry-run", *words])
    return int(error.value.code or 0)


@pytest.fixture
def sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., set[str]]:
    """Files that a command sends, as a dry run tells."""

    def ask(*words: str) -> set[str]:
        assert dry(*words) == 0
        (line,) = re.findall(r"^files: (.*)$", capsys.readouterr().out, re.MULTILINE)
        return {name for name in line.split(", ") if name}

    return ask


OURS = "ray_mae/__init__.py"
CODE = {"code/__init__.py", "code/a.py", "code/deep/b.py", "code/templates/page.html.j2"}
TRAIN = ["pretrain", "--shards", "/data/shards", "--output", "/data/run"]


def test_our_package_and_what_the_command_names_are_sent_and_nothing_else(
    folder: Path, sent: Callable[..., set[str]]
) -> None:
    assert all((folder / name).exists() for name in STAYS)
    assert sent(*COMMAND, *OUTPUT) == {OURS}
    assert sent(*COMMAND, *OUTPUT, "--config", "run.yaml") == {OURS, "run.yaml"}
    assert sent(*COMMAND, *OUTPUT, "--config=ignored/c.yaml") == {OURS, "ignored/c.yaml"}
    assert sent("--package", "code", "--package", "single", *COMMAND, *OUTPUT) == {
        *(OURS, "single.py"),
        *CODE,
    }
    nested = {OURS, "nested/sub.yaml", "nested/optim.yaml"}
    assert sent("--", *TRAIN, "--config", "nested/sub.yaml") == nested
    assert sent("--", *TRAIN, "--optim", "nested/optim.yaml") == {OURS, "nested/optim.yaml"}
    (folder / "old.yaml").write_text(
        "method: {name: mvmae, preset: tiny}\n"
    )  # an earlier version's
    assert sent("--", *TRAIN, "--config", "old.yaml") == {OURS, "old.yaml"}
    shutil.rmtree(folder / "ray_mae")
    assert sent(*COMMAND, *OUTPUT) == set()


def test_an_environment_is_built_from_the_project_and_what_that_names(
    folder: Path, sent: Callable[..., set[str]]
) -> None:
    project = {"pyproject.toml", "uv.lock", "README.md", "LICENSE"}
    assert sent("--environment", "uv", *COMMAND, *OUTPUT) == {OURS, *project}
    (folder / "pyproject.toml").write_text(
        "[[tool.uv.index]]\nurl = 'https://me:s3cret@host/simple'\n"
    )
    with pytest.raises(
        ValueError, match=r"pyproject\.toml, line 2: a URL with a password"
    ) as error:
        cli.run(["submit", "--dry-run", "--environment", "uv", *COMMAND, *OUTPUT])
    assert "s3cret" not in str(error.value)


def test_the_same_content_is_the_same_archive(folder: Path) -> None:
    one, two = folder / "1.zip", folder / "2.zip"
    pack(folder, ["code"], [Path("run.yaml")], project=False, max_mb=20).write(one)
    (folder / "run.yaml").touch()
    packed = pack(folder, ["code"], [Path("run.yaml")], project=False, max_mb=20)
    packed.write(two)
    assert one.read_bytes() == two.read_bytes()  # so Ray finds that it has it already
    assert packed.left_out == [
        *("code/key.json", "code/link.py", "code/patient.yaml", "ray_mae/notes/patient.yaml")
    ]
    with zipfile.ZipFile(one) as archive:
        assert archive.read("run.yaml") == b"batch_size: 16\n"


def test_too_much_is_refused_with_what_is_large(folder: Path) -> None:
    (folder / "code/large.py").write_text("x" * 3_000_000)
    with pytest.raises(
        ValueError, match=r"3 MB would be sent, more than max_mb 1; most in code/large\.py \(3\.0"
    ):
        pack(folder, ["code"], [], project=False, max_mb=1)


def test_our_own_package_is_sent_whole() -> None:
    root = Path(__file__).parents[2]
    packed = pack(root, [], [], project=True, max_mb=20)
    there = {p.relative_to(root).as_posix() for p in (root / "ray_mae").rglob("*") if p.is_file()}
    modules = {name for name in there if "__pycache__" not in name}
    assert {*packed.files} == modules | {"pyproject.toml", "README.md", "LICENSE"} | (
        {"uv.lock"} if (root / "uv.lock").is_file() else set()
    )
    assert packed.left_out == []


def test_a_dry_run_shows_what_would_be_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry("--env", "A", "--env", "B", *COMMAND, *OUTPUT, "--config", "run.yaml") == 0
    shown = capsys.readouterr().out
    assert "cluster: http://127.0.0.1:8265" in shown
    assert 'test -n "$A"' in shown
    assert 'test -n "$B"' in shown
    assert "exec python -m ray_mae embed --checkpoint /runs/a" in shown
    assert "sent along: 2 files" in shown
    assert "left out, as no modules: ray_mae/notes/patient.yaml" in shown
    assert "nothing was sent" in shown


def test_uv_builds_the_environment_only_where_it_is_asked_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = (folder / "pyproject.toml").rename("aside")
    with pytest.raises(ValueError, match=r"environment uv wants a pyproject\.toml"):
        cli.run(["submit", "--dry-run", "--environment", "uv", *COMMAND, *OUTPUT])
    project.rename("pyproject.toml")
    assert dry("--environment", "uv", *COMMAND, *OUTPUT) == 0
    shown = capsys.readouterr().out
    assert "exec uv run --no-dev python -m ray_mae embed" in shown
    assert "'RAY_ENABLE_UV_RUN_RUNTIME_ENV': '1'" in shown
    (folder / "pyproject.toml").write_text('[project]\nname = "ray-mae"\n')
    assert dry("--environment", "uv", *COMMAND, *OUTPUT) == 0
    assert "exec uv run --no-dev --extra train python" in capsys.readouterr().out


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
        (["--", "embed", "--checkpoint", "runs/a", "--shards", "/data/s", *OUTPUT],
         "--checkpoint runs/a is relative, and the YAML files that a command names are sent, and no other"),
        ([*COMMAND, "--output", "nas:/b/x"], "--output nas://b/x is a URL that cannot be used here"),
        (["--", *TRAIN, "--output", "http://b/x"], "--output http://b/x is a URL that cannot be used here"),
        (["--", "tune", "--config", "x.yaml", "--shards", "/s", "--output", "/o",
          "--storage", "postgresql://me:s3cret@host/name"], "does not exist|storage holds a password"),
        (["--", "ingest", "--archive", "dicom", "--source", "s3://me:s3cret@b/x", "--output", "/o"],
         "--source is a URL with a password"),
        (["--package", "nothing", *COMMAND, *OUTPUT], "package nothing is no import package"),
        (["--package", "../x", *COMMAND, *OUTPUT], "package takes names of import packages"),
        ([*COMMAND, *OUTPUT, "--config", "sub/../../x.yaml"], "does not exist"),
        ([*INGEST, "--source", "scans"], "--source scans is relative"),
        ([*INGEST, "--source", "/data", "--reports", "reports.csv"], "--reports reports.csv is relative"),
        ([*INGEST, "--source", "/data", "--tables", "code"], "--tables code is relative"),
        ([*INGEST, "--source", "/data", "--volumes.table", "run.yaml"], "--volumes.table run.yaml is rel"),
        ([*INGEST, "--source", "/data", "--pseudonym_key", "pseudonym_key"],
         "--pseudonym_key pseudonym_key is relative"),
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
    assert "sent along" not in shown
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
