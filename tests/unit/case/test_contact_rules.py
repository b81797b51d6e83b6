"""Windows of contact by place, day and hour (R01-R04, R16), dated rules, and who may be contacted (R05, R25-R27)."""

import dataclasses
import datetime
import uuid
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from case_service.domain import cases, contact, permission, places, rules
from case_service.domain.contact import Channel
from case_service.providers import calendars

BOOK = rules.Book(rules.DEFAULTS)
SP = places.Place("BR", "SP", "America/Sao_Paulo")


def at(text: str, zone: str = "America/Sao_Paulo") -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def closed(
    place: places.Place, text: str, channel: Channel = Channel.CALL
) -> tuple[str, datetime.datetime] | None:
    return BOOK.closed([place], channel, at(text, place.time_zone), calendars.is_holiday)


MONDAY, SATURDAY, SUNDAY = "2026-03-02", "2026-03-07", "2026-03-08"


@pytest.mark.parametrize(
    ("place", "moment", "rule", "opens"),
    [
        (SP, f"{MONDAY}T07:59:59", "R01", f"{MONDAY}T08:00"),
        (SP, f"{MONDAY}T08:00", None, None),
        (SP, f"{MONDAY}T19:59:59.999999", None, None),
        (SP, f"{MONDAY}T20:00", "R01", "2026-03-03T08:00"),
        (SP, f"{SATURDAY}T13:59:59", None, None),
        (SP, f"{SATURDAY}T14:00", "R01", "2026-03-09T08:00"),
        (SP, f"{SUNDAY}T10:00", "R01", "2026-03-09T08:00"),
        # holiday of the nation, and of the state (9 July, a Thursday, is one of SP only)
        (SP, "2026-04-21T10:00", "R01", "2026-04-22T08:00"),
        (SP, "2026-07-09T10:00", "R01", "2026-07-10T08:00"),
        (places.Place("BR", "MG", "America/Sao_Paulo"), "2026-07-09T10:00", None, None),
        # R02 by UF
        (places.Place("BR", "RJ", "America/Sao_Paulo"), f"{MONDAY}T08:59:59", "R02", f"{MONDAY}T09:00"),
        (places.Place("BR", "RJ", "America/Sao_Paulo"), f"{MONDAY}T19:00", "R02", "2026-03-03T09:00"),
        (places.Place("BR", "RJ", "America/Sao_Paulo"), f"{SATURDAY}T10:00", "R02", "2026-03-09T09:00"),
        (places.Place("BR", "ES", "America/Sao_Paulo"), f"{MONDAY}T19:00", "R02", "2026-03-03T08:00"),
        (places.Place("BR", "AM", "America/Manaus"), f"{MONDAY}T17:59", None, None),
        (places.Place("BR", "AM", "America/Manaus"), f"{MONDAY}T18:00", "R02", "2026-03-03T08:00"),
        # a UF without a law of its own, in zones without summer time
        (places.Place("BR", "AC", "America/Rio_Branco"), f"{MONDAY}T07:59", "R03", f"{MONDAY}T08:00"),
        (places.Place("BR", "RR", "America/Boa_Vista"), f"{MONDAY}T20:00", "R03", "2026-03-03T08:00"),
        # R16
        (places.Place("PT", "", "Europe/Lisbon"), f"{SUNDAY}T09:00", None, None),
        (places.Place("PT", "", "Europe/Lisbon"), f"{MONDAY}T08:59:59", "R16", f"{MONDAY}T09:00"),
        (places.Place("PT", "", "Europe/Lisbon"), f"{MONDAY}T21:59:59", None, None),
        (places.Place("PT", "", "Europe/Lisbon"), f"{MONDAY}T22:00", "R16", "2026-03-03T09:00"),
        (places.Place("PT", "", "Atlantic/Azores"), f"{MONDAY}T08:30", "R16", f"{MONDAY}T09:00"),
        # summer time begins in the night: 09:00 is 09:00 of the clock on the wall
        (places.Place("PT", "", "Europe/Lisbon"), "2026-03-28T23:00", "R16", "2026-03-29T09:00"),
    ],
)
def test_windows(place: places.Place, moment: str, rule: str | None, opens: str | None) -> None:
    found = closed(place, moment)
    if rule is None:
        assert found is None
    else:
        assert opens is not None
        assert found == (rule, at(opens, place.time_zone).astimezone(datetime.UTC))


