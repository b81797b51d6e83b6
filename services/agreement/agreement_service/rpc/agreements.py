"""Agreements: simulated, proposed, read."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid
from collections.abc import Sequence

import grpc
from google.protobuf.message import Message

from agreement_service.domain import accounts, plans
from agreement_service.rpc import common, conditions, instruments, natures, negotiations
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import instruments as instrument_store
from agreement_service.usecases import agreements, drafts, moments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, names, pagination, rpc


class Agreements(common.Methods):
    """Agreements: simulated, proposed, read."""

    def SimulateAgreement(
        self, request: agreement_service_pb2.SimulateAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.SimulateAgreementResponse:
        """A plan, nothing stored."""
        agency = common.agency_of(request.parent, "parent")
        with db.begin(self.engine, agency=agency) as tx:
            today = moments.read(tx, agency).business_date
            return negotiations.simulation(
                agency,
                negotiations.simulate(
                    tx, agency, request, date=common.date_of(request, "date") or today, today=today
                ),
            )

    def ProposeAgreement(
        self, request: agreement_service_pb2.ProposeAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """Store a proposal."""
        agency = common.agency_of(request.parent, "parent")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            moment = moments.read(tx, agency)
            source, expire_date = _source(tx, agency, request, today=moment.business_date)
            nature = natures.nature(request.nature)
            agreement_id = agreements.propose(
                tx=tx,
                agency=agency,
                negotiation=conditions.negotiation(tx, agency, request, moment)
                if request.condition
                else negotiations.negotiation(natures.with_terms(source, nature)),
                authority=common.authority(),
                validity_days=request.validity_days,
                broken_days=request.broken_days,
                moment=moment,
                expire_date=expire_date,
                note=request.note,
                settlement_type=request.settlement_type,
                nature=nature,
            )
            conditions.mark(tx, agency, request, agreement_id)
            return agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def RecalculateProposal(
        self, request: agreement_service_pb2.RecalculateProposalRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """An expired proposal again."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")
        terms, currencies = (
            negotiations.terms(request.terms) if request.HasField("terms") else (None, frozenset[str]())
        )

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            new_id = agreements.recalculate(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                terms=terms,
                currencies=currencies,
                validity_days=request.validity_days,
                version=common.version_of(request.etag),
                authority=common.authority(),
                moment=moments.read(tx, agency),
            )
            conditions.carry(tx, agency, agreement_id, new_id)
            return agreement(tx, agency, new_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def GetAgreement(
        self, request: agreement_service_pb2.GetAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """One agreement with its instalments and instruments."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")
        with db.begin(self.engine, agency=agency) as tx:
            return agreement(tx, agency, agreement_id, creditor=rpc.caller().creditor)

    def ListAgreements(
        self, request: agreement_service_pb2.ListAgreementsRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListAgreementsResponse:
        """Agreements in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, maximum=500, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            records = agreement_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                state=common.state_of(agreement_pb2.Agreement.State.items(), request.state),
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                expire_from=common.date_of(request, "expire_from"),
                expire_to=common.date_of(request, "expire_to"),
                due_from=common.date_of(request, "due_from"),
                due_to=common.date_of(request, "due_to"),
                past_tolerance=moments.read(tx, agency).business_date if request.past_tolerance else None,
                kind=natures.kind_of(request.kind).value if request.kind else None,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(records, key=lambda record: (record.id,))
            found = _agreements(tx, agency, kept)
        return agreement_service_pb2.ListAgreementsResponse(agreements=found, next_page_token=token)


def _source(
    tx: db.Transaction,
    agency: uuid.UUID,
    request: agreement_service_pb2.ProposeAgreementRequest,
    *,
    today: datetime.date,
) -> tuple[negotiations.Asked, datetime.date | None]:
    """What is proposed, and a draft's last day: the request itself, or the draft it names, which is gone then."""
    if not request.draft:
        return request, None
    for field in (
        "case_ids",
        "terms",
        "title_ids",
        "other_parties",
        "include_not_due",
        "title_charges",
        "use_credits",
    ):
        if _is_set(request, field):
            raise errors.invalid(field, "expected none beside a draft")
    draft_agency, draft_id = common.named(common.DRAFT, request.draft, "draft")
    if draft_agency != agency:
        raise errors.invalid("draft", "expected a draft of the same agency")
    version = common.version_of(request.draft_etag, "draft_etag")
    if version is None:
        raise errors.invalid("draft_etag", "expected the etag of the draft as it was read")
    taken = drafts.take(tx=tx, agency=agency, draft_id=draft_id, version=version, business_date=today)
    return agreement_service_pb2.SimulateAgreementRequest.FromString(taken.request), taken.expire_date


def _is_set(request: Message, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in request.ListFields())


def agreement(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> agreement_pb2.Agreement:
    """One agreement as it is answered. Raises ResourceNotFound."""
    records = agreement_store.get(tx, agency, [agreement_id], creditor=creditor)
    if not records:
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    return _agreements(tx, agency, list(records.values()))[0]


def _agreements(
    tx: db.Transaction, agency: uuid.UUID, records: Sequence[agreement_store.Record]
) -> list[agreement_pb2.Agreement]:
    if not records:
        return []
    rows = account_store.instalments(tx, agency, [record.id for record in records])
    ids_of = [record.id for record in records]
    agreed = account_store.agreed(tx, agency, ids_of) | account_store.agreed(tx, agency, ids_of, novated=True)
    beside = natures.Beside(tx, agency, ids_of)
    issued = instrument_store.of_instalments(
        tx, agency, [one.instalment_id for owned in rows.values() for one in owned]
    )
    origins = conditions.origins(tx, agency, [record.id for record in records])
    found = []
    for record in records:
        currency = record.currency
        shown = agreement_pb2.Agreement(
            name=names.format(common.AGREEMENT, agency=agency, agreement=record.id),
            state=agreement_pb2.Agreement.State.Value(f"STATE_{record.state.value}"),
            case_ids=[str(case_id) for case_id in record.case_ids],
            debt=common.money_of(record.debt_minor, currency),
            discount=common.money_of(record.discount_minor, currency),
            plan_interest=common.money_of(record.plan_interest_minor, currency),
            total=common.money_of(record.total_minor, currency),
            terms=negotiations.shown_terms(record.terms, currency),
            instalments=[
                _instalment(one, issued.get(one.instalment_id, []), record, agency)
                for one in sorted(rows[record.id], key=lambda one: one.number)
            ],
            expire_date=dates.to_proto(record.expire_date),
            broken_days=record.broken_days,
            create_time=dates.to_timestamp(record.created_at),
            etag=str(record.version),
            paid=common.money_of(record.paid_minor, currency),
            added=common.money_of(record.added_minor, currency),
            forgiven_e4=plans.forgiven_e4(debt_minor=record.debt_minor, agreed_minor=record.total_minor),
            titles=[negotiations.shown_title(agency, item, currency) for item in agreed[record.id]],
            note=record.note,
            settlement_type=record.settlement_type,
            use_credits=record.use_credits,
            propose_date=dates.to_proto(record.propose_date),
        )
        beside.show(shown, record, rows[record.id])
        if record.accept_date is not None:
            shown.accept_date.CopyFrom(dates.to_proto(record.accept_date))
        if record.end_date is not None:
            shown.end_date.CopyFrom(dates.to_proto(record.end_date))
        if record.id in origins:
            shown.MergeFrom(origins[record.id])
        found.append(shown)
    return found


def _instalment(
    one: accounts.Instalment,
    issued: Sequence[instrument_store.Instrument],
    record: agreement_store.Record,
    agency: uuid.UUID,
) -> agreement_pb2.Instalment:
    currency = record.currency
    return agreement_pb2.Instalment(
        id=str(one.instalment_id),
        number=one.number,
        state=agreement_pb2.Instalment.State.Value(f"STATE_{one.state.value}"),
        due_date=dates.to_proto(one.due_date),
        amount=common.money_of(one.amount_minor, currency),
        capital=common.money_of(one.capital_minor, currency),
        interest=common.money_of(one.interest_minor, currency),
        paid=common.money_of(one.paid_minor, currency),
        cheque_number=negotiations.cheque_number(one.number, record.terms),
        instruments=[instruments.shown(agency, instrument) for instrument in issued],
    )
