"""What a pretraining saw of test patients: planted leaks are found, and what is not known is said."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import zoom

from ray_mae.benchmarking.archives_table import canonical, relation
from ray_mae.benchmarking.exposure import Exposure, ExposureSearch, on_ray
from ray_mae.benchmarking.overlap import CORRELATION, small_volume
from ray_mae.benchmarking.records import EXPOSURES
from ray_mae.checkpoint import format as ckpt
from ray_mae.config import PretrainConfig
from ray_mae.config.suite import DatasetEntry, EncoderEntry
from ray_mae.data.decoding.voxels import decode_voxels, encode_voxels
from ray_mae.data.schema import Manifest
from ray_mae.exports.origin import origin_of
from tests.records import write_state
from tests.settings import small
from tests.shards import png, rewrite, write_shards, write_volume_shards


def test_states_are_those_that_rows_have() -> None:
    assert EXPOSURES == ("none", "images", "patients", "labels", "unknown")


def fresh(folder: Path, seed: int, name: str, pseudonyms: str = "secret", **sizes: int) -> Path:
    """Studies with images and patients of their own."""
    write_shards(folder, **sizes)
    rng = np.random.default_rng(seed)

    def renew(row: dict[str, Any]) -> None:
        row["patient_id"] = f"{name} {row['patient_id']}"
        row["dataset"] = name
        for view in row["views"]:
            view["image"] = png(rng, 40, 44)

    rewrite(folder, renew)
    named(folder, name, pseudonyms)
    return folder


def named(folder: Path, name: str, pseudonyms: str) -> None:
    replace(Manifest.read(folder), dataset=name, pseudonyms=pseudonyms).write(folder)


def rows_of(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    for shard in Manifest.read(folder).of_split(split):
        yield from pq.read_table(folder / shard.file).to_pylist()


def run_on(folder: Path, *shards: Path, method: str = "mvmae", **more: Any) -> Path:
    """A checkpoint that says what it was trained on."""
    folder.mkdir(parents=True)
    config = PretrainConfig(shards=list(shards), output=folder, **small(method), **more)
    write_state(folder, config, step=1, workers=1)
    return folder


def of(paths: list[Path] | Path, shards: Path, look: bool = True, **entries: Any) -> Exposure:
    of_dataset = {k: entries.pop(k) for k in ("archive", "role") if k in entries}
    datasets = {"d": DatasetEntry(shards=shards, **of_dataset)}
    search = ExposureSearch(datasets, map if look else None)
    return search.exposure(EncoderEntry(paths=paths, **entries), "d")


def as_jpeg(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, set[str]]]:
    """Shards to test on, and a pretraining's that hold 10 of its patients and images of 10 others."""
    root = tmp_path_factory.mktemp("leaky")
    tested = fresh(root / "tested", 1, "tested", train=8, held_out=48)
    seen = fresh(root / "seen", 2, "seen", train=60, held_out=8)
    test = list(rows_of(tested, "test"))  # 24 patients of two studies
    people = sorted({row["patient_id"] for row in test})
    plan = iter(
        [("patient", who) for who in people[:10]]
        + [("image", next(r for r in test if r["patient_id"] == who)) for who in people[10:20]]
    )

    def plant(row: dict[str, Any]) -> None:
        if row["split"] != "train" or (planted := next(plan, None)) is None:
            return
        if planted[0] == "patient":
            row["patient_id"] = planted[1]
        else:
            row["views"][0]["image"] = as_jpeg(planted[1]["views"][0]["image"])

    rewrite(seen, plant)
    samples = {
        "patients": {r["study_id"] for r in test if r["patient_id"] in people[:10]},
        "images": {
            next(r for r in test if r["patient_id"] == who)["study_id"] for who in people[10:20]
        },
    }
    return tested, seen, samples


