"""Sex, age, site and scanner of studies: what was asked for comes, and nothing else is ever read."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import write_dicom

from ray_mae.config import IngestConfig, TableColumns
from ray_mae.data.archives.attributes import AttributeReader, age_of, sex_of
from ray_mae.data.archives.studies.table import read
from ray_mae.data.decoding.dicom import read_header

TAGS = {
    "PatientSex": "F", "PatientAge": "093Y", "InstitutionName": "St. Elsewhere",
    "Manufacturer": "ACME", "ManufacturerModelName": "Ray 3",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "years"),
    [
        *(
            ("57", 57),
            ("57.9", 57),
            ("057Y", 57),
            ("57 y", 57),
            ("57 years", 57),
            ("0", 0),
            ("000Y", 0),
        ),
        *(
            ("018M", 1),
            ("23 months", 1),
            ("011M", 0),
            ("104W", 2),
            ("030D", 0),
            ("89", 89),
            ("90", 90),
            ("103", 90),
        ),
        *(("90+", 90), (">89", 90), ("≥ 90", 90), ("130", 90)),
        *(
            ("131", None),
            ("414", None),
            ("-3", None),
            ("fifty", None),
            ("", None),
            ("1950-03-01", None),
        ),
    ],
)
def test_an_age_is_whole_years_and_tells_nobody_above_89(text: str, years: int | None) -> None:
    assert age_of(text) == years


def test_sex_is_understood_or_told() -> None:
    assert [sex_of(t) for t in ("M", "male", " f", "Female", "O", "1", "")] == [
        "M", "M", "F", "F", "O", None, None
    ]  # fmt: skip
    reader = AttributeReader(["sex", "age"])
    assert reader.read({"sex": "F", "age": "44", "site": "A"}) == {"sex": "F", "age": 44}
    assert reader.read({"sex": "1", "age": "unknown"}) is None
    assert reader.notes() == {"attribute_cells_not_understood": {"sex": {"1": 1}}}
    reader.read({"sex": "Xaver Ypsilanti", "age": "1937-04-19"})
    assert reader.notes()["attribute_cells_not_understood"] == {
        "sex": {"1": 1, "aaaaa aaaaaaaaa": 1}, "age": {"9999-99-99": 1}
    }, "a name or a date of birth in the wrong column is not told"  # fmt: skip


def test_headers_give_what_was_asked_for_alone(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", **TAGS)
    assert read_header(file, 10**6).attributes == {}
    assert read_header(file, 10**6, attributes=["age", "model"]).attributes == {
        "age": "093Y", "model": "Ray 3"
    }  # fmt: skip


def test_a_table_must_have_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    table = {"study": ["1"], "patient": ["1"], "path": ["a.png"], "sex": ["w"], "hosp": ["A"]}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    config = IngestConfig(
        archive="table", source=tmp_path / "t.csv", output=tmp_path / "o",
        attributes=["sex", "site"], columns=TableColumns(site="hosp"),
    )  # fmt: skip
    (record,) = read(config, lambda done, of: None).records
    assert record.attributes == {"sex": "F", "site": "A"}
    with pytest.raises(ValueError, match=r"no column 'site' for the site.*columns\.site"):
        read(replace(config, columns=TableColumns()), lambda done, of: None)


@pytest.mark.parametrize(
    ("archive", "attributes", "message"),
    [
        ("openi", ["sex"], "the archive openi says no sex; of what can be kept it says age"),
        ("table", ["sex", "age", "sex"], "attributes names one twice, got sex, age, sex"),
    ],
)
def test_attributes_that_cannot_come_are_refused(
    archive: str, attributes: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        IngestConfig(archive=archive, source=Path("s"), output=Path("o"), attributes=attributes)
