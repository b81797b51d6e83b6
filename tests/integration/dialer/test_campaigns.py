"""Campaigns from the facts to the settled calls, through the real RPCs, worker handlers and loop."""

import collections
import dataclasses
import datetime
from collections.abc import Callable, Mapping

import grpc
import pytest
import sqlalchemy
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dialer_service import domain, providers
from dialer_service.usecases import loop
from recupera.dialer.v1 import dialer_pb2, dialer_service_pb2
from servicekit import dates, testing

from .conftest import AGENCY, DATE, NOW, CaseService, Dialer, person

Campaign = dialer_pb2.Campaign
Call = dialer_pb2.Call
Agent = dialer_pb2.Agent


def refused(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    status = rpc_status.from_call(error.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    return error.value.code(), info.reason


@pytest.mark.feature("S4-11")
def test_a_campaign_from_draft_to_completed(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due(range(40)))
    draft = dialer.make()
    assert (draft.state, draft.list_size, draft.cases_left, draft.cases_due) == (
        Campaign.STATE_DRAFT,
        40,
        40,
        40,
    )
    assert (draft.date, draft.pacing) == (dates.to_proto(DATE), Campaign.PACING_PROGRESSIVE)
    dialer.staff(draft, 4)
    assert dialer.start(draft).state == Campaign.STATE_RUNNING
    quiet = dialer.until_quiet(draft)
    assert (quiet.cases_left, quiet.calls_made) == (0, 40)
    assert dialer.drain(draft).state == Campaign.STATE_DRAINING
    dialer.tick()
    done = dialer.campaign(draft)
    assert (done.state, done.list_size, done.calls_live) == (Campaign.STATE_COMPLETED, 40, 0)
    summary = dialer.summary(date=dates.to_proto(DATE))
    assert summary.calls == sum(summary.by_state.values()) == 40
    assert summary.by_state["DISPOSITIONED"] == sum(summary.by_disposition.values()) == done.live_answers
    assert (summary.cases_due, summary.calls_live, summary.parked) == (0, 0, 0)
    states = [
        found.fact.campaign_changed.state
        for found in testing.published(dialer.engine, kind="campaign_changed")
    ]
    assert states == [
        Campaign.STATE_DRAFT,
        Campaign.STATE_RUNNING,
        Campaign.STATE_DRAINING,
        Campaign.STATE_COMPLETED,
    ]


def test_nothing_is_dialled_before_the_start_nor_without_agents(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due([1]))
    campaign = dialer.make()
    dialer.staff(campaign, 1)
    dialer.tick()
    assert dialer.calls() == []
    dialer.set_agent(0, Agent.STATE_PAUSED)
    dialer.start(campaign)
    dialer.tick()
    assert dialer.calls() == []
    dialer.set_agent(0, Agent.STATE_FREE)
    dialer.tick()
    assert len(dialer.calls()) == 1


def test_a_paused_campaign_begins_no_call_and_goes_on(dialer: Dialer) -> None:
    campaign = dialer.run(range(30), agents=2)
    dialer.tick()
    before = len(dialer.calls())
    connected = dialer.connected()
    assert len(connected) == 2
    paused = dialer.call("PauseCampaign", dialer_service_pb2.PauseCampaignRequest(name=campaign.name))
    assert (paused.state, paused.pause_reason) == (Campaign.STATE_PAUSED, "OPERATOR")
    dialer.dispose(connected[0])
    dialer.tick()
    assert len(dialer.calls()) == before
    assert dialer.start(campaign).pause_reason == ""
    assert dialer.until_quiet(campaign).cases_left == 0


def test_draining_waits_for_the_disposition_and_counts_what_is_left(dialer: Dialer) -> None:
    campaign = dialer.run(range(30), agents=2)
    dialer.tick()
    made = len(dialer.calls())
    dialer.drain(campaign)
    for _ in range(2):
        dialer.tick()
        assert dialer.campaign(campaign).state == Campaign.STATE_DRAINING
    for call in dialer.connected():
        dialer.dispose(call)
    dialer.tick()
    done = dialer.campaign(campaign)
    assert (done.state, done.cases_left) == (Campaign.STATE_COMPLETED, 30 - made)
    with pytest.raises(grpc.RpcError) as error:
        dialer.start(campaign)
    assert refused(error) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_STATE_INVALID")


def test_an_aborted_campaign_lets_the_call_on_the_line_end(dialer: Dialer) -> None:
    campaign = dialer.run(range(30), agents=1)
    dialer.tick()
    dialer.call("AbortCampaign", dialer_service_pb2.AbortCampaignRequest(name=campaign.name))
    (call,) = dialer.connected()
    assert dialer.dispose(call).state == Call.STATE_DISPOSITIONED
    made = len(dialer.calls())
    dialer.tick()
    assert len(dialer.calls()) == made
    assert dialer.campaign(campaign).state == Campaign.STATE_ABORTED
    with pytest.raises(grpc.RpcError) as error:
        dialer.set_agent(1, Agent.STATE_FREE, campaign.name)
    assert refused(error) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_NOT_STAFFABLE")


def test_a_campaign_of_tomorrow_waits_for_its_day(dialer: Dialer) -> None:
    tomorrow = DATE + datetime.timedelta(days=1)
    campaign = dialer.make(date=dates.to_proto(tomorrow))
    with pytest.raises(grpc.RpcError) as error:
        dialer.start(campaign)
    assert refused(error) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_DATE_IN_FUTURE")
    dialer.set_clock(NOW + datetime.timedelta(days=1), version=2, date=tomorrow)
    assert dialer.start(campaign).state == Campaign.STATE_RUNNING


def test_tries_come_after_their_pause_on_the_agencys_clock_and_end(dialer: Dialer) -> None:
    campaign = dialer.run(range(30), agents=5, max_attempts=3, retry_after_seconds=3600)
    first = dialer.until_quiet(campaign)
    reached = first.live_answers
    assert 0 < first.cases_left == 30 - reached
    assert first.calls_made == 30
    dialer.set_clock(NOW + datetime.timedelta(minutes=59, seconds=59), version=2)
    assert dialer.until_quiet(campaign).calls_made == 30
    dialer.set_clock(NOW + datetime.timedelta(hours=1), version=3)
    assert dialer.campaign(campaign).cases_due == first.cases_left
    second = dialer.until_quiet(campaign)
    assert second.calls_made == 30 + first.cases_left
    dialer.set_clock(NOW + datetime.timedelta(hours=9), version=4)
    third = dialer.until_quiet(campaign)
    dialer.set_clock(NOW + datetime.timedelta(hours=18), version=5)
    last = dialer.until_quiet(campaign)
    assert (last.calls_made, last.cases_left) == (third.calls_made, 0)
    states = {
        row["state"]: row["n"]
        for row in dialer.rows("SELECT state, count(*) AS n FROM campaign_entries GROUP BY 1")
    }
    assert states == {"DONE": last.live_answers, "EXHAUSTED": 30 - last.live_answers}
    attempts = {(call.case_id, call.attempt) for call in dialer.calls()}
    assert len(attempts) == last.calls_made
    assert max(attempt for _, attempt in attempts) == 3


def test_a_case_is_not_called_again_by_another_campaign_of_the_date(dialer: Dialer) -> None:
    first = dialer.run(range(20), agents=4)
    second = dialer.make(display_name="again")
    reached = dialer.until_quiet(first).live_answers
    assert dialer.campaign(second).cases_left == 20 - reached
    third = dialer.make(display_name="and again")
    assert third.list_size == 20 - reached
    dialer.drain(first)
    dialer.tick()
    dialer.staff(third, 4)
    dialer.start(third)
    dialer.until_quiet(third)
    tries = {call.attempt for call in dialer.calls(campaign=third.name)}
    assert tries == {2}


def test_people_are_called_for_one_case_at_a_time_and_once_reached_for_none_more(dialer: Dialer) -> None:
    """R05: at most one answered right-party call a day and person. 10 people with 4 cases each."""
    numbers = list(range(40))
    dialer.deliver(dialer.steps_due(numbers, persons=[number % 10 for number in numbers]))
    campaign = dialer.make()
    dialer.staff(campaign, 40)
    dialer.start(campaign)
    while True:
        dialer.tick()
        live = [
            row["person_id"] for row in dialer.rows("SELECT person_id FROM calls WHERE state = 'CONNECTED'")
        ]
        assert len(live) == len(set(live))
        found = dialer.campaign(campaign)
        if not found.calls_live:
            break
        for call in dialer.connected():
            dialer.dispose(call, Call.DISPOSITION_REFUSAL)
    assert not found.cases_due
    spoken = dialer.rows("SELECT person_id FROM calls WHERE state = 'DISPOSITIONED'")
    assert len(spoken) == len({row["person_id"] for row in spoken})
    closed = dialer.rows(
        "SELECT person_id FROM campaign_entries WHERE state = 'CLOSED' AND rule = 'R05'",
    )
    assert closed
    assert {row["person_id"] for row in closed} <= {row["person_id"] for row in spoken}
    for row in spoken:
        assert row["person_id"] in {person(number) for number in range(10)}


def test_after_a_wrong_person_the_persons_other_cases_wait_for_another_day(dialer: Dialer) -> None:
    """R26: the number is removed system-wide; until the case service has done so nothing is asked for the person."""
    numbers = list(range(20))
    dialer.deliver(dialer.steps_due(numbers, persons=[1 for _ in numbers]))
    campaign = dialer.make()
    dialer.staff(campaign, 3)
    dialer.start(campaign)
    while not dialer.connected():
        dialer.tick()
        assert dialer.campaign(campaign).cases_left, "nobody answered"
    calls = dialer.calls()
    dialer.dispose(dialer.connected()[0], Call.DISPOSITION_WRONG_PERSON)
    assert dialer.until_quiet(campaign).cases_left == 0
    assert len(dialer.calls()) == len(calls)
    rules = {row["rule"] for row in dialer.rows("SELECT rule FROM campaign_entries WHERE state = 'CLOSED'")}
    assert rules == {"R26"}


def test_after_an_invalid_number_the_persons_other_cases_wait_for_another_day(dialer: Dialer) -> None:
    class Invalid(providers.SimulatedExchange):
        def ask(self, key: str) -> domain.Outcome | None:
            return domain.Outcome.INVALID

    again = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=Invalid()))
    again.deliver(again.steps_due([1, 2, 3, 4], persons=[1, 1, 1, 2]))
    campaign = again.make(max_attempts=2)
    again.staff(campaign, 4)
    again.start(campaign)
    found = again.until_quiet(campaign)
    assert (found.calls_made, found.cases_left) == (2, 2)
    rules = [row["rule"] for row in again.rows("SELECT rule FROM campaign_entries WHERE state = 'CLOSED'")]
    assert rules == ["R26", "R26"]