def test_conflicting_evidence_takes_the_strictest() -> None:
    """R04: São Paulo by address, Acre (two hours behind) by number: open only where both are."""
    where = [SP, places.Place("BR", "AC", "America/Rio_Branco")]
    early = BOOK.closed(where, Channel.CALL, at(f"{MONDAY}T08:30"), calendars.is_holiday)
    assert early == ("R03", at(f"{MONDAY}T10:00").astimezone(datetime.UTC))
    late = BOOK.closed(where, Channel.CALL, at(f"{MONDAY}T20:30"), calendars.is_holiday)
    assert late == ("R01", at("2026-03-03T10:00").astimezone(datetime.UTC))
    assert BOOK.closed(where, Channel.CALL, at(f"{MONDAY}T12:00"), calendars.is_holiday) is None


def test_a_window_may_pass_midnight() -> None:
    night = rules.Rule(
        code="X",
        country="BR",
        region="",
        channels=(Channel.CALL,),
        valid_from=datetime.date(2020, 1, 1),
        valid_to=None,
        parameters={"windows": {"0": [["22:00", "02:00"]]}, "holidays": "open"},
        source="test",
    )
    book = rules.Book([night])
    place = places.Place("BR", "", "America/Sao_Paulo")
    for text, opens in [
        (f"{MONDAY}T21:59", f"{MONDAY}T22:00"),
        (f"{MONDAY}T23:00", None),
        ("2026-03-03T01:59", None),
        ("2026-03-03T02:00", "2026-03-09T22:00"),
    ]:
        found = book.closed([place], Channel.CALL, at(text), calendars.is_holiday)
        assert (found and found[1]) == (opens and at(opens).astimezone(datetime.UTC))


def test_rules_are_dated_and_none_means_no() -> None:
    until = datetime.date(2026, 3, 3)
    old = dataclasses.replace(rules.DEFAULTS[0], valid_to=until)
    new = dataclasses.replace(
        rules.DEFAULTS[0],
        valid_from=until,
        parameters={"windows": {"1": [["10:00", "11:00"]]}, "holidays": "closed"},
    )
    book = rules.Book([old, new])
    assert book.closed([SP], Channel.CALL, at(f"{MONDAY}T09:00"), calendars.is_holiday) is None
    assert book.closed([SP], Channel.CALL, at("2026-03-03T09:00"), calendars.is_holiday) == (
        "R01",
        at("2026-03-03T10:00").astimezone(datetime.UTC),
    )
    with pytest.raises(rules.RuleMissing):
        rules.Book([old]).closed([SP], Channel.CALL, at("2026-03-04T09:00"), calendars.is_holiday)


@given(
    st.datetimes(datetime.datetime(2025, 1, 1), datetime.datetime(2027, 12, 31)),  # noqa: DTZ001
    st.sampled_from(sorted(places.ZONE_OF_UF)),
    st.sampled_from(sorted(places.UF_OF_DDD.values())),
)
def test_the_time_to_ask_again_is_open_everywhere(moment: datetime.datetime, uf: str, other: str) -> None:
    where = [places.Place("BR", name, places.ZONE_OF_UF[name]) for name in (uf, other)]
    now = moment.replace(tzinfo=datetime.UTC)
    found = BOOK.closed(where, Channel.CALL, now, calendars.is_holiday)
    if found is not None:
        assert found[1] > now
        assert BOOK.closed(where, Channel.CALL, found[1], calendars.is_holiday) is None
        just_before = found[1] - datetime.timedelta(microseconds=1)
        assert BOOK.closed(where, Channel.CALL, just_before, calendars.is_holiday) is not None


@pytest.mark.parametrize(
    ("region", "number", "zones"),
    [
        ("SP", "+5511987654321", ["America/Sao_Paulo"]),
        ("SP", "+5568987654321", ["America/Sao_Paulo", "America/Rio_Branco"]),
        ("", "+5592987654321", ["America/Manaus"]),
        ("", "", ["America/Bahia"]),
        ("", "+5500987654321", ["America/Bahia"]),
    ],
)
def test_places_in_brazil(region: str, number: str, zones: list[str]) -> None:
    found = places.evidence(
        country="BR", region=region, postal_code="", number=number, agency_zone="America/Bahia"
    )
    assert [place.time_zone for place in found] == zones


