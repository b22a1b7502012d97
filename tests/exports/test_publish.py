"""`publish`: one folder, whose doors are tried, which names nobody, and is there whole or not at all."""

import getpass
import hashlib
import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import ray_mae
from ray_mae import cli
from ray_mae.config import InspectConfig, PublishConfig
from ray_mae.exports import doors
from ray_mae.exports import publish as module
from ray_mae.exports.doors import Door, describe_missed
from ray_mae.exports.origin import describe_data, read_cards, read_figures
from ray_mae.exports.publish import publish
from tests.exports.conftest import Write

ROOT = Path(__file__).parents[2]
METHODS = {"images": "mvmae", "volumes": "mdae"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe's result, in the form of probe.json."""
    folder = tmp_path_factory.mktemp("probe-at-st-elsewhere")

    def score(value: float) -> dict[str, Any]:
        interval = {"value": value, "low": value - 0.02, "high": value + 0.02}
        return {"labels": {"Edema": {}, "Fracture": {}}, "macro": {"auroc": interval}}

    result = {
        "title": "Probe of run on st-elsewhere",
        "features": {"trained": score(0.81), "random": score(0.7), "pixels": score(0.6)},
        "differences": {"random": {"value": 0.11, "low": 0.08, "high": 0.14}},
        "cautions": ["Of one seed."],
    }
    (folder / "probe.json").write_text(json.dumps(result))
    few = {"value": 0.5, "low": None, "high": None, "spread": None, "seeds": []}
    none = few | {"value": None}
    starts = {
        "trained": {"macro": {"auroc": none}, "Edema": {"auroc": none}},
        "random": {"macro": {"auroc": few}, "Edema": {"auroc": few}},
    }
    (folder / "finetune.json").write_text(json.dumps({"starts": starts, "differences": {}}))
    return folder


def settings(run: Path, output: Path, **more: Any) -> PublishConfig:
    return PublishConfig(checkpoint=run, output=output, **more)


@pytest.fixture(scope="module", params=METHODS)
def published(
    request: pytest.FixtureRequest,
    write_perturbed: Write,
    figures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, dict[str, Any]]:
    """The checkpoint, the folder and the summary."""
    run = write_perturbed(METHODS[request.param])
    shards = Path(json.loads((run / "state.json").read_text())["config"]["shards"])
    ray_mae.inspect(InspectConfig(shards=shards, duplicates=False))
    output = tmp_path_factory.mktemp("published") / "encoder"
    summary = publish(settings(run, output, license="apache-2.0", figures=[figures]))
    return run, output, summary


@pytest.mark.slow
def test_every_door_is_tried_and_says_the_same(published: tuple[Path, Path, dict]) -> None:
    _, folder, summary = published
    tried = {name: door for name, door in summary["doors"].items() if door["verified"]}
    expected = {"ray_mae", "torch.export", "ONNX"}
    expected |= (
        {"timm", "transformers"}
        if (folder / "views.safetensors").is_file()
        else {"nnU-Net's network", "the same, 2 channels", "MONAI bundle"}
    )
    assert tried.keys() >= expected
    assert all(door["largest_difference"] <= door["bound"] <= 1e-5 for door in tried.values())
    assert all(door["why_not"] for door in summary["doors"].values() if not door["verified"])
    assert json.loads((folder / "summary.json").read_text()) == summary
    card = (folder / "README.md").read_text()
    assert all(f"| {name} |" in card for name in summary["doors"])


@pytest.mark.slow
def test_the_example_is_what_anybody_can_compare_with(
    published: tuple[Path, Path, dict],
) -> None:
    """By ONNX, with the arrays of the file alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    _, folder, _ = published
    example = dict(np.load(folder / "example.npz"))
    features = example.pop("features")
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    inputs = {name: x.astype(np.float32) if name != "view" else x for name, x in example.items()}
    if "image" in inputs:
        inputs["image"] = inputs["image"].repeat(3, axis=1)
    (found,) = session.run(None, inputs)
    np.testing.assert_allclose(found, features, rtol=0, atol=1e-5)
    for samples in (1, 2):  # any batch
        (part,) = session.run(None, {name: x[:samples] for name, x in inputs.items()})
        np.testing.assert_allclose(part, features[:samples], rtol=0, atol=1e-5)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file, and every file within its archives."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path.name, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path.name}/{name}", name.encode() + archive.read(name)


@pytest.mark.slow
def test_nobody_and_no_place_is_named(published: tuple[Path, Path, dict]) -> None:
    run, folder, _ = published
    secrets = {str(run), "doctor-who", "elsewhere", str(ROOT), sys.prefix, str(folder.parent)}
    secrets |= {str(Path.home()) + "/", f"/{getpass.getuser()}/", "/tmp/"}
    secrets |= {name for name in [socket.gethostname()] if len(name) > 6}  # others occur by chance
    found = {
        (name, secret)
        for name, content in contents(folder)
        for secret in secrets
        if secret.encode() in content
    }
    assert found == set()


@pytest.mark.slow
def test_the_card_is_one_that_hubs_read(published: tuple[Path, Path, dict]) -> None:
    _, folder, _ = published
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("roc_auc", 0.81)
    text = (folder / "README.md").read_text()
    assert "0.810 [0.790, 0.830] | 0.700 [0.680, 0.720]" in text
    assert "| Fine-tuning | mean auroc of 1 | – | 0.500 (no interval) | – | – |" in text
    assert "| train split | 4 " in text
    assert "| steps | 7 |" in text
    assert "Apache License" in (folder / "LICENSE").read_text()
    citation = yaml.safe_load((folder / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert any(
        "arXiv:2511.22294" in p["notes"] or p["notes"] == "CVPR" for p in citation["references"][:1]
    )


@pytest.mark.slow
def test_checksums_and_our_own_reader(published: tuple[Path, Path, dict]) -> None:
    run, folder, _ = published
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert sums.keys() == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    encoder, _ = ray_mae.load_encoder(folder)
    again, _ = ray_mae.load_encoder(run)
    x = (
        torch.rand(2, 1, 32, 32)
        if encoder.settings.dimensions == 2
        else torch.rand(2, 1, 16, 16, 16)
    )
    assert torch.equal(encoder(x), again(x))


@pytest.mark.slow
def test_a_door_that_misses_its_bound_fails_and_leaves_nothing(
    write_perturbed: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a release of timm that pools otherwise."""
    real = doors.timm.timm_config

    def wrong(*given: Any) -> dict[str, Any]:
        config = real(*given)
        return config | {"model_args": config["model_args"] | {"qk_norm": False}}

    monkeypatch.setattr("ray_mae.exports.timm.timm_config", wrong)
    with pytest.raises(
        RuntimeError, match=r"nothing was published: timm \(timm .*\) does not open"
    ):
        publish(settings(write_perturbed("mvmae"), tmp_path / "encoder"))
    monkeypatch.undo()
    monkeypatch.setattr("ray_mae.exports.timm.PIXEL_MEAN", 0.51)
    with pytest.raises(
        RuntimeError, match=r"features of timm \(timm .*\) differ from ours by .*1e-05"
    ):
        publish(settings(write_perturbed("mvmae"), tmp_path / "encoder"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_number_misses_every_bound() -> None:
    assert Door("a", "b", "c", float("nan")).missed
    assert Door("a", "b", "c", float("inf")).missed
    assert not Door("a", "b", "c", 1e-6).missed
    assert not Door("a", "b", "c", why_not="not there").missed
    assert describe_missed([Door("a", "b", "c", 1e-6)]) == ""


def test_a_folder_with_something_else_is_refused(write_perturbed: Write, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than an encoder that was published"):
        publish(settings(write_perturbed("mvmae"), tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_figures_and_cards_that_are_not_there_are_named(
    write_perturbed: Write, tmp_path: Path
) -> None:
    run, output = write_perturbed("mvmae"), tmp_path / "encoder"
    with pytest.raises(FileNotFoundError, match=r"holds none of probe\.json"):
        publish(settings(run, output, figures=[tmp_path]))
    with pytest.raises(FileNotFoundError, match=r"card\.json is missing: run `ray-mae inspect"):
        publish(settings(run, output, cards=[tmp_path]))
    assert list(tmp_path.iterdir()) == []


def test_a_card_of_data_gives_counts_and_no_names() -> None:
    card = {
        "kind": "volume",
        "dataset": "st-elsewhere",
        "splits": {"train": {"volumes": 1200, "patients": 300, "images": 1200}},
        "modalities": {"T1w": {"train": 1000, "val": 3}, "FLAIR": {"train": 200}},
        "sites": {"St Elsewhere": {"train": 1000}, "unknown": {"train": 200}},
        "leaks": {"patients_in_two_splits": 0},
    }
    words = describe_data(card)
    assert words["train split"] == "1,200 volumes of 300 patients, 1,200 images"
    assert words["contrasts"] == "T1w 1,000, FLAIR 200"
    assert words["sites"] == "1"
    assert words["years"] == "unknown"
    assert "lsewhere" not in str(words)


def test_results_of_fine_tuning_are_read_as_they_are_written(tmp_path: Path) -> None:
    estimate = {"value": 0.5, "low": None, "high": None, "spread": None, "seeds": []}
    starts = {
        n: {"macro": {"dice": estimate}, "lesion": {"dice": estimate}}
        for n in ("trained", "random")
    }
    (tmp_path / "segment.json").write_text(json.dumps({"starts": starts, "differences": {}}))
    (figure,) = read_figures([tmp_path])
    assert (figure.task, figure.metric, figure.rows) == ("segment", "dice", 1)
    assert figure.difference is None
    assert read_cards([], [tmp_path]) == []


@pytest.mark.slow
def test_it_is_published_again_by_the_command_in_place_of_the_earlier_one(
    write_perturbed: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = write_perturbed("simmim"), tmp_path / "encoder"
    command = ["publish", "--checkpoint", str(run), "--output", str(output)]
    cli.run(command)
    (output / "old").touch()
    cli.run([*command, "--pool", "cls", "--name", "chest", "--view", "lateral"])
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    assert not (output / "old").exists()
    assert "No licence was chosen" in (output / "LICENSE").read_text()
    assert "# chest" in (output / "README.md").read_text()
    # and from what was published, whose training is not known any more
    cli.run(["publish", "--checkpoint", str(output), "--output", str(tmp_path / "again")])
    assert "Method, steps and settings: unknown." in (tmp_path / "again" / "README.md").read_text()


@pytest.mark.slow
def test_without_the_packages_of_onnx_there_is_no_such_file_and_the_table_says_so(
    write_perturbed: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = doors.not_installed

    def fake(packages: tuple[str, ...]) -> list[str]:
        return ["onnxscript"] if "onnxscript" in packages else real(packages)

    for place in (doors, module):
        monkeypatch.setattr(place, "not_installed", fake)
    summary = publish(settings(write_perturbed("mvmae"), tmp_path / "encoder"))
    assert "encoder.onnx" not in summary["files"]
    assert summary["doors"]["ONNX"]["why_not"] == "onnxscript is not installed"
    assert "pip install 'ray-mae[export]'" in capsys.readouterr().out


@pytest.mark.slow
def test_a_graph_loads_where_ray_mae_is_not(published: tuple[Path, Path, dict]) -> None:
    _, folder, _ = published
    code = (
        "import numpy as np, sys, torch; e = dict(np.load('example.npz')); f = e.pop('features')\n"
        "x = {n: torch.from_numpy(a) for n, a in e.items()}\n"
        "x = (x['image'].repeat(1, 3, 1, 1), x['view']) if 'view' in x else (x['volume'].float(),)\n"
        "y = torch.export.load('encoder.pt2').module()(*x).detach().numpy()\n"
        "sys.exit('ray_mae' in sys.modules or not np.abs(y - f).max() < 1e-5)"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, check=True)
