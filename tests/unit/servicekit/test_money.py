"""Money: nothing is lost or invented by rounding, splitting or the wire (architecture.md §1.2)."""

from decimal import Decimal

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from servicekit import errors, money

MINOR = st.integers(min_value=-money.MAX_MINOR, max_value=money.MAX_MINOR)
CURRENCY = st.sampled_from(sorted(money.CURRENCIES))
WEIGHTS = st.lists(
    st.one_of(
        st.integers(min_value=0, max_value=10**12),
        st.decimals(min_value=0, max_value=10**9, places=4, allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=30,
)


@given(MINOR, WEIGHTS)
def test_allocate_sums_exactly_and_stays_within_a_unit(total: int, weights: list[int | Decimal]) -> None:
    whole = sum(map(Decimal, weights))
    if whole == 0:
        if total:
            with pytest.raises(ValueError, match="weights are zero"):
                money.allocate(total, weights)
        return
    parts = money.allocate(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * whole - total * Decimal(weight)) < whole
        assert weight or part == 0


@given(st.integers(min_value=0, max_value=10**9), st.lists(st.integers(0, 10**6), min_size=1).filter(any))
def test_allocate_favours_larger_remainders_then_earlier_weights(total: int, weights: list[int]) -> None:
    parts = money.allocate(total, weights)
    whole = sum(weights)
    rounded_up = [
        (-(weight * total % whole), at)
        for at, weight in enumerate(weights)
        if parts[at] > weight * total // whole
    ]
    rounded_down = [
        (-(weight * total % whole), at)
        for at, weight in enumerate(weights)
        if parts[at] == weight * total // whole
    ]
    assert not rounded_up or not rounded_down or max(rounded_up) < min(rounded_down)


def test_allocate_examples() -> None:
    assert money.allocate(100, [1, 1, 1]) == [34, 33, 33]
    assert money.allocate(-100, [1, 1, 1]) == [-34, -33, -33]
    assert money.allocate(0, [0, 0]) == [0, 0]
    assert money.allocate(5, [Decimal("0.5"), 0, Decimal("0.5")]) == [3, 0, 2]


@pytest.mark.parametrize(("total", "weights"), [(0, []), (1, []), (1, [0]), (1, [2, -1])])
def test_allocate_refuses_weights_that_mean_nothing(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weight"):
        money.allocate(total, weights)


@given(MINOR, CURRENCY)
def test_the_wire_keeps_the_amount(minor: int, currency: str) -> None:
    message = money.to_proto(money.Money(minor, currency))
    assert message.units * message.nanos >= 0
    assert money.from_proto(money_pb2.Money.FromString(message.SerializeToString()), "amount") == money.Money(
        minor, currency
    )


@pytest.mark.parametrize(
    ("currency", "units", "nanos", "field"),
    [
        ("USD", 1, 0, "fee.currency_code"),
        ("", 1, 0, "fee.currency_code"),
        ("BRL", 1, -10_000_000, "fee.nanos"),
        ("BRL", -1, 10_000_000, "fee.nanos"),
        ("BRL", 0, 1_000_000_000, "fee.nanos"),
        ("BRL", 0, -1_000_000_000, "fee.nanos"),
        ("BRL", 0, 5_000_000, "fee.nanos"),
        ("BRL", 0, -1, "fee.nanos"),
        ("EUR", 2**63 - 1, 0, "fee.units"),
        ("EUR", -(2**63), 0, "fee.units"),
    ],
)
def test_the_wire_refuses(currency: str, units: int, nanos: int, field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        money.from_proto(money_pb2.Money(currency_code=currency, units=units, nanos=nanos), "fee")
    assert [violation.field for violation in caught.value.fields] == [field]


@given(MINOR)
def test_minor_units_and_units_are_one(minor: int) -> None:
    assert money.to_minor(money.from_minor(minor)) == minor


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=7))
def test_half_up(value: Decimal) -> None:
    rounded = money.round_half_up(value)
    assert rounded.as_tuple().exponent == -2
    assert abs(rounded - value) <= Decimal("0.005")
    if abs(rounded - value) == Decimal("0.005"):
        assert abs(rounded) > abs(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.005", "0.01"),
        ("-0.005", "-0.01"),
        ("2.675", "2.68"),
        ("1.0049999", "1.00"),
        ("1E+20", "100000000000000000000.00"),
    ],
)
def test_half_up_examples(value: str, expected: str) -> None:
    assert str(money.round_half_up(Decimal(value))) == expected


def test_half_up_at_other_places() -> None:
    assert money.round_half_up(Decimal("0.03333335"), 7) == Decimal("0.0333334")
    assert money.to_minor(Decimal("10.005")) == 1001


def test_money_is_ordered_and_added_within_a_currency() -> None:
    one, two = money.Money(100, "BRL"), money.Money(250, "BRL")
    assert one < two <= two
    assert two > one >= one
    assert two - one == money.Money(150, "BRL")
    assert one + two == money.Money(350, "BRL")
    assert -one == money.Money(-100, "BRL")
    assert str(-two) == "BRL -2.50"
    assert not money.Money(0, "EUR")
    euro = money.Money(100, "EUR")
    assert one != euro
    for operation in (lambda: one + euro, lambda: one - euro, lambda: one < euro, lambda: one >= euro):
        with pytest.raises(money.CurrencyMismatch):
            operation()
    with pytest.raises(ValueError, match="unknown currency"):
        money.Money(1, "USD")
