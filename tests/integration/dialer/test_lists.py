"""From facts to call lists."""

import datetime

import pytest

from recupera.case.v1 import case_facts_pb2, case_pb2
from recupera.dialer.v1 import dialer_service_pb2
from servicekit import clock, dates, db, testing

from .conftest import DATE, NOW, Dialer, case, natural_key

Case = case_pb2.Case


def entries(dialer: Dialer) -> dict[object, tuple[str, str]]:
    return {
        row["case_id"]: (row["state"], row["rule"])
        for row in dialer.rows("SELECT case_id, state, rule FROM campaign_entries")
    }


def test_only_calls_become_candidates_and_each_once(dialer: Dialer) -> None:
    due = dialer.steps_due([1, 2])
    dialer.deliver(due, due, dialer.steps_due([2, 3]))
    dialer.deliver(dialer.steps_due([4], channel=case_pb2.CHANNEL_EMAIL))
    rows = dialer.rows("SELECT case_id, date, script, days_past_due FROM candidates")
    assert {row["case_id"] for row in rows} == {case(1), case(2), case(3)}
    assert {(row["date"], row["script"], row["days_past_due"]) for row in rows} == {(DATE, "first-call", 30)}
    assert dialer.summary().candidates == 3


def test_one_fact_with_steps_of_several_channels(dialer: Dialer) -> None:
    fact = dialer.steps_due([1, 2, 3])
    email = fact.steps_due.table_steps.add()
    email.CopyFrom(fact.steps_due.table_steps[0])
    email.channel = case_pb2.CHANNEL_EMAIL
    fact.steps_due.step_index[1] = 1
    dialer.deliver(fact)
    assert dialer.make().list_size == 2


@pytest.mark.feature("S4-11")
def test_largest_open_principal_first_then_natural_key(dialer: Dialer) -> None:
    numbers = list(range(12))
    principals = [500_00 if number % 3 else 900_00 for number in numbers]
    dialer.deliver(dialer.steps_due(numbers, principals=principals))
    campaign = dialer.make()
    dialer.staff(campaign, 1)
    dialer.start(campaign)
    dialer.until_quiet(campaign)

    def signed(number: int) -> int:
        key = natural_key(number)
        return key - 2**64 if key >= 2**63 else key

    order = sorted(numbers, key=lambda number: (-principals[number], signed(number)))
    called = dialer.rows("SELECT case_id FROM calls ORDER BY id")
    assert [row["case_id"] for row in called] == [case(number) for number in order]


def test_natural_keys_keep_all_their_bits(dialer: Dialer) -> None:
    campaign = dialer.run(range(20), agents=20)
    dialer.until_quiet(campaign)
    assert {call.natural_key for call in dialer.calls()} == {natural_key(number) for number in range(20)}
    assert any(call.natural_key >= 2**63 for call in dialer.calls())


@pytest.mark.feature("S4-09")
def test_a_script_limits_the_list(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1, 2]), dialer.steps_due([3], script="last-call"))
    assert dialer.make(script="first-call").list_size == 2
    assert dialer.make(script="last-call").list_size == 1
    assert dialer.make(script="no-such").list_size == 0
    assert dialer.make().list_size == 3


def test_a_case_with_two_steps_is_once_on_a_list(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1]), dialer.steps_due([1], script="second"))
    campaign = dialer.make()
    assert campaign.list_size == 1
    assert dialer.summary().candidates == 1


def test_another_date_is_another_list(dialer: Dialer) -> None:
    tomorrow = DATE + datetime.timedelta(days=1)
    dialer.deliver(dialer.steps_due([1]), dialer.steps_due([1, 2], date=tomorrow))
    assert dialer.make().list_size == 1
    assert dialer.make(date=dates.to_proto(tomorrow)).list_size == 2
    assert dialer.summary(date=dates.to_proto(tomorrow)).candidates == 2


def test_candidates_that_become_known_later_join(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1]))
    campaign = dialer.make()
    aborted = dialer.make(display_name="given up")
    dialer.call("AbortCampaign", dialer_service_pb2.AbortCampaignRequest(name=aborted.name))
    dialer.deliver(dialer.steps_due([2]))
    assert dialer.campaign(campaign).list_size == 2
    assert dialer.campaign(aborted).list_size == 1


