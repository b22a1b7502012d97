"""The order of samples: every one once per epoch, fixed by seed and position alone."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.data.loading.order import (
    Extra,
    Mixture,
    Order,
    RowLocation,
    key_of,
    mix,
    permutation,
)
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from tests.shards import write_shards

groups = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(
    lambda rows: tuple((f"s{i // 3}", i % 3, n) for i, n in enumerate(rows))
)


@given(groups, st.integers(0, 3), st.integers(1, 40), st.integers(0, 4))
@settings(deadline=None)
def test_an_epoch_holds_every_row_once(groups, seed, window, epoch) -> None:
    order = Order(groups, seed, window)
    n = order.samples_per_epoch
    locations = list(order.locations(epoch * n, (epoch + 1) * n))
    expected = sorted((f, g, r) for f, g, rows in groups for r in range(rows))
    assert sorted((p.file, p.group, p.row) for p in locations) == expected
    assert {p.epoch for p in locations} == {epoch}


@given(groups, st.integers(1, 40), st.data())
@settings(deadline=None)
def test_a_later_start_gives_the_rest_of_the_same_sequence(groups, window, data) -> None:
    order = Order(groups, 0, window)
    stop = 3 * order.samples_per_epoch
    start = data.draw(st.integers(0, stop))
    whole = list(order.locations(0, stop))
    assert list(order.locations(start, stop)) == whole[start:]


def test_epochs_and_seeds_differ() -> None:
    order = Order(tuple(("s", g, 8) for g in range(8)), 0, 16)
    n = order.samples_per_epoch
    rows = [[(p.group, p.row) for p in order.locations(e * n, (e + 1) * n)] for e in range(3)]
    other = [(p.group, p.row) for p in Order(order.groups, 1, 16).locations(0, n)]
    assert len({tuple(r) for r in [*rows, other]}) == 4


def test_rows_of_different_files_are_mixed_within_a_window() -> None:
    order = Order(tuple((f"s{g}", 0, 10) for g in range(10)), 0, 50)
    first = [p.file for p in order.locations(0, 10)]
    assert len(set(first)) >= 3


def test_a_window_reads_few_row_groups() -> None:
    order = Order(tuple(("s", g, 10) for g in range(100)), 0, 50)
    assert len({p.group for p in order.locations(0, 50)}) == 5


def test_the_sequence_never_changes_between_versions() -> None:
    """Golden values: a run that is continued after an upgrade must go on with the next sample."""
    assert key_of("study-1") == 4791059448352359106
    assert mix(0, 1, np.arange(3)).tolist() == [
        2583531073958932952,
        -7297691354386606819,
        2725194173331529263,
    ]
    assert permutation(8, 3).tolist() == [7, 3, 0, 2, 1, 6, 5, 4]


def test_a_split_without_studies_is_refused() -> None:
    with pytest.raises(ValueError, match="no study of the train split"):
        Order.of(Manifest("study", "x", 1, []), "train", 0, 10)


# ------------------------------------------------------------------------------- several folders

SMALL = Order((("s", 0, 5), ("s", 1, 3)), 0, 8)
SEEDS = st.integers(0, 3)
SHARES = st.lists(st.integers(1, 1000), min_size=2, max_size=6).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@st.composite
def mixtures(draw: st.DrawFn, shares: st.SearchStrategy[tuple[float, ...]] = SHARES) -> Mixture:
    """Of several small folders."""
    parts, seed, window = draw(shares), draw(SEEDS), draw(st.integers(1, 40))
    orders = [Order(draw(groups), seed, window, i) for i in range(len(parts))]
    return Mixture(tuple(orders), parts, seed)


def counted(locations: list[RowLocation], folders: int) -> list[int]:
    return np.bincount([p.folder for p in locations], minlength=folders).tolist()


@given(mixtures(), st.integers(0, 10**6))
def test_at_the_end_of_each_block_a_folder_has_its_share_of_all_samples_to_within_one(
    mixture, block
) -> None:
    n = block * mixture.block
    counts = mixture.counts(n)
    assert sum(counts) == n
    for count, share in zip(counts, mixture.shares, strict=True):
        assert abs(count - share * n) < 1 + 1e-6


@given(mixtures(), st.integers(0, 3000))
@settings(deadline=None, max_examples=40)
def test_counts_are_of_the_samples_drawn_until_there(mixture, n) -> None:
    drawn = list(mixture.locations(0, n))
    assert counted(drawn, len(mixture.orders)) == mixture.counts(n)
    more = np.subtract(mixture.counts(n + 1), mixture.counts(n))
    assert sorted(more) == [0] * (len(more) - 1) + [1]


def test_within_a_block_folders_are_mixed_and_not_dealt_in_turn() -> None:
    half = Mixture((SMALL, replace(SMALL, folder=1)), (0.5, 0.5), 0)
    folders = np.array([p.folder for p in half.locations(0, 4096)]).reshape(-1, 64)
    assert ((folders.sum(1) > 16) & (folders.sum(1) < 48)).all()
    assert 0.4 < (folders[:, 1:] == folders[:, :-1]).mean() < 0.6
    blocks = folders.reshape(4, 1024)
    assert len({tuple(block) for block in blocks.tolist()}) == 4


@given(mixtures(), st.lists(st.integers(0, 3000), min_size=2, max_size=6))
@settings(deadline=None, max_examples=40)
def test_any_cuts_of_the_sequence_give_the_same_sequence(mixture, cuts) -> None:
    cuts = sorted(cuts)
    whole = list(mixture.locations(cuts[0], cuts[-1]))
    parts = [p for a, b in pairwise(cuts) for p in mixture.locations(a, b)]
    assert parts == whole
    assert len(whole) == cuts[-1] - cuts[0]


@given(mixtures(), st.integers(0, 3000))
@settings(deadline=None, max_examples=40)
def test_each_folder_goes_through_its_own_order_without_gap_or_repeat(mixture, n) -> None:
    drawn = list(mixture.locations(0, n))
    for i, order in enumerate(mixture.orders):
        own = [p for p in drawn if p.folder == i]
        assert own == list(order.locations(0, len(own)))


@given(groups, SEEDS, st.integers(1, 40), st.integers(0, 200), st.integers(0, 200))
@settings(deadline=None)
def test_one_folder_has_exactly_its_own_order(groups, seed, window, start, more) -> None:
    order = Order(groups, seed, window)
    mixture = Mixture((order,), (1.0,), seed)
    assert list(mixture.locations(start, start + more)) == list(
        order.locations(start, start + more)
    )
    assert mixture.samples_per_epoch == order.samples_per_epoch
    assert mixture.counts(more) == [more]


@given(mixtures())
@settings(deadline=None, max_examples=20)
def test_a_seed_gives_the_same_mixture_each_time_and_another_one_another(mixture) -> None:
    def drawn(seed: int) -> list[RowLocation]:
        orders = tuple(replace(order, seed=seed) for order in mixture.orders)
        return list(Mixture(orders, mixture.shares, seed).locations(0, 1500))

    assert drawn(5) == drawn(5)
    folders = [[p.folder for p in drawn(seed)] for seed in (5, 6)]
    few = 1500 * (1 - max(mixture.shares))  # samples of all folders but the largest
    assert few < 20 or folders[0] != folders[1]


EXTREME = st.lists(st.integers(1, 12), min_size=1, max_size=20).map(
    lambda parts: (
        *(part * 0.001 for part in parts),
        1 - 0.001 * sum(parts),
    )
)
"""Many folders of 0.001 to 0.012 of the draws, and one of the others."""


@given(mixtures(EXTREME), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_of_the_smallest_share_no_block_takes_anything_back(mixture, first) -> None:
    size, folders = mixture.block, len(mixture.orders)
    counts = [mixture.counts(block * size) for block in range(200)]
    assert (np.diff(counts, axis=0) >= 0).all()
    drawn = list(mixture.locations(first * size, (first + 1) * size))
    assert counted(drawn, folders) == np.subtract(counts[first + 1], counts[first]).tolist()


def test_a_folder_that_is_small_and_has_a_large_share_comes_more_often() -> None:
    large = Order(tuple((f"l{i}", 0, 50) for i in range(20)), 0, 50, 0)
    mixture = Mixture((large, replace(SMALL, folder=1)), (0.5, 0.5), 0)
    drawn = list(mixture.locations(0, 2048))
    assert {p.epoch for p in drawn if p.folder == 0} == {0, 1}
    assert max(p.epoch for p in drawn if p.folder == 1) == 1024 // 8 - 1


def test_a_mixture_is_of_the_folders_of_a_set_each_with_its_part_of_the_window(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, train in zip(paths, (30, 10), strict=True):
        write_shards(path, train=train, held_out=4)
    mixture = Mixture.of(ShardSet.read(paths), "train", seed=3, shuffle_window=16)
    assert mixture.shares == (0.75, 0.25)
    assert [order.shuffle_window for order in mixture.orders] == [12, 4]
    assert mixture.shuffle_window == 16
    assert [order.samples_per_epoch for order in mixture.orders] == [30, 10]
    assert mixture.samples_per_epoch == 40
    assert {p.folder for p in mixture.locations(0, 64)} == {0, 1}


def test_the_sequence_of_folders_never_changes_between_versions() -> None:
    """Golden values, as above."""
    mixture = Mixture((SMALL, replace(SMALL, folder=1)), (0.75, 0.25), 3)
    folders = [p.folder for p in mixture.locations(1020, 1040)]
    assert folders == [0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]


# ------------------------------------------------------------------------------------ repeated rows


@st.composite
def repeated(draw: st.DrawFn) -> Order:
    """Orders of which some rows come oftener than once."""
    made = draw(groups)
    n = sum(rows for _, _, rows in made)
    parts = np.array(draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))) / 10
    total = parts.sum()
    extra = parts * (round(total) / total) if total else parts
    return Order(made, draw(SEEDS), draw(st.integers(1, 40)), extra=Extra(extra))


def times_of(order: Order, epoch: int) -> np.ndarray:
    """[n] how often each row is drawn in an epoch, in file order."""
    n = order.samples_per_epoch
    drawn = [(p.file, p.group, p.row) for p in order.locations(epoch * n, (epoch + 1) * n)]
    rows = [(f, g, r) for f, g, number in order.groups for r in range(number)]
    return np.array([drawn.count(row) for row in rows])


@given(repeated(), st.integers(0, 4))
@settings(deadline=None, max_examples=50)
def test_an_epoch_holds_every_row_and_some_again_as_often_as_they_are_to(order, epoch) -> None:
    assert order.extra is not None
    times, wanted = times_of(order, epoch), 1 + order.extra.rows
    assert times.sum() == order.samples_per_epoch == round(wanted.sum())
    assert (times >= np.floor(wanted - 1e-9)).all()
    assert (times <= np.ceil(wanted + 1e-9)).all()


@given(repeated(), st.lists(st.integers(0, 300), min_size=2, max_size=5))
@settings(deadline=None, max_examples=50)
def test_any_cuts_of_a_sequence_with_repeats_give_the_same_sequence(order, cuts) -> None:
    cuts = sorted(cuts)
    whole = list(order.locations(cuts[0], cuts[-1]))
    assert [p for a, b in pairwise(cuts) for p in order.locations(a, b)] == whole
    assert len(whole) == cuts[-1] - cuts[0]
    again = replace(order, extra=Extra(order.extra.rows.copy()))  # as on another machine
    assert list(again.locations(cuts[0], cuts[-1])) == whole


@given(repeated(), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_no_two_drawings_of_a_row_are_alike(order, epoch) -> None:
    n = order.samples_per_epoch
    drawn = list(order.locations(epoch * n, (epoch + 2) * n))
    assert len({(p.file, p.group, p.row, p.draw) for p in drawn}) == len(drawn)


def test_a_row_is_drawn_again_as_often_as_its_share_says_over_epochs() -> None:
    extra = np.zeros(60)
    extra[:10], extra[10:20] = 0.3, 1.5
    order = Order(tuple(("s", g, 10) for g in range(6)), 0, 60, extra=Extra(extra))
    mean = np.mean([times_of(order, epoch) for epoch in range(200)], axis=0)
    assert mean.reshape(6, 10).mean(1) == pytest.approx([1.3, 2.5, 1, 1, 1, 1])  # in each epoch
    assert mean == pytest.approx(1 + extra, abs=0.12)


def test_no_extra_draws_leave_the_order_as_it_is() -> None:
    plain = Order(tuple(("s", g, 8) for g in range(8)), 0, 16)
    none = replace(plain, extra=Extra(np.zeros(64)))
    assert list(none.locations(0, 200)) == list(plain.locations(0, 200))


def test_a_window_with_repeats_keeps_its_size_and_so_does_what_is_read_for_it() -> None:
    extra = np.full(100, 3.0)
    order = Order(tuple(("s", g, 10) for g in range(10)), 0, 80, extra=Extra(extra))
    assert [w.draws for w in order.windows(0)] == [80] * 5
    assert {len(w.groups) for w in order.windows(0)} == {2}


def test_in_a_mixture_shares_of_folders_stay_as_they_are_told() -> None:
    extra = Extra(np.array([0, 0, 0, 0, 0, 0, 2, 2.0]))
    more = Mixture((SMALL, replace(SMALL, folder=1, extra=extra)), (0.5, 0.5), 0)
    plain = Mixture((SMALL, replace(SMALL, folder=1)), (0.5, 0.5), 0)
    folders = [[p.folder for p in m.locations(0, 3000)] for m in (more, plain)]
    assert folders[0] == folders[1]
    drawn = [p for p in more.locations(0, 2048) if p.folder == 1]
    rare = np.mean([(p.group, p.row) in ((1, 1), (1, 2)) for p in drawn])
    assert rare == pytest.approx(6 / 12, abs=0.01)
