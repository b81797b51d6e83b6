"""Resource names and ids have one form each."""

from uuid import UUID

import pytest

from servicekit import errors, ids, names

CASE = "agencies/{agency}/cases/{case}"
AGENCY_ID = UUID("01890000-0000-7000-8000-000000000001")
CASE_ID = UUID("01890000-0000-7000-8000-0000000000ff")
NAME = "agencies/01890000-0000-7000-8000-000000000001/cases/01890000-0000-7000-8000-0000000000ff"


def test_a_name_is_made_and_read() -> None:
    assert names.format(CASE, agency=AGENCY_ID, case=CASE_ID) == NAME
    assert names.parse(CASE, NAME) == {"agency": AGENCY_ID, "case": CASE_ID}


def test_segments_of_text() -> None:
    pattern = "agencies/{agency}/days/{day=text}"
    name = names.format(pattern, agency=AGENCY_ID, day="2026-11-22")
    assert names.match(pattern, name) == {"agency": str(AGENCY_ID), "day": "2026-11-22"}
    for day in ("", "a/b", "ç", "x" * 129):
        with pytest.raises(ValueError, match="not of the form"):
            names.format(pattern, agency=AGENCY_ID, day=day)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cases/1",
        NAME + "/",
        "/" + NAME,
        NAME.upper(),
        NAME.replace("-", ""),
        NAME + "\n",
        NAME.replace("cases", "titles"),
    ],
)
def test_another_form_is_refused_by_field(name: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        names.parse(CASE, name, field="parent")
    assert caught.value.fields == (errors.FieldViolation("parent", f"expected a name of the form {CASE}"),)


def test_ids_sort_by_age_and_have_one_text() -> None:
    made = [ids.new() for _ in range(2_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {one.version for one in made} == {7}
    assert ids.parse(str(made[0]), "id") == made[0]
    assert ids.from_bytes(made[0].bytes, "id") == made[0]
    for text in ("", "{" + str(made[0]) + "}", str(made[0]).upper(), made[0].hex, "x"):
        with pytest.raises(errors.InvalidRequest):
            ids.parse(text, "id")
    with pytest.raises(errors.InvalidRequest):
        ids.from_bytes(b"123", "id")
