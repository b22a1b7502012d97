from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.disk_list import DiskList
from ray_mae.data.quarantine import QuarantineError

WORDS = st.text(st.characters(exclude_characters="\0"), max_size=3)


@given(st.lists(st.tuples(WORDS, WORDS, st.integers(0, 3)), max_size=30))
def test_items_come_back_by_key_and_then_as_they_were_added(
    items: list[tuple[str, str, int]],
) -> None:
    spool: DiskList[tuple[str, str, int]] = DiskList()
    for item in items:
        spool.add(item, item[0], item[1])
    expected = sorted(items, key=lambda item: (item[0], item[1]))
    assert len(spool) == len(items)
    assert list(spool) == expected == list(spool)
    assert list(DiskList(items)) == items


def test_names_that_are_no_text_and_problems_are_kept() -> None:
    spool: DiskList[QuarantineError] = DiskList()
    spool.add(QuarantineError("modality", "CT"), "b\udcff")
    spool.add(QuarantineError("constant"), "b")
    assert [(why.reason, why.detail) for why in spool] == [("constant", ""), ("modality", "CT")]
