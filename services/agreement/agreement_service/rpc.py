"""gRPC of the agreement service: proto in, one use case, proto out. No rules, no SQL."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.type import money_pb2

from agreement_service import providers
from agreement_service.domain import accounts, balances, boleto, plans
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import payments as payment_store
from agreement_service.store import placement
from agreement_service.usecases import agreements, moments, payments, summary, titles
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, agreement_service_pb2_grpc
from servicekit import dates, db, errors, idempotency, ids, money, names, pagination, rpc

SERVICES = ["recupera.agreement.v1.AgreementService"]
AGENCY = "agencies/{agency}"
TITLE = "agencies/{agency}/titles/{title}"
AGREEMENT = "agencies/{agency}/agreements/{agreement}"
PAYMENT = "agencies/{agency}/payments/{payment}"
MAX_REASON = 500

M = TypeVar("M", bound=Message)


def add_to(server: grpc.Server, servicer: "AgreementServicer") -> None:
    """Register the servicer."""
    agreement_service_pb2_grpc.add_AgreementServiceServicer_to_server(servicer, server)


class AgreementServicer(agreement_service_pb2_grpc.AgreementServiceServicer):
    """Money: balances, agreements, instruments, payments."""

    def __init__(self, engine: db.Engine, bank: providers.BankProvider) -> None:
        self._engine = engine
        self._bank = bank

    def ListTitles(
        self, request: agreement_service_pb2.ListTitlesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListTitlesResponse:
        """Titles of a case by due date, or of the agency by case."""
        agency = _agency(request.parent, "parent")
        case_id = ids.parse(request.case_id, "case_id") if request.case_id else None
        key = (datetime.date, uuid.UUID) if case_id is not None else (uuid.UUID, uuid.UUID)
        page = pagination.read(request, key=key)
        with db.begin(self._engine, agency=agency) as tx:
            business_date = moments.read(tx, agency).business_date
            rows = placement.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                case_id=case_id,
                after=page.after,
                limit=page.limit,
            )
        by_date = case_id is not None
        kept, token = page.cut(rows, key=lambda row: (row.due_date if by_date else row.case_id, row.id))
        return agreement_service_pb2.ListTitlesResponse(
            titles=[_title(agency, row, business_date) for row in kept], next_page_token=token
        )

    def ExplainBalances(
        self, request: agreement_service_pb2.ExplainBalancesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ExplainBalancesResponse:
        """What cases owe on a date, line by line."""
        agency = _agency(request.parent, "parent")
        case_ids = _case_ids(request.case_ids)
        with db.begin(self._engine, agency=agency) as tx:
            date = _date(request, "date") or moments.read(tx, agency).business_date
            found = titles.explain(
                tx=tx, agency=agency, case_ids=case_ids, date=date, creditor=rpc.caller().creditor
            )
        return agreement_service_pb2.ExplainBalancesResponse(
            balances=[
                agreement_service_pb2.CaseBalance(
                    case_id=str(one.case_id),
                    total=_money(one.total_minor, one.currency),
                    subjects=[_explained(agency, subject, one.currency) for subject in one.subjects],
                )
                for one in found
            ]
        )

    def SimulateAgreement(
        self, request: agreement_service_pb2.SimulateAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.SimulateAgreementResponse:
        """A plan, nothing stored."""
        agency = _agency(request.parent, "parent")
        terms, currencies = _terms(request.terms)
        with db.begin(self._engine, agency=agency) as tx:
            today = moments.read(tx, agency).business_date
            found = agreements.simulate(
                tx=tx,
                agency=agency,
                case_ids=_case_ids(request.case_ids),
                terms=terms,
                currencies=currencies,
                date=_date(request, "date") or today,
                today=today,
            )
        return agreement_service_pb2.SimulateAgreementResponse(
            debt=_money(found.debt_minor, found.currency),
            total=_money(found.total_minor, found.currency),
            plan_interest=_money(found.plan_interest_minor, found.currency),
            rows=[_row(row, found.currency) for row in found.rows],
            balances=[_explained(agency, subject, found.currency) for subject in found.subjects],
        )

    def ProposeAgreement(
        self, request: agreement_service_pb2.ProposeAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """Store a proposal."""
        agency = _agency(request.parent, "parent")
        terms, currencies = _terms(request.terms)

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            agreement_id = agreements.propose(
                tx=tx,
                agency=agency,
                case_ids=_case_ids(request.case_ids),
                terms=terms,
                currencies=currencies,
                validity_days=request.validity_days,
                broken_days=request.broken_days,
                moment=moments.read(tx, agency),
            )
            return _agreement(tx, agency, agreement_id)

        return self._once(agency, request, agreement_pb2.Agreement, run)

    def AcceptAgreement(
        self, request: agreement_service_pb2.AcceptAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """The debtor says yes."""
        agency, agreement_id = _named(AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            agreements.accept(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                version=_version(request.etag),
                moment=moments.read(tx, agency),
                bank=self._bank,
            )
            return _agreement(tx, agency, agreement_id)

        return self._once(agency, request, agreement_pb2.Agreement, run)

    def CancelAgreement(
        self, request: agreement_service_pb2.CancelAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """End a proposal or an agreement in force."""
        agency, agreement_id = _named(AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            agreements.cancel(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                reason=_reason(request.reason),
                version=_version(request.etag),
                moment=moments.read(tx, agency),
                bank=self._bank,
            )
            return _agreement(tx, agency, agreement_id)

        return self._once(agency, request, agreement_pb2.Agreement, run)

    def GetAgreement(
        self, request: agreement_service_pb2.GetAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """One agreement with its instalments and instruments."""
        agency, agreement_id = _named(AGREEMENT, request.name, "agreement")
        with db.begin(self._engine, agency=agency) as tx:
            return _agreement(tx, agency, agreement_id, creditor=rpc.caller().creditor)

    def ListAgreements(
        self, request: agreement_service_pb2.ListAgreementsRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListAgreementsResponse:
        """Agreements in id order."""
        agency = _agency(request.parent, "parent")
        page = pagination.read(request, maximum=500, key=(uuid.UUID,))
        with db.begin(self._engine, agency=agency) as tx:
            records = agreement_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                state=_state(agreement_pb2.Agreement.State.items(), request.state),
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(records, key=lambda record: (record.id,))
            found = _agreements(tx, agency, kept)
        return agreement_service_pb2.ListAgreementsResponse(agreements=found, next_page_token=token)

    def RecordPayment(
        self, request: agreement_service_pb2.RecordPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Enter a payment, once."""
        agency = _agency(request.parent, "parent")
        caller = rpc.caller()
        amount = money.from_proto(request.amount, "amount")
        report = payments.Report(
            creditor_reference=request.creditor_reference,
            account=request.account,
            means=request.means,
            bank_reference=request.bank_reference,
            value_date=dates.from_proto(request.value_date, "value_date"),
            amount_minor=amount.minor,
            currency=amount.currency,
            txid=request.txid,
            our_number=request.our_number,
            title_reference=request.title_reference,
            contract_reference=request.contract_reference,
            caller=caller.subject,
        )

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            entered = payments.enter(
                tx=tx, agency=agency, reports=[report], moment=moments.read(tx, agency), bank=self._bank
            )
            if entered.refused:
                raise entered.refused[0][1]
            return _payment(tx, agency, entered.payments[report.identity])

        return self._once(agency, request, agreement_pb2.Payment, run)

    def MatchPayment(
        self, request: agreement_service_pb2.MatchPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Give an unidentified payment to a case."""
        agency, payment_id = _named(PAYMENT, request.name, "payment")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.match_by_hand(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                case_id=ids.parse(request.case_id, "case_id"),
                version=_version(request.etag),
                moment=moments.read(tx, agency),
                bank=self._bank,
            )
            return _payment(tx, agency, payment_id)

        return self._once(agency, request, agreement_pb2.Payment, run)

    def ReversePayment(
        self, request: agreement_service_pb2.ReversePaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """The money went back."""
        agency, payment_id = _named(PAYMENT, request.name, "payment")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.reverse(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                reason=_reason(request.reason),
                version=_version(request.etag),
                moment=moments.read(tx, agency),
                bank=self._bank,
            )
            return _payment(tx, agency, payment_id)

        return self._once(agency, request, agreement_pb2.Payment, run)

    def GetPayment(
        self, request: agreement_service_pb2.GetPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """One payment with its allocations and sources."""
        agency, payment_id = _named(PAYMENT, request.name, "payment")
        with db.begin(self._engine, agency=agency) as tx:
            return _payment(tx, agency, payment_id, creditor=rpc.caller().creditor)

    def ListPayments(
        self, request: agreement_service_pb2.ListPaymentsRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListPaymentsResponse:
        """Payments in id order."""
        agency = _agency(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self._engine, agency=agency) as tx:
            found = payment_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                state=_state(agreement_pb2.Payment.State.items(), request.state),
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(found, key=lambda payment: (payment.id,))
            shown = _payments(tx, agency, kept)
        return agreement_service_pb2.ListPaymentsResponse(payments=shown, next_page_token=token)

    def SummarizeMoney(
        self, request: agreement_service_pb2.SummarizeMoneyRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.SummarizeMoneyResponse:
        """The money identity."""
        agency = _agency(request.parent, "parent")
        with db.begin(self._engine, agency=agency) as tx:
            business_date = moments.read(tx, agency).business_date
            date = _date(request, "date") or business_date
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
        agency = _agency(request.parent, "parent")
        with db.begin(self._engine, agency=agency) as tx:
            count = titles.roll_back(
                tx=tx,
                agency=agency,
                batch_id=ids.from_bytes(request.batch_id, "batch_id"),
                moment=moments.read(tx, agency),
                bank=self._bank,
            )
        return agreement_service_pb2.RollBackTitlesResponse(titles=count)

    def _once(
        self, agency: uuid.UUID, request: Message, response: type[M], run: Callable[[db.Transaction], M]
    ) -> M:
        with db.begin(self._engine, agency=agency) as tx:
            return idempotency.once(
                tx,
                caller=rpc.caller(),
                method=rpc.method(),
                request=request,
                response=response,
                run=lambda: run(tx),
            )


def _agency(name: str, field: str) -> uuid.UUID:
    return names.parse(AGENCY, name, field)["agency"]


def _named(pattern: str, name: str, kind: str) -> tuple[uuid.UUID, uuid.UUID]:
    found = names.parse(pattern, name)
    return found["agency"], found[kind]


def _case_ids(values: Sequence[str]) -> list[uuid.UUID]:
    if not 1 <= len(values) <= titles.MAX_CASES:
        raise errors.invalid("case_ids", f"expected 1 to {titles.MAX_CASES} cases")
    return [ids.parse(value, f"case_ids[{place}]") for place, value in enumerate(values)]


def _version(etag: str) -> int | None:
    if not etag:
        return None
    if not etag.isascii() or not etag.isdigit() or len(etag) > 18:
        raise errors.invalid("etag", "expected the etag of an earlier answer, unchanged")
    return int(etag)


def _reason(text: str) -> str:
    if len(text) > MAX_REASON or "\0" in text:
        raise errors.invalid("reason", f"expected at most {MAX_REASON} characters")
    return text


def _date(request: Message, field: str) -> datetime.date | None:
    return dates.from_proto(getattr(request, field), field) if request.HasField(field) else None


def _state(states: Sequence[tuple[str, int]], value: int) -> str | None:
    if not value:
        return None
    for name, number in states:
        if number == value:
            return name.removeprefix("STATE_")
    raise errors.invalid("state", "expected a known state")


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


def _money(minor: int, currency: str) -> money_pb2.Money:
    return money.to_proto(money.Money(minor, currency))


def _component(name: str) -> "agreement_pb2.BalanceLine.Component.ValueType":
    return agreement_pb2.BalanceLine.Component.Value(f"COMPONENT_{name}")


def _title(agency: uuid.UUID, row: placement.Listed, business_date: datetime.date) -> agreement_pb2.Title:
    state = accounts.title_state_on(row.state, payable_until=row.payable_until, business_date=business_date)
    return agreement_pb2.Title(
        name=names.format(TITLE, agency=agency, title=row.id),
        case_id=str(row.case_id),
        title_reference=row.reference,
        state=agreement_pb2.Title.State.Value(f"STATE_{state.value}"),
        due_date=dates.to_proto(row.due_date),
        principal=_money(row.principal_minor, row.currency),
        open_principal=_money(row.open_principal_minor, row.currency),
    )


def _explained(
    agency: uuid.UUID, subject: balances.Explained, currency: str
) -> agreement_pb2.ExplainedBalance:
    if subject.title_id is not None:
        name = names.format(TITLE, agency=agency, title=subject.title_id)
    else:
        assert subject.agreement_id is not None
        name = names.format(AGREEMENT, agency=agency, agreement=subject.agreement_id)
    return agreement_pb2.ExplainedBalance(
        subject=name,
        due_date=dates.to_proto(subject.due_date),
        days_past_due=subject.days_past_due,
        total=_money(subject.total_minor, currency),
        lines=[
            agreement_pb2.BalanceLine(
                component=_component(line.component),
                amount=_money(line.amount_minor, currency),
                base=_money(line.base_minor, currency) if line.base_minor else None,
                rate_e4=line.rate_e4,
                days=line.days,
                source=line.source,
            )
            for line in subject.lines
        ],
    )


def _row(row: plans.Row, currency: str) -> agreement_pb2.PlanRow:
    return agreement_pb2.PlanRow(
        number=row.number,
        due_date=dates.to_proto(row.due_date),
        amount=_money(row.amount_minor, currency),
        capital=_money(row.capital_minor, currency),
        interest=_money(row.interest_minor, currency),
        opening_balance=_money(row.opening_minor, currency),
        closing_balance=_money(row.closing_minor, currency),
    )


def _agreement(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> agreement_pb2.Agreement:
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
            name=names.format(AGREEMENT, agency=agency, agreement=record.id),
            state=agreement_pb2.Agreement.State.Value(f"STATE_{record.state.value}"),
            case_ids=[str(case_id) for case_id in record.case_ids],
            debt=_money(record.debt_minor, currency),
            discount=_money(record.discount_minor, currency),
            plan_interest=_money(record.plan_interest_minor, currency),
            total=_money(record.total_minor, currency),
            terms=agreement_pb2.PlanTerms(
                down_payment=_money(record.down_payment_minor, currency),
                instalments=record.instalments,
                first_due_date=dates.to_proto(record.first_due_date),
                annual_rate_e4=record.annual_rate_e4,
                discount=_money(record.discount_minor, currency),
            ),
            instalments=[
                _instalment(one, issued.get(one.instalment_id, []), currency)
                for one in sorted(rows[record.id], key=lambda one: one.number)
            ],
            expire_date=dates.to_proto(record.expire_date),
            broken_days=record.broken_days,
            create_time=dates.to_timestamp(record.created_at),
            etag=str(record.version),
            paid=_money(record.paid_minor, currency),
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
        amount=_money(one.amount_minor, currency),
        capital=_money(one.capital_minor, currency),
        interest=_money(one.interest_minor, currency),
        paid=_money(one.paid_minor, currency),
        instruments=[
            agreement_pb2.Instrument(
                id=str(instrument.id),
                kind=agreement_pb2.Instrument.Kind.Value(f"KIND_{instrument.kind}"),
                state=agreement_pb2.Instrument.State.Value(f"STATE_{instrument.state}"),
                amount=_money(instrument.amount_minor, currency),
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


def _payment(
    tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> agreement_pb2.Payment:
    found = payment_store.find(tx, agency, payment_id, creditor=creditor)
    if found is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    return _payments(tx, agency, [found])[0]


def _payments(
    tx: db.Transaction, agency: uuid.UUID, found: Sequence[payment_store.Payment]
) -> list[agreement_pb2.Payment]:
    keys = [payment.id for payment in found]
    allocated = payment_store.allocations(tx, agency, keys)
    reported = payment_store.sources(tx, agency, keys)
    return [
        agreement_pb2.Payment(
            name=names.format(PAYMENT, agency=agency, payment=payment.id),
            state=agreement_pb2.Payment.State.Value(f"STATE_{payment.state.value}"),
            creditor_reference=payment.creditor_reference,
            account=payment.account,
            means=payment.means,
            bank_reference=payment.bank_reference,
            value_date=dates.to_proto(payment.value_date),
            amount=_money(payment.amount_minor, payment.currency),
            allocated=_money(payment.allocated_minor, payment.currency),
            overpaid=_money(payment.overpaid_minor, payment.currency),
            allocations=[
                agreement_pb2.Allocation(
                    title_id=str(row["title_id"] or ""),
                    instalment_id=str(row["instalment_id"] or ""),
                    component=_component(row["component"]),
                    amount=_money(row["amount_minor"], payment.currency),
                )
                for row in allocated.get(payment.id, ())
            ],
            sources=[
                f"batches/{row['batch_id']}/rows/{row['row']}"
                if row["kind"] == "FILE"
                else f"callers/{row['caller']}"
                for row in reported.get(payment.id, ())
            ],
            create_time=dates.to_timestamp(payment.created_at),
            etag=str(payment.version),
        )
        for payment in found
    ]


def _sums(sums: summary.Sums) -> agreement_pb2.MoneySummary:
    shown = agreement_pb2.MoneySummary(currency=sums.currency)
    for name in (
        "placed",
        "charges",
        "open",
        "open_principal",
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
        getattr(shown, name).CopyFrom(_money(getattr(sums, name), sums.currency))
    return shown
