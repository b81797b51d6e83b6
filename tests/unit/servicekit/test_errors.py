"""One class per way to fail; its name is the reason on the wire."""

import pytest

from servicekit import errors


class CaseAlreadyClosed(errors.ServiceError):
    """An error as services define them."""

    status = errors.Status.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CaseAlreadyClosed", "CASE_ALREADY_CLOSED"),
        ("RPCRefused", "RPC_REFUSED"),
        ("Layout2Unknown", "LAYOUT2_UNKNOWN"),
        ("Gone", "GONE"),
    ],
)
def test_reason(name: str, reason: str) -> None:
    assert errors.reason_of(name) == reason


def test_an_error_carries_what_the_caller_is_told() -> None:
    error = CaseAlreadyClosed("the case is closed", state="CLOSED", attempts=3)
    assert (error.reason, error.status, str(error)) == ("CASE_ALREADY_CLOSED", 9, "the case is closed")
    assert error.metadata == {"state": "CLOSED", "attempts": "3"}
    assert not error.transient


def test_invalid_request_tells_its_fields() -> None:
    error = errors.InvalidRequest(
        fields=[errors.FieldViolation("a", "expected 1"), errors.FieldViolation("b", "no")]
    )
    assert error.message == "a: expected 1; b: no"
    assert errors.invalid("a", "expected 1").fields == (errors.FieldViolation("a", "expected 1"),)
    assert errors.InvalidRequest().message == "the request is invalid"


def test_the_other_sides_refusal_keeps_its_reason_and_status() -> None:
    refused = errors.RemoteRefused("TITLE_UNKNOWN", errors.Status.NOT_FOUND, "no such title", title="9")
    assert (refused.reason, refused.status, refused.metadata) == (
        "TITLE_UNKNOWN",
        errors.Status.NOT_FOUND,
        {"title": "9"},
    )
    assert errors.RemoteUnavailable("away").transient
    assert errors.RemoteUnavailable.reason == "REMOTE_UNAVAILABLE"
