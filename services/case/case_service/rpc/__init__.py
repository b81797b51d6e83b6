"""CaseService over gRPC: proto -> one use case -> proto. No rules, no SQL."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message

from case_service.domain import contact, rules
from case_service.rpc import convert
from case_service.store import agency as agencies
from case_service.store import cases as stored
from case_service.store import days as stored_days
from case_service.usecases import agency as agency_usecases
from case_service.usecases import cases, days, permission, rollback
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from servicekit import auth, clock, dates, db, errors, idempotency, ids, money, names, pagination, rpc

SERVICES = (case_service_pb2.DESCRIPTOR.services_by_name["CaseService"].full_name,)
"""Full names of what `add_to` registers."""

MAX_CASES = 500
"""Cases of one BatchGetParties."""

M = TypeVar("M", bound=Message)


class DayNotOpened(errors.ServiceError):
    """The business date was not opened."""

    status = errors.Status.NOT_FOUND


class CaseServicer(case_service_pb2_grpc.CaseServiceServicer):
    """The RPCs of the case service."""

    def __init__(self, engine: db.Engine, *, holidays: rules.Holidays, allow_simulated_clock: bool) -> None:
        self._engine = engine
        self._holidays = holidays
        self._allow_simulated_clock = allow_simulated_clock

    # -- cases ---------------------------------------------------------------------------------------------------

    def GetCase(  # noqa: N802
        self, request: case_service_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.Case:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        case_id = names.parse(convert.CASE, request.name)["case"]
        return self._case(caller, case_id)

    def ListCases(  # noqa: N802
        self, request: case_service_pb2.ListCasesRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListCasesResponse:
        """https://google.aip.dev/132"""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(UUID,))
        creditor = (
            names.parse(convert.CREDITOR, request.creditor, "creditor")["creditor"]
            if request.creditor
            else None
        )
        if request.debtor_name and len(request.debtor_name.strip()) < 3:
            raise errors.invalid("debtor_name", "expected at least 3 letters")
        found: list[Any] = []
        if caller.creditor is None or creditor in (None, caller.creditor):
            statement, params = stored.list_statement(
                {
                    "state": convert.state(request.state, "state") if request.state else None,
                    "creditor": caller.creditor or creditor,
                    "min_days": request.min_days_past_due or None,
                    "max_days": request.max_days_past_due or None,
                    "contract_reference": convert.text(request.contract_reference, "contract_reference")
                    or None,
                    "debtor_document": convert.text(request.debtor_document, "debtor_document") or None,
                    "debtor_name": convert.text(request.debtor_name.strip(), "debtor_name") or None,
                    "after": page.after[0] if page.after else None,
                    "limit": page.limit,
                }
            )
            found = self._read(caller, statement, params)
        kept, token = page.cut(found, key=lambda row: (row.id,))
        return case_service_pb2.ListCasesResponse(
            cases=[convert.case_of(caller.agency, row) for row in kept], next_page_token=token
        )

    def ListTitles(  # noqa: N802
        self, request: case_service_pb2.ListTitlesRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListTitlesResponse:
        """Oldest due date first."""
        caller = rpc.caller()
        case_id = self._known_case(caller, request.parent)
        page = pagination.read(request, key=(datetime.date, UUID))
        after_due, after_id = page.after or (None, None)
        rows = self._read(
            caller,
            stored.TITLES,
            {
                "case_id": case_id,
                "creditor": caller.creditor,
                "after_due": after_due,
                "after_id": after_id,
                "limit": page.limit,
            },
        )
        kept, token = page.cut(rows, key=lambda row: (row.due_date, row.id))
        return case_service_pb2.ListTitlesResponse(
            titles=[convert.title_of(caller.agency, case_id, row) for row in kept], next_page_token=token
        )

    def ListPeople(  # noqa: N802
        self, request: case_service_pb2.ListPeopleRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListPeopleResponse:
        """Holder first."""
        caller = rpc.caller()
        case_id = self._known_case(caller, request.parent)
        rows = self._read(caller, stored.PEOPLE, {"case_id": case_id})
        return case_service_pb2.ListPeopleResponse(people=convert.people_of(caller.agency, case_id, rows))

    def ListTimeline(  # noqa: N802
        self, request: case_service_pb2.ListTimelineRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListTimelineResponse:
        """Newest first."""
        caller = rpc.caller()
        case_id = self._known_case(caller, request.parent)
        page = pagination.read(request, key=(UUID,))
        rows = self._read(
            caller,
            stored.TIMELINE,
            {"case_id": case_id, "after": page.after[0] if page.after else None, "limit": page.limit},
        )
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return case_service_pb2.ListTimelineResponse(
            entries=[convert.entry_of(row) for row in kept], next_page_token=token
        )

    def ListCreditors(  # noqa: N802
        self, request: case_service_pb2.ListCreditorsRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListCreditorsResponse:
        """In id order."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(UUID,))
        rows = self._read(
            caller, stored.CREDITORS, {"after": page.after[0] if page.after else None, "limit": page.limit}
        )
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return case_service_pb2.ListCreditorsResponse(
            creditors=[
                case_pb2.Creditor(
                    name=names.format(convert.CREDITOR, agency=caller.agency, creditor=row.id),
                    reference=row.reference,
                    display_name=row.display_name,
                    document=row.document,
                    address=row.address,
                )
                for row in kept
            ],
            next_page_token=token,
        )

    def ChangeCaseState(  # noqa: N802
        self, request: case_service_pb2.ChangeCaseStateRequest, context: grpc.ServicerContext
    ) -> case_pb2.Case:
        """https://google.aip.dev/216"""
        caller = rpc.caller()
        case_id = names.parse(convert.CASE, request.name)["case"]
        target = convert.state(request.state, "state")
        sub_state = convert.sub_state(request.sub_state, "sub_state")
        reason = convert.text(request.reason, "reason")
        version = convert.etag(request.etag)

        def run(tx: db.Transaction) -> case_pb2.Case:
            cases.change_state(
                tx,
                caller.agency,
                case_id=case_id,
                target=target,
                sub_state=sub_state,
                reason=reason,
                version=version,
                actor=caller.subject,
            )
            return convert.case_of(caller.agency, stored.lock(tx, caller.agency, case_id))

        return self._once(request, case_pb2.Case, run)

    # -- holds and contacts --------------------------------------------------------------------------------------

    def PlaceHold(  # noqa: N802
        self, request: case_service_pb2.PlaceHoldRequest, context: grpc.ServicerContext
    ) -> case_pb2.Hold:
        """Blocks actions by channel (R26)."""
        caller = rpc.caller()
        case_id = names.parse(convert.CASE, request.parent, "parent")["case"]
        type_ = convert.hold_type(request.type, "type")
        channels = [
            convert.channel(value, f"channels[{place}]") for place, value in enumerate(request.channels)
        ]
        until = dates.from_proto(request.until, "until") if request.HasField("until") else None
        reason = convert.text(request.reason, "reason")

        def run(tx: db.Transaction) -> case_pb2.Hold:
            hold = cases.place_hold(
                tx,
                caller.agency,
                case_id=case_id,
                type_=type_,
                channels=channels,
                until=until,
                reason=reason,
                actor=caller.subject,
            )
            return convert.hold_of(caller.agency, hold)

        return self._once(request, case_pb2.Hold, run)

    def ReleaseHold(  # noqa: N802
        self, request: case_service_pb2.ReleaseHoldRequest, context: grpc.ServicerContext
    ) -> case_pb2.Hold:
        """Gives the channels back."""
        caller = rpc.caller()
        found = names.parse(convert.HOLD, request.name)
        reason = convert.text(request.reason, "reason")

        def run(tx: db.Transaction) -> case_pb2.Hold:
            hold = cases.release_hold(
                tx,
                caller.agency,
                case_id=found["case"],
                hold_id=found["hold"],
                reason=reason,
                actor=caller.subject,
            )
            return convert.hold_of(caller.agency, hold)

        return self._once(request, case_pb2.Hold, run)

    def ListHolds(  # noqa: N802
        self, request: case_service_pb2.ListHoldsRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListHoldsResponse:
        """Oldest first."""
        caller = rpc.caller()
        case_id = self._known_case(caller, request.parent)
        rows = self._read(caller, stored.HOLDS, {"case_id": case_id})
        return case_service_pb2.ListHoldsResponse(holds=[convert.hold_of(caller.agency, row) for row in rows])

    def RecordContact(  # noqa: N802
        self, request: case_service_pb2.RecordContactRequest, context: grpc.ServicerContext
    ) -> case_pb2.ContactRecord:
        """S2-35, S1-09."""
        caller = rpc.caller()
        case_id = names.parse(convert.CASE, request.parent, "parent")["case"]
        asked = request.contact
        channel = convert.channel(asked.channel, "contact.channel")
        outcome = convert.outcome(asked.outcome, "contact.outcome")
        note = convert.text(asked.internal_note, "contact.internal_note")
        person_id = (
            names.parse(convert.PERSON, asked.person, "contact.person")["person"] if asked.person else None
        )
        promise = _promise(asked, outcome)

        def run(tx: db.Transaction) -> case_pb2.ContactRecord:
            row = cases.record_contact(
                tx,
                caller.agency,
                case_id=case_id,
                person_id=person_id,
                channel=channel,
                outcome=outcome,
                promise=promise,
                note=note,
                actor=caller.subject,
            )
            return convert.contact_record(caller.agency, case_id, asked, row)

        return self._once(request, case_pb2.ContactRecord, run)

    # -- ladder, days, agenda ------------------------------------------------------------------------------------

    def GetLadder(  # noqa: N802
        self, request: case_service_pb2.GetLadderRequest, context: grpc.ServicerContext
    ) -> case_pb2.Ladder:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        code = names.match(convert.LADDER, request.name)["ladder"]
        with db.begin(self._engine, agency=caller.agency) as tx:
            return _ladder(tx, caller, code)

    def UpdateLadder(  # noqa: N802
        self, request: case_service_pb2.UpdateLadderRequest, context: grpc.ServicerContext
    ) -> case_pb2.Ladder:
        """https://google.aip.dev/134"""
        caller = rpc.caller()
        code = names.match(convert.LADDER, request.ladder.name, "ladder.name")["ladder"]
        levels = convert.levels(request.ladder)
        version = convert.etag(request.ladder.etag, "ladder.etag")
        display_name = convert.text(request.ladder.display_name, "ladder.display_name", maximum=200)

        def run(tx: db.Transaction) -> case_pb2.Ladder:
            agency_usecases.update_ladder(
                tx, caller.agency, code=code, display_name=display_name, levels=levels, version=version
            )
            return _ladder(tx, caller, code)

        return self._once(request, case_pb2.Ladder, run)

    def RunDay(  # noqa: N802
        self, request: case_service_pb2.RunDayRequest, context: grpc.ServicerContext
    ) -> case_pb2.BusinessDay:
        """https://google.aip.dev/136"""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        date = dates.from_proto(request.date, "date")

        def run(tx: db.Transaction) -> case_pb2.BusinessDay:
            days.run_day(tx, caller.agency, date=date)
            return convert.day_of(caller.agency, date, stored_days.day(tx, caller.agency, date))

        return self._once(request, case_pb2.BusinessDay, run)

    def GetBusinessDay(  # noqa: N802
        self, request: case_service_pb2.GetBusinessDayRequest, context: grpc.ServicerContext
    ) -> case_pb2.BusinessDay:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        text = names.match(convert.DAY, request.name)["date"]
        try:
            date = datetime.date.fromisoformat(text)
        except ValueError:
            raise errors.invalid("name", "expected a date as YYYY-MM-DD") from None
        rows = self._read(caller, stored_days.DAY, {"date": date})
        if not rows:
            raise DayNotOpened("the date was not opened", date=date)
        return convert.day_of(caller.agency, date, rows)

    def ListAgenda(  # noqa: N802
        self, request: case_service_pb2.ListAgendaRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ListAgendaResponse:
        """Most days past due first (S2-24)."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(int, UUID, str))
        after_days, after_case, after_reason = page.after or (None, None, None)
        rows = self._read(
            caller,
            stored_days.AGENDA,
            {
                "date": dates.from_proto(request.date, "date") if request.HasField("date") else None,
                "after_days": after_days,
                "after_case": after_case,
                "after_reason": after_reason,
                "limit": page.limit,
            },
        )
        kept, token = page.cut(rows, key=lambda row: (row.days_past_due, row.case_id, row.reason))
        return case_service_pb2.ListAgendaResponse(
            items=[convert.agenda_item(caller.agency, row) for row in kept], next_page_token=token
        )

    # -- the agency ----------------------------------------------------------------------------------------------

    def GetClock(  # noqa: N802
        self, request: case_service_pb2.GetClockRequest, context: grpc.ServicerContext
    ) -> case_pb2.AgencyClock:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        names.parse(convert.CLOCK, request.name)
        with db.begin(self._engine, agency=caller.agency) as tx:
            return convert.clock_of(clock.read(tx, caller.agency), agencies.currency(tx, caller.agency))

    def SetClock(  # noqa: N802
        self, request: case_service_pb2.SetClockRequest, context: grpc.ServicerContext
    ) -> case_pb2.AgencyClock:
        """Creates the agency here, or changes its clock."""
        caller = rpc.caller()
        names.parse(convert.CLOCK, request.name)
        now = dates.from_timestamp(request.now, "now") if request.HasField("now") else None

        def run(tx: db.Transaction) -> case_pb2.AgencyClock:
            changed, currency = agency_usecases.set_clock(
                tx,
                caller.agency,
                time_zone=request.time_zone,
                simulated=request.simulated,
                now=now,
                speed_thousandths=request.speed_thousandths,
                currency=request.currency,
                allow_simulated=self._allow_simulated_clock,
                machine_now=clock.machine_now(),
            )
            return convert.clock_of(changed, currency)

        return self._once(request, case_pb2.AgencyClock, run)

    def SummarizeCases(  # noqa: N802
        self, request: case_service_pb2.SummarizeCasesRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.SummarizeCasesResponse:
        """Counts for reports."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        return convert.summary_of(self._read(caller, stored.SUMMARY, {})[0])

    # -- for other services --------------------------------------------------------------------------------------

    def ReserveContacts(  # noqa: N802
        self, request: case_service_pb2.ReserveContactsRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ReserveContactsResponse:
        """Permission at the act (architecture §7)."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        items = convert.contact_items(request)
        with db.begin(self._engine, agency=caller.agency) as tx:
            answers = permission.reserve(tx, caller.agency, items=items, holidays=self._holidays)
        return case_service_pb2.ReserveContactsResponse(
            answers=[convert.contact_answer(answer) for answer in answers]
        )

    def BatchGetParties(  # noqa: N802
        self, request: case_service_pb2.BatchGetPartiesRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.BatchGetPartiesResponse:
        """Those of the cases asked for that exist, in the order asked."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        if len(request.case_ids) > MAX_CASES:
            raise errors.invalid("case_ids", f"expected at most {MAX_CASES}")
        wanted = [ids.from_bytes(value, f"case_ids[{place}]") for place, value in enumerate(request.case_ids)]
        rows = {row.id: row for row in self._read(caller, stored.PARTIES, {"case_ids": wanted})}
        return case_service_pb2.BatchGetPartiesResponse(
            parties=[
                convert.parties_of(rows[case_id]) for case_id in dict.fromkeys(wanted) if case_id in rows
            ]
        )

    def BeginBatchRollback(  # noqa: N802
        self, request: case_service_pb2.BeginBatchRollbackRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.BeginBatchRollbackResponse:
        """First step of taking a batch back."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        batch_id = ids.from_bytes(request.batch_id, "batch_id")
        with db.begin(self._engine, agency=caller.agency) as tx:
            frozen = rollback.begin(tx, caller.agency, batch_id=batch_id)
        return case_service_pb2.BeginBatchRollbackResponse(cases=frozen)

    def EndBatchRollback(  # noqa: N802
        self, request: case_service_pb2.EndBatchRollbackRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.EndBatchRollbackResponse:
        """Last step, or the way back."""
        caller = rpc.caller()
        names.parse(convert.AGENCY, request.parent, "parent")
        batch_id = ids.from_bytes(request.batch_id, "batch_id")
        with db.begin(self._engine, agency=caller.agency) as tx:
            rollback.end(tx, caller.agency, batch_id=batch_id, abort=request.abort)
        return case_service_pb2.EndBatchRollbackResponse()

    # -- shared --------------------------------------------------------------------------------------------------

    def _once(self, request: Message, response: type[M], run: Callable[[db.Transaction], M]) -> M:
        caller = rpc.caller()
        with db.begin(self._engine, agency=caller.agency) as tx:
            return idempotency.once(
                tx,
                caller=caller,
                method=rpc.method(),
                request=request,
                response=response,
                run=lambda: run(tx),
            )

    def _read(self, caller: auth.Caller, statement: Any, params: Mapping[str, Any]) -> list[Any]:
        return db.read(
            self._engine,
            agency=caller.agency,
            statement=statement,
            params={"agency": caller.agency, **params},
        )

    def _case(self, caller: auth.Caller, case_id: UUID) -> case_pb2.Case:
        rows = self._read(caller, stored.GET, {"id": case_id, "creditor": caller.creditor})
        if not rows:
            raise cases.CaseNotFound("no such case", case=case_id)
        return convert.case_of(caller.agency, rows[0])

    def _known_case(self, caller: auth.Caller, parent: str) -> UUID:
        case_id = names.parse(convert.CASE, parent, "parent")["case"]
        if not self._read(caller, stored.EXISTS, {"case_id": case_id, "creditor": caller.creditor}):
            raise cases.CaseNotFound("no such case", case=case_id)
        return case_id


def _ladder(tx: db.Transaction, caller: auth.Caller, code: str) -> case_pb2.Ladder:
    rows = agencies.ladder_of(tx, caller.agency, code)
    if not rows:
        raise errors.ResourceNotFound("no such ladder", ladder=code)
    return convert.ladder_of(caller.agency, code, rows, [agencies.level(row) for row in rows])


def _promise(asked: case_pb2.ContactRecord, outcome: contact.Outcome) -> contact.Promise | None:
    if outcome is not contact.Outcome.PROMISE_TO_PAY:
        if asked.HasField("promise_date") or asked.HasField("promise_amount"):
            raise errors.invalid("contact.promise_date", "expected with OUTCOME_PROMISE_TO_PAY only")
        return None
    amount = money.from_proto(asked.promise_amount, "contact.promise_amount")
    return contact.Promise(
        date=dates.from_proto(asked.promise_date, "contact.promise_date"),
        amount_minor=amount.minor,
        currency=amount.currency,
    )


def add_to(server: grpc.Server, servicer: CaseServicer) -> None:
    """Register the service."""
    case_service_pb2_grpc.add_CaseServiceServicer_to_server(servicer, server)
