"""From shards to packed batches, in order, on the workers of a streaming split."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from ray_mae.data.kinds import KINDS
from ray_mae.data.letterbox import flatten, letterbox, unflatten
from ray_mae.data.loading import tokenizer
from ray_mae.data.loading.arrow_rows import rows_of as arrow_rows
from ray_mae.data.loading.findings import read_findings
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.order import Mixture, key_of
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.loading.stream import FileOrder, Stream, from_block, to_block
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.loading.tokenizer import (
    decode_tokens,
    encode_reports,
    special_ids,
    train_tokenizer,
    training_reports,
)
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from tests.shards import damage, rewrite, rows_of, sha256, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


def stream(
    shards: Path, first_step: int = 0, steps: int = 9, workers: int = 2, window: int = 8
) -> Stream:
    return Stream(
        shards=ShardSet.read(shards),
        order=Mixture.of(ShardSet.read(shards), "train", seed=1, shuffle_window=window),
        collator=StudyCollator(max_views=3, seed=1),
        batch_size=8,
        micro_batch_size=4,
        workers=workers,
        first_step=first_step,
        steps=steps,
    )


def test_a_batch_is_packed_without_absent_views(shards: Path) -> None:
    rows = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)
    batch = KINDS["study"].to_batch(StudyCollator(max_views=3).collate(rows, [0] * len(rows)))
    assert batch.study.tolist() == [i for i, row in enumerate(rows) for _ in row["views"]]
    assert batch.images.shape[0] == sum(len(row["views"]) for row in rows)
    assert batch.key.tolist() == [key_of(row["study_id"]) for row in rows]
    assert (batch.images.flatten(1).float().std(1) > 1).all()


def test_a_portrait_image_is_letterboxed_without_loss(shards: Path) -> None:
    row = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)[2]
    batch = KINDS["study"].to_batch(StudyCollator(max_views=3).collate([row], [0]))
    assert batch.side.tolist() == [48, 48, 48]  # 40 × 48 images
    assert (batch.images[:, :, :4] == 0).all()
    assert (batch.images[:, :, -4:] == 0).all()


@pytest.mark.parametrize("cut", [slice(0, None), slice(2, 5), slice(0, 0)])
def test_rows_are_those_of_arrow_and_their_bytes_are_not_copied(cut: slice) -> None:
    view = pa.struct([("image", pa.large_binary()), ("view", pa.string())])
    schema = pa.schema(
        [("name", pa.string()), ("voxels", pa.large_binary()), ("views", pa.list_(view)),
         ("labels", pa.map_(pa.string(), pa.float64())), ("shape", pa.list_(pa.int32(), 2)),
         ("other", pa.list_(pa.string()))]
    )  # fmt: skip
    rows = [
        {"name": f"n{i}" if i else None, "voxels": bytes(range(i)) if i != 3 else None,
         "views": [{"image": b"a" * j, "view": None if j else "x"} for j in range(i % 4)],
         "labels": [("a", float(i))], "shape": [i, 2], "other": None if i % 2 else ["b"]}
        for i in range(7)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    for one in (
        table.slice(*cut.indices(7)[:1], len(rows[cut])),
        table.take(pa.array(range(7))[cut]),
    ):
        found = arrow_rows(one)
        assert [type(row["voxels"]) for row in found if row["voxels"]][:1] in ([], [memoryview])
        assert json.dumps(found, default=_text) == json.dumps(one.to_pylist(), default=_text)
    halves = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert json.dumps(arrow_rows(halves), default=_text) == json.dumps(rows, default=_text)


def _text(value: object) -> str:
    return bytes(value).hex()  # type: ignore[call-overload, no-any-return]


def test_images_of_any_shapes_travel_flat_and_come_back() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (1, 1), (7, 2), (4, 4)]
    images = [rng.integers(1, 256, shape, dtype=np.uint8) for shape in shapes]
    pixels, shape = flatten(images)
    assert pixels.size == sum(image.size for image in images)  # and no padding
    for image, back in zip(images, unflatten(pixels, shape), strict=True):
        np.testing.assert_array_equal(back, image)
    canvas, side = letterbox(unflatten(pixels, shape))
    assert canvas.shape == (4, 1, 7, 7)
    assert side.tolist() == [5, 1, 7, 4]
    np.testing.assert_array_equal(canvas[0, 0, 1:4, :5], images[0])
    assert canvas.sum() == pixels.sum()


def test_too_many_views_give_a_choice_that_changes_with_the_epoch(shards: Path) -> None:
    row = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)[2]
    collator = StudyCollator(max_views=1)
    chosen = [int(collator.collate([row], [epoch])["view"][0]) for epoch in range(20)]
    assert set(chosen) == {0, 1, 2}
    again = [int(collator.collate([row], [epoch])["view"][0]) for epoch in range(20)]
    assert chosen == again


def test_a_view_keeps_its_draw_whatever_is_beside_it(shards: Path) -> None:
    rows = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)
    collator = StudyCollator(max_views=3, seed=5)
    together = collator.collate(rows, [2] * len(rows))
    alone = collator.collate(rows[1:2], [2])
    np.testing.assert_array_equal(together["view_draw"][together["study"] == 1], alone["view_draw"])
    assert len(set(together["view_draw"].tolist())) == len(together["view_draw"])


def test_arrays_travel_through_arrow_unchanged() -> None:
    arrays = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.zeros((0, 2), np.uint8)}
    back = from_block(to_block(arrays, step=3))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_reports_become_tokens_with_first_and_last_and_missing_ones_are_marked(
    shards: Path,
) -> None:
    document = train_tokenizer(training_reports(ShardSet.read(shards), "impression"), 200)
    rows = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)
    arrays = StudyCollator(max_views=3, tokenizer=document, max_tokens=32).collate(rows, [0] * 4)
    assert arrays["has_report"].tolist() == [False, True, True, True]  # 3 falls back to findings
    ids = special_ids(document)
    assert (arrays["tokens"][:, 0] == ids.first).all()
    assert ((arrays["tokens"] == ids.last).sum(1) == 1).all()
    assert decode_tokens(document, arrays["tokens"][1, 1:].tolist()) == "no acute process 1."


def test_of_a_large_archive_some_files_make_the_vocabulary(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(training_reports(ShardSet.read(shards), "impression"))
    monkeypatch.setattr(tokenizer, "MOST_REPORTS", len(every) - 8)
    some = list(training_reports(ShardSet.read(shards), "impression"))
    assert len(some) == len(every) - 8
    assert set(some) < set(every)
    assert some[0] != every[0]  # not the first files, which may be of the first patients
    assert some == list(training_reports(ShardSet.read(shards), "impression"))


def words_of(document: str) -> set[str]:
    return {word.removeprefix("##") for word in json.loads(document)["model"]["vocab"]}


def test_a_name_in_many_reports_of_few_patients_is_no_part_of_the_vocabulary() -> None:
    common = [(f"p{n}", f"Small effusion {n}.") for n in range(20)]
    of_one = [("p1", f"Ypsilanti saw ypsilanti-{n}, Ypsilantis and Xypsilanti.") for n in range(50)]
    of_four = [(f"p{n % 4}", "Zimbelstern of Quarkbrot") for n in range(400)]
    of_five = [(f"p{n}", "Pneumothorax") for n in range(5)]
    words = words_of(train_tokenizer([*common, *of_one, *of_four, *of_five], 500))
    assert {"small", "effusion", "pneumothorax"} <= words
    for name in ("ypsilanti", "zimbelstern", "quarkbrot"):
        pieces = {name[i:j] for i in range(len(name)) for j in range(i + 3, len(name) + 1)}
        assert not pieces & words


def test_a_rare_word_is_still_written_letter_by_letter() -> None:
    reports = [(f"p{n}", "Small effusion.") for n in range(5)] + [("p9", "Žofie Qatž")]
    document = train_tokenizer(reports, 500)
    ids, _ = encode_reports(document, ["Žofie qatž effusion"], 64)
    assert decode_tokens(document, ids[0, 1:].tolist()) == "zofie qatz effusion"


@pytest.mark.slow
def test_workers_share_every_step_evenly_and_in_order(shards: Path, local_ray: None) -> None:
    """Steps of equal, exact size on each worker; together the run's order; nothing dropped."""
    from ray.data import ExecutionOptions

    work = stream(shards)
    dataset = work.dataset()
    dataset.context.execution_options = ExecutionOptions(preserve_order=True)
    splits = dataset.streaming_split(2, equal=True)

    @ray.remote(num_cpus=0)
    def consume(split) -> list[tuple[int, list[int]]]:
        blocks = split.iter_batches(batch_size=None, batch_format="pyarrow")
        return [(b["step"][0].as_py(), from_block(b)["key"].tolist()) for b in blocks]

    first, second = ray.get([consume.remote(split) for split in splits])
    assert [step for step, _ in first] == [step for step, _ in second] == list(range(9))
    names = {}
    for shard in Manifest.read(shards).of_split("train"):
        for group in range(len(shard.row_groups)):
            for i, row in enumerate(rows_of(shards, shard.file, group, StudyCollator.columns)):
                names[shard.file, group, i] = key_of(row["study_id"])
    expected = [names[p.file, p.group, p.row] for p in work.order.locations(0, 72)]
    seen = [key for a, b in zip(first, second, strict=True) for key in [*a[1], *b[1]]]
    assert seen == expected