@pytest.mark.feature("S4-06")
def test_a_list_sized_by_shift_and_call_time_takes_the_largest(dialer: Dialer) -> None:
    """W-14: 10 minutes ÷ 3 = 3 calls; later candidates do not lengthen it."""
    dialer.deliver(dialer.steps_due([1, 2, 3, 4, 5], principals=[10_00, 50_00, 20_00, 40_00, 30_00]))
    campaign = dialer.make(shift_minutes=10, minutes_per_call=3)
    assert set(entries(dialer)) == {case(2), case(4), case(5)}
    dialer.deliver(dialer.steps_due([6], principals=[99_00]))
    assert dialer.campaign(campaign).list_size == 3


@pytest.mark.parametrize(
    "state",
    [
        Case.STATE_IN_AGREEMENT,
        Case.STATE_ON_HOLD,
        Case.STATE_RESOLVED_PAID,
        Case.STATE_RESOLVED_SETTLED,
        Case.STATE_RESOLVED_OTHER,
        Case.STATE_RETURNED,
        Case.STATE_TIME_BARRED,
    ],
)
def test_cases_that_may_not_be_called_leave_all_lists(dialer: Dialer, state: Case.State.ValueType) -> None:
    dialer.deliver(dialer.steps_due([1, 2]))
    dialer.make()
    dialer.deliver(dialer.cases_changed([1, 99], state))
    rule = "CASE_" + Case.State.Name(state).removeprefix("STATE_")
    assert entries(dialer) == {case(1): ("CLOSED", rule), case(2): ("OPEN", "")}
    assert dialer.make(display_name="afterwards").list_size == 1
    assert not dialer.rows("SELECT 1 FROM case_anchors WHERE case_id = :id", id=case(99))


def test_an_older_state_changes_nothing(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1]))
    dialer.make()
    dialer.deliver(dialer.cases_changed([1], Case.STATE_IN_COLLECTION, versions=[7]))
    dialer.deliver(dialer.cases_changed([1], Case.STATE_ON_HOLD, versions=[6]))
    assert entries(dialer) == {case(1): ("OPEN", "")}
    dialer.deliver(dialer.cases_changed([1, 1], Case.STATE_ON_HOLD, versions=[8, 7]))
    assert entries(dialer) == {case(1): ("CLOSED", "CASE_ON_HOLD")}


def test_news_are_taken_in_their_order(dialer: Dialer) -> None:
    """A hold after the step closes it; a step after the hold's release is a candidate of the new date."""
    tomorrow = DATE + datetime.timedelta(days=1)
    dialer.deliver(
        dialer.steps_due([1]),
        dialer.cases_changed([1], Case.STATE_ON_HOLD, versions=[2]),
        dialer.cases_changed([1], Case.STATE_IN_COLLECTION, versions=[3]),
        dialer.steps_due([1], date=tomorrow),
    )
    rows = dialer.rows("SELECT date, state FROM candidates ORDER BY date")
    assert [(row["date"], row["state"]) for row in rows] == [(DATE, "CLOSED"), (tomorrow, "OPEN")]


def test_a_state_of_a_newer_version_of_the_contract_is_no_reason_to_stop(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1]))
    dialer.make()
    dialer.deliver(dialer.cases_changed([1], 77))
    assert entries(dialer) == {case(1): ("OPEN", "")}


def test_columns_of_different_lengths_never_half_apply(dialer: Dialer) -> None:
    fact = dialer.steps_due([1, 2])
    del fact.steps_due.natural_keys[1:]
    dialer.deliver(fact, allow_parked=True)
    assert not dialer.rows("SELECT 1 FROM candidates")
    assert testing.published(dialer.engine) == []


def test_the_clock_and_the_business_date_only_go_forward(dialer: Dialer) -> None:
    tomorrow = DATE + datetime.timedelta(days=1)
    dialer.deliver(dialer.fact(day_opened=case_facts_pb2.DayOpened(date=dates.to_proto(tomorrow))))
    dialer.deliver(dialer.fact(day_opened=case_facts_pb2.DayOpened(date=dates.to_proto(DATE))))
    dialer.set_clock(NOW + datetime.timedelta(hours=1), version=3)
    dialer.set_clock(NOW, version=2)
    with db.begin(dialer.engine, agency=dialer.agency) as tx:
        known = clock.read(tx, dialer.agency)
    assert (known.business_date, known.now()) == (tomorrow, NOW + datetime.timedelta(hours=1))