def test_settled_state_does_not_depend_on_the_number_of_agents(
    dialer: Dialer, another: Callable[[], Dialer]
) -> None:
    numbers = list(range(60))
    persons = [number * 2 // 3 for number in numbers]
    results = []
    for subject, agents in ((dialer, 1), (another(), 9)):
        subject.deliver(subject.steps_due(numbers, persons=persons))
        campaign = subject.make(max_attempts=2)
        # agents of both are known, so that the rows are the same
        subject.staff(campaign, 9)
        for number in range(agents, 9):
            subject.set_agent(number, Agent.STATE_OFFLINE)
        subject.start(campaign)
        subject.until_quiet(campaign)
        for number in range(9):
            subject.set_agent(number, Agent.STATE_OFFLINE)
        results.append(subject.settled())
    assert results[0] == results[1]


@pytest.mark.feature("S4-12")
def test_campaigns_are_listed_newest_first_in_pages(dialer: Dialer) -> None:
    made = [dialer.make(display_name=f"number {number}").name for number in range(5)]
    request = dialer_service_pb2.ListCampaignsRequest(parent=f"agencies/{AGENCY}", page_size=2)
    found: list[str] = []
    while True:
        page = dialer.call("ListCampaigns", request)
        found += [campaign.name for campaign in page.campaigns]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == made[::-1]


def test_the_abandon_cap_pauses_the_campaign(dialer: Dialer) -> None:
    """R25. Progressive pacing abandons nobody by itself: the numbers are put there by hand."""
    campaign = dialer.run(range(80), agents=1)
    with dialer.owner.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE campaigns SET calls_made = 200, live_answers = 100, abandoned_calls = 4")
        )
    dialer.tick()
    paused = dialer.campaign(campaign)
    assert (paused.state, paused.pause_reason) == (Campaign.STATE_PAUSED, "ABANDON_CAP")
    assert dialer.paused_themselves() == {"ABANDON_CAP": 1, "EXCHANGE_UNAVAILABLE": 0}
    dialer.start(campaign)
    assert dialer.paused_themselves()["ABANDON_CAP"] == 0
    dialer.set_agent(1, Agent.STATE_FREE, campaign.name)
    dialer.tick()  # the share is of the whole campaign
    assert dialer.paused_themselves()["ABANDON_CAP"] == 1
    dialer.drain(campaign)
    assert dialer.paused_themselves() == {"ABANDON_CAP": 0, "EXCHANGE_UNAVAILABLE": 0}


