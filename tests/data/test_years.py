"""Of a study's date a bucket of years is kept, and that only where it is asked for."""

import pytest

from ray_mae.data.privacy.years import bucket_of, year_of


@pytest.mark.parametrize(
    ("date", "year"),
    [("20140915", 2014), ("2014-09-15", 2014), (" 2014", 2014), ("2180.05", 2180), ("0000", None),
     ("15.09.2014", None), ("20149", None), ("", None), (None, None)],
)  # fmt: skip
def test_the_year_of_a_date(date: str | None, year: int | None) -> None:
    assert year_of(date) == year


def test_buckets_of_years() -> None:
    assert [bucket_of(year, 5) for year in (2010, 2014, 2015)] == [
        "2010-2014", "2010-2014", "2015-2019"
    ]  # fmt: skip
    assert bucket_of(2014, 1) == "2014"
    assert bucket_of(2014, 0) is bucket_of(None, 5) is None