@pytest.mark.parametrize(
    ("postal_code", "number", "zones"),
    [
        ("1000-001", "+351912345678", ["Europe/Lisbon"]),
        ("9000-001", "+351912345678", ["Atlantic/Madeira"]),
        ("9500-001", "+351296123456", ["Atlantic/Azores"]),
        ("1000-001", "+351296123456", ["Europe/Lisbon", "Atlantic/Azores"]),
    ],
)
def test_places_in_portugal(postal_code: str, number: str, zones: list[str]) -> None:
    found = places.evidence(
        country="PT", region="", postal_code=postal_code, number=number, agency_zone="Europe/Lisbon"
    )
    assert [place.time_zone for place in found] == zones


def test_every_area_code_has_a_zone() -> None:
    assert len(places.UF_OF_DDD) == 67
    assert set(places.UF_OF_DDD.values()) == set(places.ZONE_OF_UF)
    assert len(places.ZONE_OF_UF) == 27


# -- may this person be contacted ------------------------------------------------------------------------------------

CASE, PERSON, OTHER = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)
HOME = permission.Point(id=uuid.UUID(int=4), kind="PHONE", value="+551133334444", position=1)
MOBILE = permission.Point(id=uuid.UUID(int=5), kind="PHONE", value="+5511987654321", position=2)
MAIL = permission.Point(id=uuid.UUID(int=6), kind="EMAIL", value="someone@example.com", position=1)
NOW = at(f"{MONDAY}T12:00")
DEBT = permission.Debt(
    id=CASE,
    state=cases.State.IN_COLLECTION,
    open_principal_minor=100,
    frozen=False,
    agreement_in_force=False,
    promise_until=None,
    held_channels=frozenset(),
)


def use(days_ago: int = 0, **other: object) -> permission.Use:
    moment = NOW - datetime.timedelta(days=days_ago, minutes=1)
    found = {
        "person_id": PERSON,
        "case_id": CASE,
        "local_date": moment.date(),
        "point_id": HOME.id,
        "right_party_call": False,
        "abandoned": False,
        "at": moment,
    }
    return permission.Use(**(found | other))  # type: ignore[arg-type]


def decide(
    *uses: permission.Use,
    channel: Channel = Channel.CALL,
    purpose: permission.Purpose = permission.Purpose.COLLECTION,
    points: tuple[permission.Point, ...] = (HOME, MOBILE, MAIL),
    now: datetime.datetime = NOW,
    **debt: object,
) -> permission.Granted | permission.Refused:
    return permission.decide(
        debt=dataclasses.replace(DEBT, **debt),  # type: ignore[arg-type]
        person=permission.Person(id=PERSON, country="BR", region="SP", postal_code="", points=points),
        channel=channel,
        purpose=purpose,
        uses=uses,
        book=BOOK,
        holidays=calendars.is_holiday,
        agency_zone="America/Sao_Paulo",
        now=now,
        business_date=now.date(),
    )


def rule(found: permission.Granted | permission.Refused) -> str:
    return found.rule if isinstance(found, permission.Refused) else ""


def test_granted_by_the_point_least_used() -> None:
    first = decide()
    assert isinstance(first, permission.Granted)
    assert first.point == HOME
    assert first.valid_until == NOW + datetime.timedelta(seconds=60)
    second = decide(use())
    assert isinstance(second, permission.Granted)
    assert second.point == MOBILE


def test_attempts_per_person_and_day_over_all_channels() -> None:
    others = [use(case_id=OTHER), use(case_id=OTHER)]
    assert rule(decide(*others)) == ""
    assert rule(decide(*others, use())) == "R05"
    assert rule(decide(*others, use(), channel=Channel.EMAIL)) == "R05"
    assert rule(decide(*others, use(days_ago=1))) == ""


def test_one_conversation_by_telephone_a_day() -> None:
    assert rule(decide(use(right_party_call=True))) == "R05"
    assert rule(decide(use(right_party_call=True), channel=Channel.EMAIL)) == ""
    assert rule(decide(use(right_party_call=True, days_ago=1))) == ""


