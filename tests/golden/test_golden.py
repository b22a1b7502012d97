"""What the code of the recording did, any later code does: see README.md beside this file.

Only what stays is used: the command line, settings in YAML, the files of a run, shards.
"""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_mae.cli import run
from tests.golden import measure as m

pytestmark = pytest.mark.usefixtures("one_ray")

KERNELS = {"rtol": 5e-4, "atol": 1e-5}
"""Of losses: other CPUs add up in another order, and twenty steps make more of it."""
NORM = {"rtol": 5e-3, "atol": 1e-5}
"""Of the gradient's norm, which has kinks where the losses have none."""
CODECS = {"rtol": 5e-4, "atol": 2e-3}
"""Of decoded images and voxels, where another version of a library wrote other bytes."""


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A Ray that all commands of this module join, and the key of the pseudonyms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_MAE_PSEUDONYM_KEY", m.KEY)
        if "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" not in os.environ:
            patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        import ray

        ray.init(address="local", num_cpus=m.CPUS, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def recorded(name: str) -> dict[str, Any]:
    return json.loads((m.HERE / name).read_text())


def differences(found: Any, golden: Any, rtol: float, atol: float, at: str = "") -> Iterator[str]:
    """Where `found` is not as recorded, a line each. It may hold more names than were recorded."""
    if isinstance(golden, dict) and isinstance(found, dict):
        for name, value in golden.items():
            if name in found:
                yield from differences(found[name], value, rtol, atol, f"{at}.{name}")
            else:
                yield f"{at}.{name} is missing"
    elif isinstance(golden, list) and isinstance(found, list):
        if len(found) != len(golden):
            yield f"{at}: {len(found)} entries, recorded were {len(golden)}"
        for i, (one, value) in enumerate(zip(found, golden, strict=False)):
            yield from differences(one, value, rtol, atol, f"{at}[{i}]")
    elif isinstance(golden, (int, float)) and isinstance(found, (int, float)):
        if not abs(found - golden) <= atol + rtol * abs(golden):
            yield f"{at}: {found!r}, recorded was {golden!r}"
    elif found != golden:
        yield f"{at}: {found!r}, recorded was {golden!r}"


def require_same(found: Any, golden: Any, rtol: float, atol: float) -> None:
    _require_none(list(differences(found, golden, rtol, atol)))


def require_same_figures(
    records: list[dict[str, float]], golden: dict[str, list[float | None]]
) -> None:
    """golden: by figure, a value for each of the records, None where it has none."""
    told: list[str] = []
    for name, values in sorted(golden.items(), key=lambda item: item[0] != "loss"):
        tolerance = NORM if name == "gradient_norm" else KERNELS
        told += differences([record.get(name) for record in records], values, **tolerance, at=name)
    _require_none(told)


def _require_none(told: list[str]) -> None:
    assert not told, f"{len(told)} differences:\n" + "\n".join(told[:25])


@pytest.mark.parametrize("archive", m.ARCHIVES)
def test_an_archive_becomes_the_same_shards(archive: str, tmp_path: Path) -> None:
    """Ids, splits, texts and labels to the letter; images and voxels to the byte, or as they decode."""
    run(m.ingest_command(archive, m.HERE / "archives", tmp_path))
    found, golden = m.ingested(tmp_path), recorded("ingest.json")[archive]
    assert found["shards"].keys() == golden["shards"].keys()
    other = [
        name
        for name, shard in golden["shards"].items()
        if found["shards"][name].pop("sha256") != shard.pop("sha256")
    ]
    if other:
        require_same(found, golden, **CODECS)
        warnings.warn(
            f"{archive}: {', '.join(other)} have other bytes than recorded, with the same content",
            stacklevel=1,
        )
    else:
        require_same(found, golden, rtol=1e-6, atol=1e-9)
        print(f"{archive}: the bytes of all shards are those recorded")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "workers"),
    # that volumes train alike on two workers is tested elsewhere
    [*((name, 1) for name in m.SHARDS), ("mvmae_v2t", 2)],
)
def test_a_run_has_the_losses_of_before(name: str, workers: int, tmp_path: Path) -> None:
    """Every part of the loss, the gradient's norm and the learning rate, step by step."""
    shards = m.HERE / "shards" / m.SHARDS[name]
    run(m.pretrain_command(name, workers, shards, tmp_path / "run"))
    golden = recorded("losses.json")[name][str(workers)]
    figures = m.figures(tmp_path / "run")
    assert [record["step"] for record in figures] == list(range(1, m.STEPS + 1))
    require_same_figures(figures, golden)


