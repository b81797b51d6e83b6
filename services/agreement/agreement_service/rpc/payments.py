"""Payments: entered, matched, reversed, read."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc

from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.rpc import common
from agreement_service.store import credits as credit_store
from agreement_service.store import payments as payment_store
from agreement_service.store import remittance as remittance_store
from agreement_service.usecases import credits, moments, payments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import blobs, dates, db, errors, ids, money, names, pagination, rpc


class Payments(common.Methods):
    """Payments: entered, matched, reversed, read."""

    def RecordPayment(
        self, request: agreement_service_pb2.RecordPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Enter a payment, once."""
        agency = common.agency_of(request.parent, "parent")
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
            unconfirmed=request.unconfirmed,
            case_id=_id(request.case_id, "case_id"),
            chosen=_chosen(request.allocations, amount.currency),
        )

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payment_id = payments.record(
                tx=tx, agency=agency, report=report, moment=moments.read(tx, agency), bank=self.bank
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def MatchPayment(
        self, request: agreement_service_pb2.MatchPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Give an unidentified payment to a case."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        target = payments.Target(
            case_id=_id(request.case_id, "case_id"),
            title_id=_id(request.title_id, "title_id"),
            chosen=_chosen(request.allocations, None),
            instalment_id=_id(request.instalment_id, "instalment_id"),
            title_reference=request.title_reference,
            contract_reference=request.contract_reference,
        )

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.match_by_hand(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                target=target,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def ReversePayment(
        self, request: agreement_service_pb2.ReversePaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """The money went back."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        kind = rules.ReversalKind(_reversal_kind(request.kind) or rules.ReversalKind.OTHER)

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.reverse(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
                kind=kind,
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def ReportPayment(
        self, request: agreement_service_pb2.ReportPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """A debtor says that he paid."""
        agency = common.agency_of(request.parent, "parent")
        amount = money.from_proto(request.amount, "amount")
        case_id = ids.parse(request.case_id, "case_id")
        value_date = dates.from_proto(request.value_date, "value_date")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payment_id = payments.report_proof(
                tx=tx,
                agency=agency,
                case_id=case_id,
                account=request.account,
                means=request.means,
                bank_reference=request.bank_reference,
                value_date=value_date,
                amount_minor=amount.minor,
                currency=amount.currency,
                caller=common.subject(),
                proof=request.proof,
                proof_type=request.proof_type,
                moment=moments.read(tx, agency),
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def GetPaymentProof(
        self, request: agreement_service_pb2.GetPaymentProofRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.GetPaymentProofResponse:
        """The proof that was uploaded with a payment."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        with db.begin(self.engine, agency=agency) as tx:
            content_type, blob_id = payments.proof_of(tx=tx, agency=agency, payment_id=payment_id)
        return agreement_service_pb2.GetPaymentProofResponse(
            content=b"".join(blobs.read(self.engine, blob_id)), content_type=content_type
        )

    def ConfirmPayment(
        self, request: agreement_service_pb2.ConfirmPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """The money is there."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        amount = money.from_proto(request.amount, "amount") if request.HasField("amount") else None

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.confirm(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                account=request.account,
                means=request.means,
                bank_reference=request.bank_reference,
                value_date=common.date_of(request, "value_date"),
                amount=(amount.minor, amount.currency) if amount is not None else None,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def AnnulPayment(
        self, request: agreement_service_pb2.AnnulPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Entered by mistake."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.annul(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def UnmatchPayment(
        self, request: agreement_service_pb2.UnmatchPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Matched by mistake."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.unmatch(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def RefundPayment(
        self, request: agreement_service_pb2.RefundPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Overpaid money was given back."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        amount = money.from_proto(request.amount, "amount")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            credits.refund(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                amount_minor=amount.minor,
                currency=amount.currency,
                reason=common.reason(request.reason),
                by=common.subject(),
                version=common.version_of(request.etag),
                authority=common.authority(),
                moment=moments.read(tx, agency),
            )
            return _payment(tx, agency, payment_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def ApplyCredit(
        self, request: agreement_service_pb2.ApplyCreditRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Overpaid money is used for other titles of the debtor."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        case_id = ids.parse(request.case_id, "case_id")
        amount = money.from_proto(request.amount, "amount") if request.HasField("amount") else None

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            credit_id = credits.apply_credit(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                case_id=case_id,
                chosen=_chosen(request.allocations, amount.currency if amount is not None else None),
                amount=(amount.minor, amount.currency) if amount is not None else None,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _payment(tx, agency, credit_id)

        return self.once(agency, request, agreement_pb2.Payment, run)

    def GetPayment(
        self, request: agreement_service_pb2.GetPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """One payment with its allocations and sources."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")
        with db.begin(self.engine, agency=agency) as tx:
            return _payment(tx, agency, payment_id, creditor=rpc.caller().creditor)

    def ListPayments(
        self, request: agreement_service_pb2.ListPaymentsRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListPaymentsResponse:
        """Payments in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        states = [
            common.state_of(agreement_pb2.Payment.State.items(), value)
            for value in (request.state, *request.states)
        ]
        if "REMITTED" in states:
            raise errors.invalid("state", "remitted payments are listed as STATE_ALLOCATED")
        only = payment_store.Filter(
            states=[state for state in states if state is not None],
            reverse_kind=_reversal_kind(request.reversal_kind),
            case_id=_id(request.case_id, "case_id"),
            creditor_reference=request.creditor_reference or None,
            since=common.date_of(request, "from_date"),
            until=common.date_of(request, "to_date"),
        )
        with db.begin(self.engine, agency=agency) as tx:
            found = payment_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                only=only,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(found, key=lambda payment: (payment.id,))
            shown = _payments(tx, agency, kept)
        return agreement_service_pb2.ListPaymentsResponse(payments=shown, next_page_token=token)


def _id(text: str, field: str) -> uuid.UUID | None:
    return ids.parse(text, field) if text else None


def _chosen(shares: Sequence[agreement_pb2.TitleShare], currency: str | None) -> payments.Chosen:
    chosen = []
    for place, share in enumerate(shares):
        amount = money.from_proto(share.amount, f"allocations[{place}].amount")
        if currency is not None and amount.currency != currency:
            raise errors.invalid(f"allocations[{place}].amount", f"expected {currency}")
        chosen.append((ids.parse(share.title_id, f"allocations[{place}].title_id"), amount.minor))
    return tuple(chosen)


def _reversal_kind(value: int) -> str | None:
    if not value:
        return None
    for name, number in agreement_pb2.Payment.ReversalKind.items():
        if number == value:
            return name.removeprefix("REVERSAL_KIND_")
    raise errors.invalid("kind", "expected a known kind of reversal")


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
    refunded = credit_store.refunds(tx, agency, [one.id for one in found if one.refunded_minor])
    paid_over = remittance_store.remitted(
        tx, agency, [one.id for one in found if one.state is accounts.PaymentState.ALLOCATED]
    )
    return [
        agreement_pb2.Payment(
            name=names.format(common.PAYMENT, agency=agency, payment=payment.id),
            state=agreement_pb2.Payment.STATE_REMITTED
            if payment.id in paid_over
            else agreement_pb2.Payment.State.Value(f"STATE_{payment.state.value}"),
            creditor_reference=payment.creditor_reference,
            account=payment.account,
            means=payment.means,
            bank_reference=payment.bank_reference,
            value_date=dates.to_proto(payment.value_date),
            amount=common.money_of(payment.amount_minor, payment.currency),
            allocated=common.money_of(payment.allocated_minor, payment.currency),
            overpaid=common.money_of(payment.overpaid_minor, payment.currency),
            allocations=[
                agreement_pb2.Allocation(
                    title_id=str(row["title_id"] or ""),
                    instalment_id=str(row["instalment_id"] or ""),
                    component=common.component(row["component"]),
                    amount=common.money_of(row["amount_minor"], payment.currency),
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
            refunded=common.money_of(payment.refunded_minor, payment.currency),
            credited=common.money_of(payment.credited_minor, payment.currency),
            case_id=str(payment.case_id or ""),
            title_id=str(payment.title_id or ""),
            reversal_kind=agreement_pb2.Payment.ReversalKind.Value(
                f"REVERSAL_KIND_{payment.reverse_kind or 'UNSPECIFIED'}"
            ),
            reverse_date=dates.to_proto(payment.reverse_date) if payment.reverse_date else None,
            reverse_reason=payment.reverse_reason,
            refunds=[
                agreement_pb2.Refund(
                    amount=common.money_of(row["amount_minor"], payment.currency),
                    date=dates.to_proto(row["refund_date"]),
                    reason=row["reason"],
                    refunded_by=row["refunded_by"],
                )
                for row in refunded.get(payment.id, ())
            ],
            origin_payment=names.format(common.PAYMENT, agency=agency, payment=payment.origin_payment_id)
            if payment.origin_payment_id
            else "",
            chosen=[
                agreement_pb2.TitleShare(
                    title_id=str(title_id), amount=common.money_of(minor, payment.currency)
                )
                for title_id, minor in payment.chosen
            ],
            has_proof=payment.proof_blob_id is not None,
        )
        for payment in found
    ]