def test_campaigns_that_people_pause_and_those_of_long_ago_are_not_told(dialer: Dialer) -> None:
    assert dialer.paused_themselves() == {"ABANDON_CAP": 0, "EXCHANGE_UNAVAILABLE": 0}
    campaign = dialer.run(range(3))
    dialer.call("PauseCampaign", dialer_service_pb2.PauseCampaignRequest(name=campaign.name))
    assert dialer.campaign(campaign).pause_reason == "OPERATOR"
    assert dialer.paused_themselves() == {"ABANDON_CAP": 0, "EXCHANGE_UNAVAILABLE": 0}
    with dialer.owner.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE campaigns SET pause_reason = 'EXCHANGE_UNAVAILABLE'"))
    for days, told in ((0, 1), (7, 1), (8, 0)):
        dialer.set_clock(version=2 + days, date=DATE + datetime.timedelta(days=days))
        assert dialer.paused_themselves()["EXCHANGE_UNAVAILABLE"] == told


def test_an_answer_whose_agent_is_gone_is_abandoned_and_counted(
    dialer: Dialer, case_service: CaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R25: safe harbour needs the number of abandoned calls."""
    counted: collections.Counter[str] = collections.Counter()

    class Answers:
        def add(self, number: int, attributes: Mapping[str, str]) -> None:
            counted[attributes["state"]] += number

    monkeypatch.setattr(loop, "_answers", Answers())
    campaign = dialer.run(range(30), agents=1)

    def lose_the_agent() -> None:
        with dialer.owner.begin() as connection:
            connection.execute(
                sqlalchemy.text("UPDATE agents SET state = 'FREE', call_id = NULL WHERE state = 'BUSY'")
            )

    case_service.before_answer = lose_the_agent
    for _ in range(30):
        dialer.tick()
    found = dialer.campaign(campaign)
    assert found.abandoned_calls == found.live_answers > 0
    assert counted == {"ABANDONED": found.abandoned_calls}
    abandoned = dialer.calls(state=Call.STATE_ABANDONED)
    assert len(abandoned) == found.abandoned_calls
    assert {call.rule for call in abandoned} == {"R25"}