@pytest.mark.slow
@pytest.mark.parametrize("of", m.STOPPED)
def test_a_run_that_was_stopped_goes_on_from_its_moved_folder(of: str, tmp_path: Path) -> None:
    """By the same command with other paths, on as many workers or on fewer, as if never stopped."""
    name, began, goes_on = m.STOPPED[of]
    moved, weights = tmp_path / "moved" / "run", []
    m.unpack_run(m.HERE / "runs" / f"{of}.tar.xz", moved)
    if of == "volumes":  # it began with weights that are gone by now
        name, weights = "mdae_pruned", ["--weights", str(tmp_path / "gone")]
    golden = recorded("losses.json")[name]
    shards = tmp_path / "shards"
    shards.symlink_to(m.HERE / "shards" / of)
    run(m.pretrain_command(m.STOPPED[of][0], goes_on, shards, moved) + weights)

    summary = json.loads((moved / "summary.json").read_text())
    assert summary["continued_from_step"] == m.STOPPED_AT
    figures = m.figures(moved)
    assert [record["step"] for record in figures] == list(range(1, m.STEPS + 1))
    for part, workers in ((slice(None, m.STOPPED_AT), began), (slice(m.STOPPED_AT, None), goes_on)):
        of_part = {n: values[part] for n, values in golden[str(workers)].items()}
        require_same_figures(figures[part], of_part)


@pytest.mark.parametrize("of", m.STOPPED)
def test_a_checkpoint_of_before_is_whole(of: str, tmp_path: Path) -> None:
    """`checkpoint verify` knows its files and their checksums."""
    m.unpack_run(m.HERE / "runs" / f"{of}.tar.xz", tmp_path / "run")
    run(["checkpoint", "verify", "--path", str(tmp_path / "run")])
    (checkpoint,) = (tmp_path / "run").glob("checkpoint_*/model.safetensors")
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        run(["checkpoint", "verify", "--path", str(tmp_path / "run")])


@pytest.mark.slow
@pytest.mark.parametrize("of", m.STOPPED)
def test_a_checkpoint_of_before_gives_the_same_embeddings(of: str, tmp_path: Path) -> None:
    m.unpack_run(m.HERE / "runs" / f"{of}.tar.xz", tmp_path / "run")
    run(m.embed_command(tmp_path / "run", m.HERE / "shards" / of, tmp_path / "embed"))
    golden = recorded("embeddings.json")[of]["embed"]
    found = m.embedded(tmp_path / "embed")
    assert found.keys() == golden.keys()
    require_same(found, golden, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("of", "form"), [(of, form) for of, forms in m.FORMATS.items() for form in forms]
)
def test_a_checkpoint_of_before_is_exported_to_the_same_tensors(
    of: str, form: str, tmp_path: Path
) -> None:
    """Their names, shapes and sums, and what the files beside them tell timm and nnU-Net."""
    m.unpack_run(m.HERE / "runs" / f"{of}.tar.xz", tmp_path / "run")
    run(m.export_command(tmp_path / "run", form, tmp_path / "export"))
    golden = recorded("embeddings.json")[of]["export"][form]
    found = m.exported(tmp_path / "export")
    names, golden_names = (
        {file: sorted(all_) for file, all_ in e.items()} for e in (found, golden)
    )
    assert names == golden_names
    require_same(found, golden, rtol=1e-5, atol=1e-6)