def test_a_stream_that_starts_later_gives_what_remains(shards: Path, local_ray: None) -> None:
    def keys(work: Stream) -> list[int]:
        blocks = work.dataset().iter_batches(batch_size=None, batch_format="pyarrow")
        return [key for block in blocks for key in from_block(block)["key"].tolist()]

    assert keys(stream(shards, first_step=5)) == keys(stream(shards))[5 * 8 :]


def test_file_order_reads_every_study_once(shards: Path, local_ray: None) -> None:
    manifest = Manifest.read(shards)
    dataset = FileOrder(shards, StudyCollator(max_views=3), 3).dataset(manifest, ["val", "test"])
    names = []
    for block in dataset.iter_batches(batch_size=1, batch_format="pyarrow"):
        names += block["study_id"][0].as_py()
    assert names == [f"{s}-{i}" for s in ("val", "test") for i in range(8)]


def drawn(stream: Stream, first: int = 0) -> tuple[list[list[int]], list[dict]]:
    """Keys by micro-batch, and the rows that were lost."""
    keys, lost = [], []
    for block in stream.read(first, stream.steps):
        if block["weight"][0].as_py():
            keys.append(from_block(block)["key"].tolist())
            lost += json.loads(block["lost"][0].as_py())
    return keys, lost


@pytest.mark.parametrize("checksums", [True, False])
def test_rows_that_are_damaged_are_replaced_in_the_same_way_after_a_restart(
    shards: Path, tmp_path: Path, checksums: bool
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    if not checksums:
        rewrite(folder, lambda row: None)
    whole, lost = drawn(stream(folder))
    assert not lost
    file = folder / "train-00001.parquet"
    before = sha256(file)
    damage(file, 64 if checksums else 6000)  # a few bytes may leave an image that decodes
    with pytest.raises(
        DamagedShard, match=f"train-00001.parquet .*sha256 {sha256(file)}, .* says {before}"
    ):
        drawn(stream(folder))

    damaged = replace(stream(folder), corrupt="skip")
    keys, lost = drawn(damaged)
    assert lost
    assert {row["file"] for row in lost} == {file.name}
    assert [len(micro) for micro in keys] == [len(micro) for micro in whole]
    pairs = [
        (a, b) for old, new in zip(whole, keys, strict=True) for a, b in zip(old, new, strict=True)
    ]
    changed = [(a, b) for a, b in pairs if a != b]
    assert len(changed) == len(lost)
    assert not {a for a, _ in changed} & {b for _, b in pairs}
    again, _ = drawn(replace(damaged, workers=1), first=4)
    assert again == keys[4 * 2 :]


def test_a_run_goes_on_without_a_shard_that_is_gone(shards: Path, tmp_path: Path) -> None:
    """Whole steps of a small window lie in it; nothing is left of the data without the others."""
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    (folder / "train-00000.parquet").unlink()
    small = stream(folder, window=1)
    with pytest.raises(DamagedShard, match=r"No such file.*restore it from a copy"):
        drawn(small)
    keys, lost = drawn(replace(small, corrupt="skip", batch_size=4))
    assert len(keys) == 9
    assert lost
    for file in folder.glob("train-*.parquet"):
        file.unlink()
    with pytest.raises(DamagedShard, match="nothing that could take its place"):
        drawn(replace(small, corrupt="skip"))


def test_shards_that_are_away_for_a_moment_are_waited_for(shards: Path, tmp_path: Path) -> None:
    folder, aside = tmp_path / "shards", tmp_path / "aside"
    shutil.copytree(shards, aside)
    shard, columns = Manifest.read(aside).of_split("train")[0], StudyCollator.columns
    back = threading.Timer(1.5, lambda: aside.rename(folder))
    back.start()
    assert len(read_rows(folder / shard.file, shard, 0, columns)) == 4
    back.join()
    folder.rename(aside)
    with pytest.raises(OSError, match=r"train-00000.parquet could not be read for [12] s"):
        read_rows(folder / shard.file, shard, 0, columns, patience=1)


def rare_stream(shards: Path, first_step: int = 0, steps: int = 60, workers: int = 2) -> Stream:
    """Of studies weighted by their findings and drawn more often."""
    plain = stream(shards, first_step, steps, workers)
    found = read_findings(plain.shards)
    return replace(
        plain,
        order=Mixture.of(plain.shards, "train", 1, 8, found.extra_draws(0.9, 10.0)),
        collator=StudyCollator(max_views=3, seed=1, weights=found.weights(1.0, 10.0)),
    )


def samples_of(work: Stream) -> list[tuple[int, int, float]]:
    """(key, draw, weight) of each sample, without the copies that fill a step up."""
    arrays = [
        from_block(block)
        for block in work.read(work.first_step, work.steps)
        if block["weight"][0].as_py()
    ]
    return [
        (int(key), int(draw), float(weight))
        for a in arrays
        for key, draw, weight in zip(a["key"], a["draw"], a["study_weight"], strict=True)
    ]


def test_weighted_and_repeated_studies_come_alike_at_any_number_of_workers_and_after_a_restart(
    shards: Path,
) -> None:
    whole = samples_of(rare_stream(shards))
    for workers in (1, 3, 5):
        assert samples_of(rare_stream(shards, workers=workers)) == whole
    assert samples_of(rare_stream(shards, first_step=41, workers=3)) == whole[41 * 8 :]


def test_rare_studies_are_drawn_as_often_as_told_and_each_time_anew(shards: Path) -> None:
    work = rare_stream(shards, steps=100)
    found, drawn = read_findings(work.shards), samples_of(work)
    epochs = len(drawn) / work.order.samples_per_epoch
    assert epochs > 10
    extra = found.extra_draws(0.9, 10.0)[0]
    keys = [key for key, _, _ in drawn]
    for key, more in zip(found.keys[0].tolist(), extra.tolist(), strict=True):
        assert keys.count(key) / epochs == pytest.approx(1 + more, abs=0.35)
    assert len({draw for _, draw, _ in drawn}) == len(drawn)  # no crop and mask is there twice
    weights = dict(zip(keys, [weight for _, _, weight in drawn], strict=True))
    expected = work.collator.weights.of(found.keys[0])
    assert [weights[key] for key in found.keys[0].tolist()] == expected.tolist()


def test_a_batch_without_weights_has_none_and_one_with_them_takes_them_to_its_device(
    shards: Path,
) -> None:
    rows = rows_of(shards, "train-00000.parquet", 0, StudyCollator.columns)
    to_batch = KINDS["study"].to_batch
    assert to_batch(StudyCollator(3).collate(rows, [0] * len(rows))).study_weight is None
    weights = read_findings(ShardSet.read(shards)).weights(1.0, 10.0)
    batch = to_batch(StudyCollator(3, weights=weights).collate(rows, [0] * len(rows)))
    assert batch.to("cpu").study_weight.tolist() == weights.of(batch.key.numpy()).tolist()
