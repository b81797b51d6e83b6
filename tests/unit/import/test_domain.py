"""Rules of batches: states, control totals, formulas, conventions."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from import_service import domain
from servicekit import errors

pytestmark = pytest.mark.feature("S2-41")
State = domain.State


@given(st.lists(st.sampled_from(State), max_size=12))
def test_only_the_arrows_of_the_state_machine(path: list[State]) -> None:
    at = State.RECEIVED
    for wanted in path:
        if wanted in domain.TRANSITIONS[at]:
            domain.check_transition(at, wanted)
            at = wanted
        else:
            with pytest.raises(domain.BatchStateForbids) as caught:
                domain.check_transition(at, wanted)
            assert caught.value.metadata == {"state": at.value}
    if at in (State.REJECTED, State.ROLLED_BACK):
        assert not domain.TRANSITIONS[at]


def doubt(
    *,
    rows: int | None = None,
    total: int | None = None,
    read: int = 100,
    rejected: int = 0,
    sum_minor: int = 5000,
) -> str | None:
    found = domain.doubt(
        expected=domain.Expected(rows=rows, total_minor=total),
        rows_read=read,
        rows_rejected=rejected,
        read_total_minor=sum_minor,
        max_error_percent=Decimal(5),
    )
    return None if found is None else found.code


def test_when_a_batch_waits() -> None:
    assert doubt() is None
    assert doubt(rejected=5) is None
    assert doubt(rejected=6) == "TOO_MANY_REJECTS"
    assert doubt(rows=100, total=5000) is None
    assert doubt(rows=99) == "CONTROL_ROWS_DIFFER"
    assert doubt(total=5001) == "CONTROL_TOTAL_DIFFERS"
    assert doubt(total=0) == "CONTROL_TOTAL_DIFFERS"
    assert doubt(read=0, sum_minor=0) is None
    assert doubt(read=1, rejected=1) == "TOO_MANY_REJECTS"


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("+cmd|x", "'+cmd|x"),
        ("-2+3+cmd|'/C calc'!A0", "'-2+3+cmd|'/C calc'!A0"),
        ("\t=1", "'\t=1"),
        ("-10,50", "-10,50"),
        ("+55 (11) 98765-4321", "+55 (11) 98765-4321"),
        ("-", "'-"),
        ("Ana", "Ana"),
        ("", ""),
    ],
)
def test_cells_that_spreadsheets_would_run(cell: str, safe: str) -> None:
    assert domain.formula_safe(cell) == safe


@given(st.text(max_size=30))
def test_a_safe_cell_never_begins_a_formula(cell: str) -> None:
    safe = domain.formula_safe(cell)
    assert safe in (cell, "'" + cell)
    assert not safe.startswith(("=", "@", "\t", "\r", "\n"))
    if safe.startswith(("+", "-")):
        assert not any(character.isalpha() for character in safe)


def test_conventions() -> None:
    assert domain.convention(comma=0, point=0, delimiter=";") is domain.Convention.UNKNOWN
    assert domain.convention(comma=3, point=1, delimiter=",") is domain.Convention.COMMA
    assert domain.convention(comma=1, point=3, delimiter=";") is domain.Convention.POINT
    assert domain.convention(comma=1, point=1, delimiter=";") is domain.Convention.COMMA
    assert domain.convention(comma=1, point=1, delimiter=",") is domain.Convention.POINT


def test_expected_total() -> None:
    assert domain.expected_total("") is None
    assert domain.expected_total("0") == 0
    assert domain.expected_total("12345.6") == 1234560
    for wrong in ("1,5", "-1", "1.234", "x", "1e3", "9" * 16):
        with pytest.raises(errors.InvalidRequest):
            domain.expected_total(wrong)