def test_seven_attempts_on_a_case_in_seven_days() -> None:
    six = [use(days_ago=day, person_id=OTHER) for day in range(1, 7)]
    assert rule(decide(*six)) == ""
    assert rule(decide(*six, use(days_ago=6))) == "R05"
    assert rule(decide(*six, use(days_ago=7))) == ""


def test_no_call_after_an_abandoned_one_for_72_hours() -> None:
    assert rule(decide(use(days_ago=2, abandoned=True))) == "R25"
    assert rule(decide(use(days_ago=2, abandoned=True), channel=Channel.EMAIL)) == ""
    assert rule(decide(use(days_ago=3, abandoned=True))) == ""


def test_holds() -> None:
    assert rule(decide(held_channels=frozenset({None}))) == "R26"
    assert rule(decide(held_channels=frozenset({Channel.CALL}))) == "R26"
    assert rule(decide(held_channels=frozenset({Channel.EMAIL}))) == ""
    assert rule(decide(state=cases.State.ON_HOLD)) == "R26"


def test_promise_and_agreement_suppress_all_but_their_reminders() -> None:
    today = NOW.date()
    reminder = permission.Purpose.AGREEMENT_REMINDER
    assert rule(decide(agreement_in_force=True)) == "R27"
    assert rule(decide(agreement_in_force=True, purpose=reminder)) == ""
    assert rule(decide(promise_until=today)) == "R27"
    assert rule(decide(promise_until=today - datetime.timedelta(days=2))) == "R27"
    assert rule(decide(promise_until=today - datetime.timedelta(days=3))) == ""


def test_closed_cases_and_missing_points() -> None:
    for state in cases.TERMINAL:
        assert rule(decide(state=state)) == "CASE_CLOSED"
    assert rule(decide(frozen=True)) == "CASE_CLOSED"
    assert rule(decide(open_principal_minor=0)) == "CASE_CLOSED"
    assert rule(decide(points=(MAIL,))) == "NO_CONTACT_POINT"
    assert rule(decide(channel=Channel.LETTER)) == "NO_CONTACT_POINT"


def test_only_a_window_may_be_asked_again() -> None:
    early = decide(now=at(f"{MONDAY}T07:00"))
    assert isinstance(early, permission.Refused)
    assert (early.rule, early.retry_time) == ("R01", at(f"{MONDAY}T08:00").astimezone(datetime.UTC))
    both = decide(use(), use(), use(), now=at(f"{MONDAY}T07:00"))
    assert isinstance(both, permission.Refused)
    assert (both.rule, both.retry_time) == ("R05", None)


def test_another_number_is_taken_where_its_window_is_open() -> None:
    """07:30 in Acre, 09:30 in São Paulo: the first number waits, the second is called."""
    acre = dataclasses.replace(HOME, value="+556833334444")
    found = decide(points=(acre, MOBILE), now=at(f"{MONDAY}T09:30"))
    assert isinstance(found, permission.Granted)
    assert found.point == MOBILE


@pytest.mark.feature("S1-09")
def test_promises() -> None:
    today = datetime.date(2026, 3, 2)
    good = contact.Promise(date=today, amount_minor=1, currency="BRL")
    contact.check_promise(good, business_date=today, currency="BRL")
    for bad in (
        dataclasses.replace(good, date=today - datetime.timedelta(days=1)),
        dataclasses.replace(good, amount_minor=0),
        dataclasses.replace(good, currency="EUR"),
    ):
        with pytest.raises(contact.PromiseInvalid):
            contact.check_promise(bad, business_date=today, currency="BRL")


def test_an_attempt_never_takes_back_a_conversation() -> None:
    for current in cases.SubState:
        moved = contact.sub_state(current, contact.Outcome.NO_ANSWER)
        expected = cases.SubState.NO_CONTACT if current is cases.SubState.NEW else current
        assert moved is expected
    assert contact.sub_state(cases.SubState.PTP, contact.Outcome.CALLBACK) is cases.SubState.CALLBACK
    assert contact.sub_state(cases.SubState.NEW, contact.Outcome.UNKNOWN) is cases.SubState.NEW
