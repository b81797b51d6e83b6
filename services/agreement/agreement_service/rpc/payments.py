"""Payments: entered, matched, reversed, read."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc

from agreement_service.rpc import common
from agreement_service.store import payments as payment_store
from agreement_service.usecases import moments, payments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, money, names, pagination, rpc


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
        )

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            entered = payments.enter(
                tx=tx, agency=agency, reports=[report], moment=moments.read(tx, agency), bank=self.bank
            )
            if entered.refused:
                raise entered.refused[0][1]
            return _payment(tx, agency, entered.payments[report.identity])

        return self.once(agency, request, agreement_pb2.Payment, run)

    def MatchPayment(
        self, request: agreement_service_pb2.MatchPaymentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Payment:
        """Give an unidentified payment to a case."""
        agency, payment_id = common.named(common.PAYMENT, request.name, "payment")

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.match_by_hand(
                tx=tx,
                agency=agency,
                payment_id=payment_id,
                target=payments.Target(case_id=ids.parse(request.case_id, "case_id")),
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

        def run(tx: db.Transaction) -> agreement_pb2.Payment:
            payments.reverse(
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
        with db.begin(self.engine, agency=agency) as tx:
            found = payment_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(found, key=lambda payment: (payment.id,))
            shown = _payments(tx, agency, kept)
        return agreement_service_pb2.ListPaymentsResponse(payments=shown, next_page_token=token)


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
            name=names.format(common.PAYMENT, agency=agency, payment=payment.id),
            state=agreement_pb2.Payment.State.Value(f"STATE_{payment.state.value}"),
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
        )
        for payment in found
    ]
