"""A page token continues the query that it came from, and no other."""

import base64
import datetime
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import errors, pagination
from support import echo

KEY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
)


def request(**fields: Any) -> Any:
    """A List request."""
    return echo.pb2.ListThingsRequest(parent="agencies/1", filter="open", **fields)


@given(st.lists(KEY, min_size=1, max_size=4).map(tuple))
def test_the_key_comes_back_as_it_was(key: tuple[Any, ...]) -> None:
    token = pagination.read(request()).token(*key)
    assert pagination.read(request(page_token=token, page_size=7)).after == key


def test_sizes() -> None:
    assert pagination.read(request(), default=20).size == 20
    assert pagination.read(request(page_size=7)).limit == 8
    assert pagination.read(request(page_size=9_999), maximum=100).size == 100
    with pytest.raises(errors.InvalidRequest) as caught:
        pagination.read(request(page_size=-1))
    assert caught.value.fields[0].field == "page_size"


def test_pages_follow_each_other_to_the_end() -> None:
    rows = [(datetime.date(2026, 1, 1 + at // 3), UUID(int=at)) for at in range(23)]
    seen: list[Any] = []
    token = ""
    for _ in range(5):
        page = pagination.read(request(page_size=5, page_token=token), key=(datetime.date, UUID))
        found = [row for row in rows if page.after is None or row > page.after][: page.limit]
        kept, token = page.cut(found, key=lambda row: row)
        assert len(kept) <= 5
        seen += kept
    assert seen == rows
    assert token == ""


def forged(*values: Any, fingerprint: str | None = None) -> str:
    """A token made by hand."""
    content = [fingerprint or pagination.read(request()).fingerprint, list(values)]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "%%%",
        "ção",
        base64.b64encode(b"\xff\xff").decode(),
        base64.b64encode(b"[[[[").decode(),
        base64.b64encode(b"7").decode(),
        base64.b64encode(b"[" * 1_500).decode(),
        "A" * 5_000,
        forged("a", fingerprint="other"),
        forged({"u": "not a uuid"}),
        forged({"d": "2026-13-01"}),
        forged({"t": "0001-01-01T00:00:00+23:00"}),
        forged({"n": "abc"}),
        forged({"z": 1}),
        forged(2**70),
        forged(1.5),
        forged("\0"),
        forged("\ud800"),
        forged([1]),
    ],
)
def test_a_bad_token_is_a_bad_request(token: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        pagination.read(request(page_token=token))
    assert caught.value.fields[0].field == "page_token"


@pytest.mark.parametrize("values", [(), ("a",), (1, 2), ({"u": "0" * 32}, 1)])
def test_a_key_of_other_types_is_a_bad_request(values: tuple[Any, ...]) -> None:
    with pytest.raises(errors.InvalidRequest):
        pagination.read(request(page_token=forged(*values)), key=(int,))
    assert pagination.read(request(page_token=forged(5)), key=(int,)).after == (5,)


def test_a_token_belongs_to_its_filter() -> None:
    token = pagination.read(request()).token(1)
    other = echo.pb2.ListThingsRequest(parent="agencies/1", filter="closed", page_token=token)
    with pytest.raises(errors.InvalidRequest, match="another query"):
        pagination.read(other)


def test_only_values_of_columns_go_into_a_token() -> None:
    with pytest.raises(TypeError):
        pagination.read(request()).token(1.5)
    assert pagination.read(request(page_token=pagination.read(request()).token(Decimal("1.10")))).after == (
        Decimal("1.10"),
    )
