from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.privacy.pseudonyms import (
    ENVIRONMENT,
    load_key,
    pseudonym,
    split_by_hash,
    split_named,
)

KEY = b"a secret of sixteen bytes"
SHARES = st.floats(0, 0.4)


def test_without_a_key_nothing_is_pseudonymised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(ValueError, match=f"set {ENVIRONMENT}"):
        load_key(None, insecure=False)
    with pytest.raises(FileNotFoundError, match="openssl"):
        load_key(tmp_path / "key", insecure=False)
    (tmp_path / "key").write_text("short\n")
    with pytest.raises(ValueError, match="at least 16 bytes, got 5"):
        load_key(tmp_path / "key", insecure=False)
    with pytest.raises(ValueError, match="leave one of them out"):
        load_key(tmp_path / "key", insecure=True)


def test_the_key_comes_from_the_file_then_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ENVIRONMENT, "from the environment")
    assert load_key(None, insecure=False) == b"from the environment"
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert load_key(tmp_path / "key", insecure=False) == KEY
    assert load_key(None, insecure=True) not in (KEY, b"from the environment")


def test_patient_1_of_two_public_data_sets_is_two_people() -> None:
    keys = [load_key(None, True, dataset) for dataset in (None, "one", "two", "one")]
    one, two = (pseudonym(key, "patient", "1") for key in keys[1:3])
    assert one != two
    assert keys[1] == keys[3]
    # what was ingested before data sets had keys of their own
    assert pseudonym(keys[0], "patient", "1") == "e39c17a7db1e34da5f32"


def test_a_pseudonym_depends_on_key_kind_and_identifier_alone() -> None:
    assert pseudonym(KEY, "patient", "7") == pseudonym(KEY, "patient", "7")
    others = {
        pseudonym(KEY, "patient", "7"),
        pseudonym(KEY, "patient", "8"),
        pseudonym(KEY, "study", "7"),
        pseudonym(b"another secret of the kind", "patient", "7"),
    }
    assert len(others) == 4
    assert all(len(p) == 20 for p in others)


@given(st.text(min_size=1), SHARES, SHARES, SHARES)
def test_a_larger_share_never_moves_a_patient_out_of_its_split(
    patient: str, validation: float, test: float, more: float
) -> None:
    before = split_by_hash(patient, validation, test)
    if before == "test":
        assert split_by_hash(patient, validation, test + more / 2) == "test"
    if before == "val":
        assert split_by_hash(patient, validation + more / 2, test) == "val"


def test_the_shares_are_as_wanted() -> None:
    splits = [split_by_hash(pseudonym(KEY, "patient", str(i)), 0.1, 0.2) for i in range(5000)]
    assert abs(splits.count("val") / 5000 - 0.1) < 0.02
    assert abs(splits.count("test") / 5000 - 0.2) < 0.02


def test_splits_go_by_several_names() -> None:
    assert [split_named(w) for w in ("Train", "validate", "TEST ", "open", "")] == [
        "train", "val", "test", None, None
    ]  # fmt: skip
