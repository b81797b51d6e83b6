"""Every RPC over gRPC: names, paging, etags, request ids, errors by reason, creditors' tokens."""

import datetime
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import timestamp_pb2
from google.rpc import error_details_pb2
from google.type import money_pb2
from grpc_status import rpc_status

from recupera.case.v1 import case_pb2, case_service_pb2
from servicekit import dates

from .conftest import AGENCY, DATE, NOW, OTHER_AGENCY, Api, House, row

DAY = datetime.timedelta(days=1)
PARENT = f"agencies/{AGENCY}"


def refusal(call: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    """(status, reason) of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **kwargs)
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    return raised.value.code().name, info.reason  # type: ignore[attr-defined]


def name(house: House, number: int = 0) -> str:
    return f"{PARENT}/cases/{house.case(number).id}"


@pytest.mark.feature("S1-04")
def test_get_case(house: House, api: Api) -> None:
    house.place(row(0), row(1, contract_reference="K-0", debtor_document=f"{0:011d}", due_date=DATE))
    house.run_day()
    case = api("GetCase", case_service_pb2.GetCaseRequest(name=name(house)))
    assert case.name == name(house)
    assert (case.state, case.sub_state) == (case_pb2.Case.STATE_IN_COLLECTION, case_pb2.Case.SUB_STATE_NEW)
    assert case.creditor_display_name == "Luz do Norte S.A."
    assert (case.creditor_reference, case.contract_reference, case.product) == ("LUZ", "K-0", "CARD")
    assert case.placed_principal == money_pb2.Money(currency_code="BRL", units=200)
    assert (case.open_titles, case.days_past_due) == (2, 10)
    assert dates.from_proto(case.oldest_due_date, "") == DATE - 10 * DAY
    assert case.etag == str(house.case().version)
    assert refusal(api, "GetCase", case_service_pb2.GetCaseRequest(name=f"{PARENT}/cases/{uuid4()}")) == (
        "NOT_FOUND",
        "CASE_NOT_FOUND",
    )


@pytest.mark.feature("S2-25", "S1-16")
def test_list_cases(house: House, api: Api) -> None:
    house.place(
        *(row(n, due_date=DATE - n * DAY) for n in range(9)),
        row(9, debtor_document=f"{3:011d}", currency="EUR"),
    )
    house.run_day()

    def found(**wanted: Any) -> list[str]:
        answer = api("ListCases", case_service_pb2.ListCasesRequest(parent=PARENT, **wanted))
        return sorted(case.contract_reference for case in answer.cases)

    assert len(found()) == 10
    assert found(contract_reference="K-4") == ["K-4"]
    assert found(debtor_document=f"{3:011d}") == ["K-3", "K-9"]
    assert found(debtor_name="araújo 5") == ["K-5"]
    assert found(debtor_name="50%_") == []
    assert found(min_days_past_due=7) == ["K-7", "K-8", "K-9"]
    assert found(min_days_past_due=3, max_days_past_due=4) == ["K-3", "K-4"]
    assert found(state=case_pb2.Case.STATE_READY) == []
    creditor = house.case(0).creditor_id
    assert len(found(creditor=f"{PARENT}/creditors/{creditor}")) == 10
    assert found(creditor=f"{PARENT}/creditors/{uuid4()}") == []

    seen, token = [], ""
    for _ in range(4):
        page = api(
            "ListCases", case_service_pb2.ListCasesRequest(parent=PARENT, page_size=3, page_token=token)
        )
        seen += [case.name for case in page.cases]
        token = page.next_page_token
    assert token == ""
    assert len(seen) == len(set(seen)) == 10
    assert seen == sorted(seen)
    short = case_service_pb2.ListCasesRequest(parent=PARENT, debtor_name="ab")
    assert refusal(api, "ListCases", short) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


@pytest.mark.feature("S1-15", "S1-07", "S1-17")
def test_parts_of_a_case(house: House, api: Api) -> None:
    house.place(
        *(
            row(n, contract_reference="K-0", debtor_document=f"{0:011d}", due_date=DATE - n * DAY)
            for n in range(5)
        ),
        row(
            5,
            contract_reference="K-0",
            debtor_document=f"{0:011d}",
            guarantor_document_type="CPF",
            guarantor_document="99999999999",
            guarantor_name="Avalista",
            guarantor_phone="+5511900000009",
        ),
    )
    case = name(house)
    titles = api("ListTitles", case_service_pb2.ListTitlesRequest(parent=case, page_size=4))
    due = [dates.from_proto(title.due_date, "") for title in titles.titles]
    assert due == [DATE - 10 * DAY, *(DATE - n * DAY for n in (4, 3, 2))]
    rest = api(
        "ListTitles",
        case_service_pb2.ListTitlesRequest(parent=case, page_size=4, page_token=titles.next_page_token),
    )
    assert [title.title_reference for title in rest.titles] == ["T-1", "T-0"]
    holder, guarantor = api("ListPeople", case_service_pb2.ListPeopleRequest(parent=case)).people
    assert (holder.role, guarantor.role, guarantor.display_name) == ("HOLDER", "GUARANTOR", "Avalista")
    assert [point.value for point in guarantor.contact_points] == ["+5511900000009"]
    (creditor,) = api("ListCreditors", case_service_pb2.ListCreditorsRequest(parent=PARENT)).creditors
    assert (creditor.reference, creditor.document) == ("LUZ", "16727230000197")
    parties = api(
        "BatchGetParties",
        case_service_pb2.BatchGetPartiesRequest(
            parent=PARENT, case_ids=[house.case().id.bytes, uuid4().bytes]
        ),
        scopes=("internal",),
    )
    assert [found.debtor_name for found in parties.parties] == ["Conceição Araújo 0"]


@pytest.mark.feature("S1-08")
def test_timeline_newest_first(house: House, api: Api) -> None:
    house.place(row(0))
    house.run_day()
    case = name(house)
    hold = api(
        "PlaceHold",
        case_service_pb2.PlaceHoldRequest(parent=case, type=case_pb2.Hold.TYPE_DISPUTE, reason="they say"),
    )
    first = api("ListTimeline", case_service_pb2.ListTimelineRequest(parent=case, page_size=2))
    second = api(
        "ListTimeline",
        case_service_pb2.ListTimelineRequest(parent=case, page_size=9, page_token=first.next_page_token),
    )
    entries = [*first.entries, *second.entries]
    assert [(entry.kind, entry.code, entry.actor) for entry in entries] == [
        ("STATE_CHANGED", "ON_HOLD", "users/tester"),
        ("HOLD", "DISPUTE", "users/tester"),
        ("STATE_CHANGED", "IN_COLLECTION", "system"),
        ("STATE_CHANGED", "READY", "import"),
    ]
    assert entries[1].note == "they say"
    assert entries[1].details["subject"] == hold.name.rpartition("/")[2]


def test_change_state(house: House, api: Api) -> None:
    house.place(row(0))
    house.run_day()
    case = api("GetCase", case_service_pb2.GetCaseRequest(name=name(house)))
    request = case_service_pb2.ChangeCaseStateRequest(
        name=case.name,
        state=case_pb2.Case.STATE_LEGAL,
        etag=case.etag,
        reason="to the lawyers",
        request_id="r-1",
    )
    moved = api("ChangeCaseState", request)
    assert moved.state == case_pb2.Case.STATE_LEGAL
    # the same request again gives the same answer, whatever the etag says
    assert api("ChangeCaseState", request) == moved
    request.reason = "another"
    assert refusal(api, "ChangeCaseState", request) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    request.request_id = "r-2"
    assert refusal(api, "ChangeCaseState", request) == ("ABORTED", "VERSION_MISMATCH")
    request.etag = "x"
    assert refusal(api, "ChangeCaseState", request) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    request.etag = ""
    assert refusal(api, "ChangeCaseState", request) == ("FAILED_PRECONDITION", "CASE_TRANSITION_REFUSED")
    request.state = case_pb2.Case.STATE_RESOLVED_OTHER
    assert refusal(api, "ChangeCaseState", request) == ("FAILED_PRECONDITION", "CASE_STILL_OPEN")


def test_holds(house: House, api: Api) -> None:
    house.place(row(0))
    case = name(house)
    place = case_service_pb2.PlaceHoldRequest(
        parent=case,
        type=case_pb2.Hold.TYPE_PERSI,
        channels=[case_pb2.CHANNEL_CALL],
        until=dates.to_proto(DATE),
    )
    hold = api("PlaceHold", place)
    assert (hold.state, list(hold.channels)) == (case_pb2.Hold.STATE_ACTIVE, [case_pb2.CHANNEL_CALL])
    assert api("GetCase", case_service_pb2.GetCaseRequest(name=case)).on_hold
    release = case_service_pb2.ReleaseHoldRequest(name=hold.name)
    assert api("ReleaseHold", release).state == case_pb2.Hold.STATE_RELEASED
    assert refusal(api, "ReleaseHold", release) == ("FAILED_PRECONDITION", "HOLD_NOT_ACTIVE")
    unknown = case_service_pb2.ReleaseHoldRequest(name=f"{case}/holds/{uuid4()}")
    assert refusal(api, "ReleaseHold", unknown) == ("NOT_FOUND", "HOLD_NOT_FOUND")
    place.until.CopyFrom(dates.to_proto(DATE - DAY))
    assert refusal(api, "PlaceHold", place) == ("INVALID_ARGUMENT", "HOLD_ALREADY_OVER")
    (listed,) = api("ListHolds", case_service_pb2.ListHoldsRequest(parent=case)).holds
    assert listed.state == case_pb2.Hold.STATE_RELEASED


@pytest.mark.feature("S2-35", "S1-09")
def test_record_contact(house: House, api: Api) -> None:
    house.place(row(0))
    house.run_day()
    request = case_service_pb2.RecordContactRequest(
        parent=name(house),
        contact=case_pb2.ContactRecord(
            channel=case_pb2.CHANNEL_CALL,
            outcome=case_pb2.ContactRecord.OUTCOME_PROMISE_TO_PAY,
            promise_date=dates.to_proto(DATE + DAY),
            promise_amount=money_pb2.Money(currency_code="BRL", units=50),
            internal_note="after payday",
            person=f"{name(house)}/people/{house.case().debtor_id}",
        ),
        request_id="r",
    )
    recorded = api("RecordContact", request)
    assert recorded.manual
    assert recorded.name.startswith(name(house) + "/contacts/")
    assert api("RecordContact", request) == recorded
    case = api("GetCase", case_service_pb2.GetCaseRequest(name=name(house)))
    assert case.sub_state == case_pb2.Case.SUB_STATE_PTP
    assert dates.from_proto(case.next_action_date, "") == DATE + DAY
    request.request_id = ""
    request.contact.promise_amount.currency_code = "EUR"
    assert refusal(api, "RecordContact", request) == ("INVALID_ARGUMENT", "PROMISE_INVALID")
    request.contact.outcome = case_pb2.ContactRecord.OUTCOME_BUSY
    assert refusal(api, "RecordContact", request) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    request.contact.ClearField("promise_date")
    request.contact.ClearField("promise_amount")
    request.contact.person = f"{name(house)}/people/{uuid4()}"
    assert refusal(api, "RecordContact", request) == ("NOT_FOUND", "PERSON_NOT_ON_CASE")


@pytest.mark.feature("S2-18", "S2-19")
def test_ladder(house: House, api: Api) -> None:
    get = case_service_pb2.GetLadderRequest(name=f"{PARENT}/ladders/default")
    ladder = api("GetLadder", get)
    assert [level.code for level in ladder.levels][:2] == ["reminder-1", "call-1"]
    del ladder.levels[1:]
    updated = api("UpdateLadder", case_service_pb2.UpdateLadderRequest(ladder=ladder))
    assert (updated.etag, len(updated.levels)) == ("2", 1)
    assert refusal(api, "UpdateLadder", case_service_pb2.UpdateLadderRequest(ladder=ladder)) == (
        "ABORTED",
        "VERSION_MISMATCH",
    )
    ladder.etag = ""
    ladder.levels[0].from_days = 99
    assert refusal(api, "UpdateLadder", case_service_pb2.UpdateLadderRequest(ladder=ladder)) == (
        "INVALID_ARGUMENT",
        "LADDER_INVALID",
    )
    unknown = case_service_pb2.GetLadderRequest(name=f"{PARENT}/ladders/other")
    assert refusal(api, "GetLadder", unknown) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


@pytest.mark.feature("S2-24")
def test_days_and_agenda(house: House, api: Api) -> None:
    house.place(*(row(n, due_date=DATE - (5 + n) * DAY) for n in range(5)))
    run = case_service_pb2.RunDayRequest(parent=PARENT, date=dates.to_proto(DATE))
    day = api("RunDay", run)
    assert (day.name, day.state, day.slices, day.slices_done) == (
        f"{PARENT}/businessDays/2026-03-02",
        case_pb2.BusinessDay.STATE_RUNNING,
        24,
        0,
    )
    house.day_done()
    day = api("GetBusinessDay", case_service_pb2.GetBusinessDayRequest(name=day.name))
    assert (day.state, day.slices_done, day.cases_seen) == (case_pb2.BusinessDay.STATE_DONE, 24, 5)
    assert day.steps_by_channel == {"CHANNEL_CALL": 5}
    assert api("RunDay", run) == day
    seen, token = [], ""
    while True:
        page = api(
            "ListAgenda", case_service_pb2.ListAgendaRequest(parent=PARENT, page_size=2, page_token=token)
        )
        seen += [(found.days_past_due, found.reason, found.state) for found in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == [(days, "LADDER", "PLANNED") for days in (9, 8, 7, 6, 5)]
    empty = case_service_pb2.ListAgendaRequest(parent=PARENT, date=dates.to_proto(DATE + DAY))
    assert not api("ListAgenda", empty).items
    run.date.CopyFrom(dates.to_proto(DATE - DAY))
    assert refusal(api, "RunDay", run) == ("FAILED_PRECONDITION", "BUSINESS_DATE_BACKWARD")
    for bad in ("2026-13-01", "soon"):
        unknown = case_service_pb2.GetBusinessDayRequest(name=f"{PARENT}/businessDays/{bad}")
        assert refusal(api, "GetBusinessDay", unknown) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    unknown = case_service_pb2.GetBusinessDayRequest(name=f"{PARENT}/businessDays/2026-03-09")
    assert refusal(api, "GetBusinessDay", unknown) == ("NOT_FOUND", "DAY_NOT_OPENED")


def test_clock(house: House, api: Api) -> None:
    get = case_service_pb2.GetClockRequest(name=f"{PARENT}/clock")
    clock = api("GetClock", get)
    assert (clock.time_zone, clock.simulated, clock.speed_thousandths, clock.currency) == (
        "America/Sao_Paulo",
        True,
        0,
        "BRL",
    )
    assert dates.from_timestamp(clock.now, "") == NOW
    move = case_service_pb2.SetClockRequest(
        name=clock.name, simulated=True, now=dates.to_timestamp(NOW + DAY), speed_thousandths=0
    )
    house.take()
    assert dates.from_timestamp(api("SetClock", move).now, "") == NOW + DAY
    assert len(house.take("clock_changed")) == 24
    move.now.CopyFrom(dates.to_timestamp(NOW))
    assert refusal(api, "SetClock", move) == ("FAILED_PRECONDITION", "CLOCK_WENT_BACK")
    move.now.CopyFrom(timestamp_pb2.Timestamp(seconds=2**60))
    assert refusal(api, "SetClock", move) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    move.now.CopyFrom(timestamp_pb2.Timestamp(seconds=7_258_118_401))  # 2200-01-01 00:00:01
    assert refusal(api, "SetClock", move) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    zone = case_service_pb2.SetClockRequest(name=clock.name, time_zone="Mars/Olympus", simulated=True)
    assert refusal(api, "SetClock", zone) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    # an agency begins with its clock
    name_ = f"agencies/{OTHER_AGENCY}/clock"
    other = case_service_pb2.GetClockRequest(name=name_)
    assert refusal(api, "GetClock", other, agency=OTHER_AGENCY) == (
        "FAILED_PRECONDITION",
        "AGENCY_CLOCK_UNKNOWN",
    )
    made = api(
        "SetClock",
        case_service_pb2.SetClockRequest(name=name_, time_zone="Europe/Lisbon", currency="EUR"),
        agency=OTHER_AGENCY,
    )
    assert (made.simulated, made.currency) == (False, "EUR")


def test_summary(house: House, api: Api) -> None:
    house.place(row(0), row(1), row(2, currency="EUR"))
    house.titles_changed(("T-0", 0), state="PAID")
    summary = api("SummarizeCases", case_service_pb2.SummarizeCasesRequest(parent=PARENT))
    assert (summary.cases, summary.open, summary.debtors, summary.titles) == (3, 2, 3, 3)
    assert summary.by_state == {"READY": 2, "RESOLVED_PAID": 1}
    assert [(money.currency_code, money.units) for money in summary.placed_principal] == [
        ("BRL", 200),
        ("EUR", 100),
    ]
    assert [(money.currency_code, money.units) for money in summary.open_principal] == [
        ("BRL", 100),
        ("EUR", 100),
    ]
    assert summary.outbox > 0
    house.take()
    assert api("SummarizeCases", case_service_pb2.SummarizeCasesRequest(parent=PARENT)).outbox == 0


def test_reserve_contacts(house: House, api: Api) -> None:
    house.place(row(0))
    house.run_day()
    asked = case_service_pb2.ContactItem(
        key=uuid4().bytes,
        case_id=house.case().id.bytes,
        channel=case_pb2.CHANNEL_EMAIL,
        purpose=case_service_pb2.ContactItem.PURPOSE_COLLECTION,
    )
    request = case_service_pb2.ReserveContactsRequest(parent=PARENT, items=[asked])
    (answer,) = api("ReserveContacts", request, scopes=("internal",)).answers
    granted = answer.granted
    assert (granted.address, granted.person_name, granted.language) == (
        "debtor0@example.com",
        "Conceição Araújo 0",
        "pt-BR",
    )
    assert (granted.creditor_name, granted.creditor_document, granted.creditor_address) == (
        "Luz do Norte S.A.",
        "16727230000197",
        "Rua das Flores 1",
    )
    assert (granted.contract_reference, granted.open_principal.units, granted.guarantor) == (
        "K-0",
        100,
        False,
    )
    assert dates.from_timestamp(granted.valid_until, "") == NOW + datetime.timedelta(seconds=60)
    asked.case_id = uuid4().bytes
    request.items.append(asked)
    asked.key = uuid4().bytes
    request.items.append(asked)
    answers = api("ReserveContacts", request, scopes=("internal",)).answers
    assert answers[2].refused.rule == "CASE_UNKNOWN"
    asked.key = b"x"
    request.items.append(asked)
    assert refusal(api, "ReserveContacts", request, scopes=("internal",)) == (
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
    )
    assert refusal(api, "ReserveContacts", request)[0] == "PERMISSION_DENIED"


def test_roll_back_over_the_wire(house: House, api: Api) -> None:
    batch = house.place(row(0))
    begin = case_service_pb2.BeginBatchRollbackRequest(parent=PARENT, batch_id=batch.bytes)
    assert api("BeginBatchRollback", begin, scopes=("internal",)).cases == 1
    end = case_service_pb2.EndBatchRollbackRequest(parent=PARENT, batch_id=batch.bytes)
    api("EndBatchRollback", end, scopes=("internal",))
    assert house.case().state == "RETURNED"


def test_a_creditors_token_sees_its_own_cases_only(house: House, api: Api) -> None:
    house.place(row(0), row(1, creditor_reference="GAS", creditor_name="Gás"))
    mine, foreign = house.case(0), house.case(1)
    scopes = ("case.read", "case.write")

    def ask(method: str, request: Any) -> Any:
        return api(method, request, scopes=scopes, creditor=mine.creditor_id)

    listed = ask("ListCases", case_service_pb2.ListCasesRequest(parent=PARENT))
    assert [case.name for case in listed.cases] == [f"{PARENT}/cases/{mine.id}"]
    other = case_service_pb2.ListCasesRequest(
        parent=PARENT, creditor=f"{PARENT}/creditors/{foreign.creditor_id}"
    )
    assert not ask("ListCases", other).cases
    assert (
        ask("GetCase", case_service_pb2.GetCaseRequest(name=f"{PARENT}/cases/{mine.id}")).creditor_reference
        == "LUZ"
    )
    assert (
        len(ask("ListTitles", case_service_pb2.ListTitlesRequest(parent=f"{PARENT}/cases/{mine.id}")).titles)
        == 1
    )
    for method, request in (
        ("GetCase", case_service_pb2.GetCaseRequest(name=f"{PARENT}/cases/{foreign.id}")),
        ("ListTitles", case_service_pb2.ListTitlesRequest(parent=f"{PARENT}/cases/{foreign.id}")),
    ):
        assert refusal(ask, method, request) == ("NOT_FOUND", "CASE_NOT_FOUND")
    people = case_service_pb2.ListPeopleRequest(parent=f"{PARENT}/cases/{mine.id}")
    assert refusal(ask, "ListPeople", people)[0] == "PERMISSION_DENIED"


def test_another_agency_finds_nothing(house: House, api: Api) -> None:
    house.place(row(0))
    other = house.of(OTHER_AGENCY)
    other.set_clock()
    other.place(row(0))
    theirs = f"agencies/{OTHER_AGENCY}/cases/{house.case().id}"
    for method, request in (
        ("GetCase", case_service_pb2.GetCaseRequest(name=theirs)),
        ("ListTitles", case_service_pb2.ListTitlesRequest(parent=theirs)),
        ("ListPeople", case_service_pb2.ListPeopleRequest(parent=theirs)),
        ("ListTimeline", case_service_pb2.ListTimelineRequest(parent=theirs)),
        ("ListHolds", case_service_pb2.ListHoldsRequest(parent=theirs)),
        ("PlaceHold", case_service_pb2.PlaceHoldRequest(parent=theirs, type=case_pb2.Hold.TYPE_DISPUTE)),
        (
            "ChangeCaseState",
            case_service_pb2.ChangeCaseStateRequest(name=theirs, state=case_pb2.Case.STATE_RETURNED),
        ),
    ):
        assert refusal(api, method, request, agency=OTHER_AGENCY) == ("NOT_FOUND", "CASE_NOT_FOUND"), method
    ours = case_service_pb2.GetCaseRequest(name=f"{PARENT}/cases/{house.case().id}")
    assert refusal(api, "GetCase", ours, agency=OTHER_AGENCY)[0] == "PERMISSION_DENIED"
    listed = api(
        "ListCases",
        case_service_pb2.ListCasesRequest(parent=f"agencies/{OTHER_AGENCY}", debtor_name="conceição"),
        agency=OTHER_AGENCY,
    )
    assert [case.name for case in listed.cases] == [f"agencies/{OTHER_AGENCY}/cases/{other.case().id}"]