def test_planted_patients_and_re_encoded_images_are_found(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, samples = leaky
    found = of(run_on(tmp_path / "run", seen), tested)
    assert (found.state, found.patients, found.images) == ("patients", 10, 10)
    assert set(found.samples) == samples["patients"] | samples["images"]
    assert found.which_is_known
    assert "10 patients by pseudonym, 10 images the same or looking the same" in found.why
    assert json.loads(json.dumps(vars(found))) == vars(found)
    others = run_on(tmp_path / "other", fresh(tmp_path / "clean", 3, "clean", train=20))
    clean = of(others, tested)
    assert (clean.state, clean.samples) == ("none", [])
    assert "none found. Pseudonyms tell a patient if both were ingested" in clean.why
    both = of([tmp_path / "run", others], tested)
    assert (both.state, both.patients, both.images) == ("patients", 10, 10)


def test_images_alone_are_told_from_patients(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, samples = leaky
    other_key = tmp_path / "seen"
    other_key.mkdir()
    for file in seen.iterdir():
        (other_key / file.name).write_bytes(file.read_bytes())
    rewrite(other_key, lambda row: row.update(patient_id=f"again {row['patient_id']}"))
    named(other_key, "seen", "public")
    found = of(run_on(tmp_path / "run", other_key), tested)
    assert (found.state, found.patients, set(found.samples)) == ("images", 0, samples["images"])
    assert "different keys, so only images could tell a patient" in found.why


def test_numbers_that_two_archives_share_by_chance_are_a_note(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, _, _ = leaky
    alike = fresh(tmp_path / "alike", 9, "alike", train=20)
    who = next(rows_of(tested, "test"))["patient_id"]
    rewrite(alike, lambda row: row.update(patient_id=who) if row["split"] == "train" else None)
    found = of(run_on(tmp_path / "run", alike), tested)
    assert (found.state, found.patients, found.images) == ("patients", 1, 0)
    assert "may number different people alike" in found.notes[0]


def test_these_very_shards_kept_their_test_patients_apart_unless_all_are_tested(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, _, _ = leaky
    run = run_on(tmp_path / "run", tested)
    found = of(run, tested)
    assert (found.state, found.why) == (
        "none", "Pretrained on the train split of these very shards."
    )  # fmt: skip
    everybody = of(run, tested, role="external")
    assert (everybody.state, everybody.patients) == ("patients", 4)
    assert len(everybody.samples) == 8


def test_shards_that_have_moved_or_changed_are_unknown_unless_the_suite_has_them(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, _ = leaky
    here = tmp_path / "here"
    here.mkdir()
    for file in seen.iterdir():
        (here / file.name).write_bytes(file.read_bytes())
    run = run_on(tmp_path / "run", here)
    assert of(run, tested, look=False).state == "unknown"
    named(here, "seen", "public")  # another manifest: not those that were trained on
    gone = of(run, tested)
    assert (gone.state, gone.which_is_known) == ("unknown", False)
    assert "The shards of seen that it was pretrained on are no longer where they were" in gone.why
    datasets = {"d": DatasetEntry(shards=tested), "s": DatasetEntry(shards=seen)}
    search = ExposureSearch(datasets)
    found = [search.exposure(EncoderEntry(paths=run), name) for name in ("d", "s")]
    assert [each.state for each in found] == ["patients", "none"]


def test_a_run_has_seen_what_its_weights_have(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, _ = leaky
    first = run_on(tmp_path / "first", seen)
    (first / ckpt.TOKENIZER).write_text("{}")
    clean = fresh(tmp_path / "clean", 3, "clean", train=20)
    second = run_on(tmp_path / "second", clean, weights=first)
    found = of(second, tested)
    assert (found.state, found.patients) == ("labels", 10)  # their reports were read
    assert "read reports of the train split of seen" in found.notes[0]
    third = run_on(tmp_path / "third", clean, weights=tmp_path / "dinov2.safetensors")
    unknown = of(third, tested)
    assert unknown.state == "unknown"
    assert "other weights" in unknown.why
    for teacher, state in ((first, "labels"), (tmp_path / "rad-dino", "unknown")):
        folder = tmp_path / f"taught by {teacher.name}"
        folder.mkdir()
        taught = small("mae", target="features", features=teacher)
        write_state(
            folder, PretrainConfig(shards=clean, output=folder, **taught), step=1, workers=1
        )
        assert of(folder, tested).state == state


def test_a_run_that_read_labels_says_so_and_of_which_train_split(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, samples = leaky
    rare = small("mvmae", rare_power=0.5, repeat_below=0.1)
    run = tmp_path / "run"
    run.mkdir()
    write_state(run, PretrainConfig(shards=tested, output=run, **rare), step=1, workers=1)
    own = of(run, tested)
    assert (own.state, own.read) == ("none", ["labels"])  # of no test patient
    (note,) = own.notes
    assert "read labels of the train split of tested: weights of studies in the alignment" in note
    assert "method.rare_power 0.5); how often a sample is drawn (data.repeat_below 0.1)." in note
    plain = of(run_on(tmp_path / "plain", tested), tested)
    assert (plain.read, plain.notes) == ([], [])
    # where its train split holds test patients, their labels were seen
    leak = tmp_path / "leak"
    leak.mkdir()
    write_state(leak, PretrainConfig(shards=seen, output=leak, **rare), step=1, workers=1)
    found = of(leak, tested)
    assert (found.state, found.patients, found.images) == ("labels", 10, 10)
    assert set(found.samples) == samples["patients"] | samples["images"]
    assert found.why.endswith("Their labels were read.")
    everybody = of(run, tested, role="external")
    assert (everybody.state, everybody.patients) == ("labels", 4)


def test_what_was_read_stays_with_what_is_exported_and_with_what_begins_from_it(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, _ = leaky
    first = tmp_path / "first"
    first.mkdir()
    config = PretrainConfig(shards=seen, output=first, **small("mvmae", repeat_below=0.5))
    write_state(first, config, step=1, workers=1)
    (first / ckpt.TOKENIZER).write_text("{}")
    facts = ckpt.encoder_facts(first)
    assert facts.read == ("reports", "labels")
    exported = tmp_path / "exported"
    exported.mkdir()
    ckpt.write_exported(exported, facts)
    assert ckpt.encoder_facts(exported).read == facts.read
    datasets = {"d": DatasetEntry(shards=tested), "s": DatasetEntry(shards=seen)}
    told = ExposureSearch(datasets).exposure(EncoderEntry(paths=exported), "s")
    assert told.read == ["reports", "labels"]
    assert "read labels of the train split of its shards." in told.notes[1]
    clean = fresh(tmp_path / "clean", 3, "clean", train=20)
    second = of(run_on(tmp_path / "second", clean, weights=first), tested)
    assert (second.state, second.read) == ("labels", ["reports", "labels"])
    assert "the train split of seen: how often a sample is drawn" in second.notes[1]
    # also where what it began with is gone
    later = run_on(tmp_path / "later", clean, weights=tmp_path / "gone")
    state = json.loads((later / ckpt.STATE).read_text())
    begun = {"source": "gone", "family": "a checkpoint of ray-mae", "read": ["labels"]}
    (later / ckpt.STATE).write_text(json.dumps(state | {"begun_with": begun}))
    assert ckpt.encoder_facts(later).read == ("labels",)
    assert (of(later, tested).state, of(later, tested).read) == ("unknown", ["labels"])
    assert origin_of(first).training["labels read for"].startswith("how often")
    assert origin_of(exported).training == {"read beside images": "reports, labels"}


def test_encoders_of_others_are_as_they_are_declared(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, _, _ = leaky
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    assert of(path, tested).state == "unknown"
    assert "declare it with trained_on" in of(path, tested).why
    seen = of(path, tested, archive="rsna", trained_on=["chestxray14", "pmc-15m"])
    assert (seen.state, seen.samples, seen.which_is_known) == ("images", [], False)
    assert "nih, which shares images of nih with rsna-pneumonia" in seen.why
    assert seen.notes == ["pmc-15m may hold published images of any archive."]
    figures = of(path, tested, archive="openi", trained_on=["PMC-15M"])
    assert (figures.state, figures.notes) == (
        "unknown", ["PMC-15M may hold published images of any archive."]
    )  # fmt: skip
    told = of(path, tested, archive="padchest", trained_on_labels=["CXR-LT 2026"])
    assert told.state == "labels"
    none = of(path, tested, archive="VinDr-CXR", trained_on=["mimic", "chexpert-plus"])
    assert (none.state, none.which_is_known) == ("none", True)
    assert "mimic-cxr, chexpert-plus, of which none is known to hold images of vindr" in none.why
    itself = of(path, tested, trained_on=["d"])
    assert (itself.state, "tested itself" in itself.why) == ("images", True)


@pytest.mark.parametrize(
    "kind", ["random", "scratch", "pixels", "histogram", "metadata", "prevalence"]
)
def test_what_was_not_pretrained_saw_nothing(
    leaky: tuple[Path, Path, dict[str, set[str]]], kind: Any
) -> None:
    assert of([], leaky[0], kind=kind).state == "none"


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        *(("RSNA", "ChestX-ray14", True), ("siim", "nih", True), ("cxr-lt", "padchest", True)),
        *(("CheXpert Plus", "chexpert", True), ("cxr-lt-2024", "mimic", True)),
        *(("rsna-miccai", "upenn", True), ("brats18", "tcga-gbm", True), ("openmind", "openneuro", True)),
        *(("upenn", "ucsf", False), ("mimic", "chexpert", False), ("brats23-men", "brats21", False)),
        *(("our hospital", "Our Hospital", True), ("our hospital", "nih", False)),
    ],
)  # fmt: skip
def test_archives_that_hold_one_another_are_known(one: str, other: str, related: bool) -> None:
    assert (relation(one, other) is not None) == related
    assert (relation(other, one) is not None) == related
    assert canonical(canonical(one)) == canonical(one)


def test_a_volume_is_found_again_at_another_spacing_and_other_volumes_are_not(
    tmp_path: Path,
) -> None:
    tested, seen = tmp_path / "tested", tmp_path / "seen"
    for folder, train in ((tested, 4), (seen, 40)):
        write_volume_shards(folder, train=train, held_out=8)
    volumes = {row["volume_id"]: decode_voxels(row) for row in rows_of(tested, "test")}
    rng = np.random.default_rng(5)
    again = list(volumes.items())[:3]

    def plant(row: dict[str, Any]) -> None:
        row["patient_id"] = f"seen {row['patient_id']}"
        shape = row["shape"]
        values = rng.normal(size=shape)
        if row["split"] == "train" and again:
            values = zoom(again.pop()[1].astype(np.float32), 1.25, order=1)
        row["voxels"] = encode_voxels(values, "float32", 1)
        row["shape"], row["dtype"], row["valid"] = list(values.shape), "float32", None

    expected = [name for name, _ in again]
    rewrite(seen, plant)
    run = run_on(tmp_path / "run", seen, method="mdae")
    found = of(run, tested)
    assert (found.state, found.samples, found.images) == ("images", sorted(expected), 3)
    assert "3 volumes the same or looking the same" in found.why
    small_ones = np.stack([small_volume(v.astype(np.float32)) for v in volumes.values()])
    products = np.triu(small_ones.astype(np.float32) @ small_ones.astype(np.float32).T, 1)
    assert products.max() < CORRELATION - 0.05
    studies = fresh(tmp_path / "studies", 1, "studies")
    assert of(run, studies).why == "Pretrained on volumes of generated; these are studies."


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_shards_are_looked_at_in_tasks_of_ray_with_the_same_result(
    leaky: tuple[Path, Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    tested, seen, _ = leaky
    entry = EncoderEntry(paths=run_on(tmp_path / "run", seen))
    datasets = {"d": DatasetEntry(shards=tested)}
    spread = ExposureSearch(datasets, on_ray).exposure(entry, "d")
    assert spread == ExposureSearch(datasets).exposure(entry, "d")
    assert (spread.patients, spread.images) == (10, 10)
