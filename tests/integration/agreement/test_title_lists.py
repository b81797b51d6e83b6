"""Lists of titles narrowed by state and by due dates counted from the business date, over gRPC on a real database."""

import datetime

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agreement_service.domain import plans
from recupera.agreement.v1 import agreement_pb2
from recupera.agreement.v1 import agreement_service_pb2 as service

FRIDAY = datetime.date(2026, 11, 20)
MONTH = datetime.date(2026, 12, 21)
TITLE = agreement_pb2.Title


@pytest.fixture
def listed(api):
    """References of the titles that a filter gives, page by page."""

    def run(size=50, **wanted):
        seen, token = [], ""
        while True:
            request = service.ListTitlesRequest(parent=api.name, page_size=size, page_token=token, **wanted)
            page = api("ListTitles", request)
            seen += [one.title_reference for one in page.titles]
            token = page.next_page_token
            if not token:
                return seen

    return run


def refused(api, **wanted):
    """Fields and descriptions of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        api("ListTitles", service.ListTitlesRequest(parent=api.name, **wanted))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    wrong = error_details_pb2.BadRequest()
    assert any(detail.Unpack(wrong) for detail in rpc_status.from_call(caught.value).details)
    return [(one.field, one.description) for one in wrong.field_violations]


@pytest.mark.feature("S5-05")
def test_w10_due_dates_are_counted_from_the_business_date(agency, api, listed):
    days = [datetime.timedelta(days=count) for count in (-31, -1, 0, 1, 10, 11)]
    placed = agency.place(*((FRIDAY + count, 100) for count in days))
    month_ago, yesterday, today, tomorrow, in_ten, in_eleven = [one.reference for one in placed]
    case_id = str(placed[0].case_id)
    every = [month_ago, yesterday, today, tomorrow, in_ten, in_eleven]
    for scope in ({"case_id": case_id}, {}):
        found = lambda **wanted: sorted(listed(**scope, **wanted))  # noqa: B023, E731
        assert found() == sorted(every)
        assert found(due_from="today-1d", due_to="today+10d") == [yesterday, today, tomorrow, in_ten]
        assert found(due_to="today-1d") == [month_ago, yesterday]
        assert found(due_from="2026-11-20", due_to="2026-11-20") == [today]
        assert found(due_from="first_of_month", due_to="last_of_month") == [
            yesterday,
            today,
            tomorrow,
            in_ten,
        ]
        assert found(due_from="last_of_month+1d") == [in_eleven]
        assert found(due_from="today+1d", due_to="today-1d") == []
    agency.set_clock(FRIDAY + datetime.timedelta(days=1))
    assert listed(case_id=case_id, due_from="today-1d", due_to="today") == [today, tomorrow]


@pytest.mark.feature("S3-17")
def test_titles_bound_and_those_of_agreements_in_progress_are_listed_apart(agency, api, listed):
    (bound,) = agency.place((FRIDAY - datetime.timedelta(days=45), 100_000))
    late, due_today, coming = agency.place(
        (FRIDAY - datetime.timedelta(days=1), 100), (FRIDAY, 200), (MONTH, 300)
    )
    (paid,) = agency.place((MONTH, 500))
    (part,) = agency.place((MONTH, 500))
    agency.pay(500, title_reference=paid.reference)
    agency.pay(200, title_reference=part.reference)
    agency.agree(bound.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))

    def of(*states):
        return sorted(listed(states=states))

    assert of(TITLE.STATE_IN_AGREEMENT) == [bound.reference]
    assert of(TITLE.STATE_OPEN) == sorted([due_today.reference, coming.reference]), "not what is past due"
    assert of(TITLE.STATE_PAST_DUE) == [late.reference]
    assert of(TITLE.STATE_PAID, TITLE.STATE_PARTIALLY_PAID) == sorted([paid.reference, part.reference])
    assert of(TITLE.STATE_OPEN, TITLE.STATE_PAST_DUE, TITLE.STATE_OPEN) == sorted(
        [late.reference, due_today.reference, coming.reference]
    )
    assert listed(states=[TITLE.STATE_OPEN], due_to="today") == [due_today.reference]
    assert listed(case_id=str(late.case_id), states=[TITLE.STATE_PAST_DUE]) == [late.reference]
    agency.set_clock(datetime.date(2026, 11, 24))  # Friday was a holiday: payable until Monday
    assert of(TITLE.STATE_PAST_DUE) == sorted([late.reference, due_today.reference])
    shown = api(
        "ListTitles", service.ListTitlesRequest(parent=api.name, states=[TITLE.STATE_PAST_DUE])
    ).titles
    assert {one.state for one in shown} == {TITLE.STATE_PAST_DUE}


def test_due_on_a_saturday_is_past_due_only_after_the_business_day_it_rolls_to(agency, listed):
    (placed,) = agency.place((datetime.date(2026, 11, 21), 100))
    for date, state in ((23, TITLE.STATE_OPEN), (24, TITLE.STATE_PAST_DUE)):
        agency.set_clock(datetime.date(2026, 11, date))
        assert listed(states=[state]) == [placed.reference]
        assert listed(states=[TITLE.STATE_OPEN, TITLE.STATE_PAST_DUE]) == [placed.reference]


def test_pages_belong_to_their_filter_and_its_first_pages_business_date(agency, api, listed):
    placed = agency.place(*((FRIDAY + datetime.timedelta(days=count), 100) for count in range(6)))
    wanted = {"case_id": str(placed[0].case_id), "due_from": "today+1d", "due_to": "today+4d"}
    assert listed(size=1, **wanted) == [one.reference for one in placed[1:5]]
    first = api("ListTitles", service.ListTitlesRequest(parent=api.name, page_size=2, **wanted))
    assert first.next_page_token
    agency.set_clock(FRIDAY + datetime.timedelta(days=1))
    rest = api(
        "ListTitles",
        service.ListTitlesRequest(parent=api.name, page_token=first.next_page_token, **wanted),
    )
    assert [one.title_reference for one in rest.titles] == [one.reference for one in placed[3:5]]
    for other in ({"due_to": "today+5d"}, {"states": [TITLE.STATE_OPEN]}):
        assert refused(api, page_token=first.next_page_token, **{**wanted, **other})[0][0] == "page_token"


def test_a_filter_that_means_nothing_is_refused_naming_what_is_expected(agency, api):
    ((field, text),) = refused(api, due_from="tomorrow")
    assert field == "due_from"
    assert "2026-11-30" in text
    assert "last_of_month" in text
    assert refused(api, due_to="today+999999y") == [("due_to", "expected a day of the years 1 to 9999")]
    ((field, text),) = refused(api, states=[TITLE.STATE_OPEN, TITLE.STATE_DISPUTED])
    assert field == "states[1]"
    assert "STATE_PAST_DUE" in text
    assert refused(api, states=[TITLE.STATE_UNSPECIFIED])[0][0] == "states[0]"
    assert refused(api, states=[77])[0][0] == "states[0]"


@pytest.mark.feature("S1-17")
def test_a_title_says_its_type(agency, api):
    fact, (placed, other) = agency.fact([(MONTH, 100), (MONTH, 200)])
    fact.table_types.append("CHEQUE")
    fact.type_index.extend([0, 0])
    agency.take(fact)
    (plain,) = agency.place((MONTH, 300))
    shown = api("ListTitles", service.ListTitlesRequest(parent=api.name)).titles
    assert {one.title_reference: one.title_type for one in shown} == {
        placed.reference: "CHEQUE",
        other.reference: "CHEQUE",
        plain.reference: "OTHER",
    }
    lineage = api(
        "GetTitleLineage", service.GetTitleLineageRequest(name=f"{api.name}/titles/{placed.title_id}")
    )
    assert not lineage.descendants
