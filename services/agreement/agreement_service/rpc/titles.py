"""Titles, balances, the money identity."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid

import grpc

from agreement_service.domain import accounts, relative_dates
from agreement_service.rpc import common
from agreement_service.store import placement
from agreement_service.usecases import moments, summary, titles
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, names, pagination, rpc


class Titles(common.Methods):
    """Titles, balances, the money identity."""

    def ListTitles(
        self, request: agreement_service_pb2.ListTitlesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListTitlesResponse:
        """Titles of a case by due date, or of the agency by case; all pages as on the first one's business date."""
        agency = common.agency_of(request.parent, "parent")
        case_id = ids.parse(request.case_id, "case_id") if request.case_id else None
        states = frozenset(_state(value, f"states[{at}]") for at, value in enumerate(request.states))
        by_date = case_id is not None
        page = pagination.read(
            request, key=(datetime.date if by_date else uuid.UUID, uuid.UUID, datetime.date)
        )
        after, counted_from = (page.after[:2], page.after[2]) if page.after is not None else (None, None)
        with db.begin(self.engine, agency=agency) as tx:
            business_date = counted_from or moments.read(tx, agency).business_date
            wanted = placement.Filter(
                due_from=_day(request.due_from, "due_from", business_date),
                due_to=_day(request.due_to, "due_to", business_date),
                states=states,
            )
            rows = placement.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                case_id=case_id,
                after=after,
                limit=page.limit,
                wanted=wanted,
                business_date=business_date,
            )
        kept, token = page.cut(
            rows, key=lambda row: (row.due_date if by_date else row.case_id, row.id, business_date)
        )
        return agreement_service_pb2.ListTitlesResponse(
            titles=[shown(agency, row, business_date) for row in kept], next_page_token=token
        )

    def ExplainBalances(
        self, request: agreement_service_pb2.ExplainBalancesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ExplainBalancesResponse:
        """What cases owe on a date, line by line."""
        agency = common.agency_of(request.parent, "parent")
        case_ids = common.case_ids(request.case_ids)
        with db.begin(self.engine, agency=agency) as tx:
            date = common.date_of(request, "date") or moments.read(tx, agency).business_date
            found = titles.explain(
                tx=tx, agency=agency, case_ids=case_ids, date=date, creditor=rpc.caller().creditor
            )
        return agreement_service_pb2.ExplainBalancesResponse(
            balances=[
                agreement_service_pb2.CaseBalance(
                    case_id=str(one.case_id),
                    total=common.money_of(one.total_minor, one.currency),
                    subjects=[common.explained(agency, subject, one.currency) for subject in one.subjects],
                )
                for one in found
            ]
        )

    def SummarizeMoney(
        self, request: agreement_service_pb2.SummarizeMoneyRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.SummarizeMoneyResponse:
        """The money identity."""
        agency = common.agency_of(request.parent, "parent")
        with db.begin(self.engine, agency=agency) as tx:
            business_date = moments.read(tx, agency).business_date
            date = common.date_of(request, "date") or business_date
            found = summary.summarize(tx=tx, agency=agency, date=date, business_date=business_date)
        return agreement_service_pb2.SummarizeMoneyResponse(
            currencies=[_sums(one) for one in found.sums],
            date=dates.to_proto(date),
            agreements_by_state=found.agreements_by_state,
            payments=found.payments,
            payments_matched=found.payments - found.payments_unidentified,
            payments_unidentified=found.payments_unidentified,
            titles=found.titles,
            outbox=found.outbox,
            parked=found.parked,
            acts_due=found.acts_due,
        )

    def RollBackTitles(
        self, request: agreement_service_pb2.RollBackTitlesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.RollBackTitlesResponse:
        """Withdraw the titles of a batch; doing it again changes nothing."""
        agency = common.agency_of(request.parent, "parent")
        with db.begin(self.engine, agency=agency) as tx:
            count = titles.roll_back(
                tx=tx,
                agency=agency,
                batch_id=ids.from_bytes(request.batch_id, "batch_id"),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
        return agreement_service_pb2.RollBackTitlesResponse(titles=count)


def shown(agency: uuid.UUID, row: placement.Listed, business_date: datetime.date) -> agreement_pb2.Title:
    """A title as it is answered."""
    state = accounts.title_state_on(row.state, payable_until=row.payable_until, business_date=business_date)
    found = agreement_pb2.Title(
        name=names.format(common.TITLE, agency=agency, title=row.id),
        case_id=str(row.case_id),
        title_reference=row.reference,
        state=agreement_pb2.Title.State.Value(f"STATE_{state.value}"),
        due_date=dates.to_proto(row.due_date),
        principal=common.money_of(row.principal_minor, row.currency),
        open_principal=common.money_of(row.open_principal_minor, row.currency),
        acquirer=row.acquirer,
        title_type=row.title_type,
    )
    if row.origin_agreement_id is not None:
        found.origin_agreement = names.format(
            common.AGREEMENT, agency=agency, agreement=row.origin_agreement_id
        )
    return found


def _day(text: str, field: str, business_date: datetime.date) -> datetime.date | None:
    return relative_dates.resolve(text, business_date=business_date, field=field) if text else None


def _state(value: int, field: str) -> accounts.TitleState:
    for state in accounts.TitleState:
        if agreement_pb2.Title.State.Value(f"STATE_{state.value}") == value:
            return state
    raise errors.invalid(
        field,
        f"expected a state that titles take: {', '.join(f'STATE_{one}' for one in accounts.TitleState)}",
    )


def _sums(sums: summary.Sums) -> agreement_pb2.MoneySummary:
    shown = agreement_pb2.MoneySummary(currency=sums.currency)
    for name in (
        "placed",
        "charges",
        "open",
        "open_principal",
        "novated",
        "issued",
        "received",
        "waived",
        "written_off",
        "withdrawn",
        "paid_in",
        "reversed",
        "refunded",
        "unidentified",
        "overpaid",
    ):
        getattr(shown, name).CopyFrom(common.money_of(getattr(sums, name), sums.currency))
    return shown
