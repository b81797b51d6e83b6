"""Agreements: simulated, proposed, read."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc

from agreement_service.domain import accounts, boleto, plans
from agreement_service.rpc import common
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import instruments as instrument_store
from agreement_service.usecases import agreements, moments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, money, names, pagination, rpc


class Agreements(common.Methods):
    """Agreements: simulated, proposed, read."""

    def SimulateAgreement(
        self, request: agreement_service_pb2.SimulateAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.SimulateAgreementResponse:
        """A plan, nothing stored."""
        agency = common.agency_of(request.parent, "parent")
        terms, currencies = _terms(request.terms)
        with db.begin(self.engine, agency=agency) as tx:
            today = moments.read(tx, agency).business_date
            found = agreements.simulate(
                tx=tx,
                agency=agency,
                case_ids=common.case_ids(request.case_ids),
                terms=terms,
                currencies=currencies,
                date=common.date_of(request, "date") or today,
                today=today,
            )
        return agreement_service_pb2.SimulateAgreementResponse(
            debt=common.money_of(found.debt_minor, found.currency),
            total=common.money_of(found.total_minor, found.currency),
            plan_interest=common.money_of(found.plan_interest_minor, found.currency),
            rows=[_row(row, found.currency) for row in found.rows],
            balances=[common.explained(agency, subject, found.currency) for subject in found.subjects],
        )

    def ProposeAgreement(
        self, request: agreement_service_pb2.ProposeAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """Store a proposal."""
        agency = common.agency_of(request.parent, "parent")
        terms, currencies = _terms(request.terms)

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            agreement_id = agreements.propose(
                tx=tx,
                agency=agency,
                case_ids=common.case_ids(request.case_ids),
                terms=terms,
                currencies=currencies,
                validity_days=request.validity_days,
                broken_days=request.broken_days,
                moment=moments.read(tx, agency),
            )
            return agreement(tx, agency, agreement_id)

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
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(records, key=lambda record: (record.id,))
            found = _agreements(tx, agency, kept)
        return agreement_service_pb2.ListAgreementsResponse(agreements=found, next_page_token=token)


def _terms(message: agreement_pb2.PlanTerms) -> tuple[plans.Terms, frozenset[str]]:
    currencies = set()
    amounts = {}
    for field in ("down_payment", "discount"):
        amounts[field] = 0
        if message.HasField(field):
            amount = money.from_proto(getattr(message, field), f"terms.{field}")
            amounts[field] = amount.minor
            currencies.add(amount.currency)
    if not message.HasField("first_due_date"):
        raise errors.invalid("terms.first_due_date", "expected a date")
    terms = plans.Terms(
        instalments=message.instalments,
        first_due_date=dates.from_proto(message.first_due_date, "terms.first_due_date"),
        annual_rate_e4=message.annual_rate_e4,
        down_payment_minor=amounts["down_payment"],
        down_payment_date=dates.from_proto(message.down_payment_date, "terms.down_payment_date")
        if message.HasField("down_payment_date")
        else None,
        discount_minor=amounts["discount"],
    )
    return terms, frozenset(currencies)


def _row(row: plans.Row, currency: str) -> agreement_pb2.PlanRow:
    return agreement_pb2.PlanRow(
        number=row.number,
        due_date=dates.to_proto(row.due_date),
        amount=common.money_of(row.amount_minor, currency),
        capital=common.money_of(row.capital_minor, currency),
        interest=common.money_of(row.interest_minor, currency),
        opening_balance=common.money_of(row.opening_minor, currency),
        closing_balance=common.money_of(row.closing_minor, currency),
    )


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
    issued = instrument_store.of_instalments(
        tx, agency, [one.instalment_id for owned in rows.values() for one in owned]
    )
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
            terms=agreement_pb2.PlanTerms(
                down_payment=common.money_of(record.down_payment_minor, currency),
                instalments=record.instalments,
                first_due_date=dates.to_proto(record.first_due_date),
                annual_rate_e4=record.annual_rate_e4,
                discount=common.money_of(record.discount_minor, currency),
            ),
            instalments=[
                _instalment(one, issued.get(one.instalment_id, []), currency)
                for one in sorted(rows[record.id], key=lambda one: one.number)
            ],
            expire_date=dates.to_proto(record.expire_date),
            broken_days=record.broken_days,
            create_time=dates.to_timestamp(record.created_at),
            etag=str(record.version),
            paid=common.money_of(record.paid_minor, currency),
        )
        if record.down_payment_date is not None:
            shown.terms.down_payment_date.CopyFrom(dates.to_proto(record.down_payment_date))
        if record.accept_date is not None:
            shown.accept_date.CopyFrom(dates.to_proto(record.accept_date))
        if record.end_date is not None:
            shown.end_date.CopyFrom(dates.to_proto(record.end_date))
        found.append(shown)
    return found


def _instalment(
    one: accounts.Instalment, issued: Sequence[instrument_store.Instrument], currency: str
) -> agreement_pb2.Instalment:
    return agreement_pb2.Instalment(
        id=str(one.instalment_id),
        number=one.number,
        state=agreement_pb2.Instalment.State.Value(f"STATE_{one.state.value}"),
        due_date=dates.to_proto(one.due_date),
        amount=common.money_of(one.amount_minor, currency),
        capital=common.money_of(one.capital_minor, currency),
        interest=common.money_of(one.interest_minor, currency),
        paid=common.money_of(one.paid_minor, currency),
        instruments=[
            agreement_pb2.Instrument(
                id=str(instrument.id),
                kind=agreement_pb2.Instrument.Kind.Value(f"KIND_{instrument.kind}"),
                state=agreement_pb2.Instrument.State.Value(f"STATE_{instrument.state}"),
                amount=common.money_of(instrument.amount_minor, currency),
                due_date=dates.to_proto(instrument.due_date),
                barcode=instrument.barcode,
                typeable_line=boleto.typeable_line(instrument.barcode) if instrument.barcode else "",
                our_number=instrument.our_number,
                br_code=instrument.br_code,
                txid=instrument.txid,
            )
            for instrument in issued
        ],
    )
