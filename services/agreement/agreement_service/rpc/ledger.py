"""The ledger: balances and statements read, titles settled without cash, orders of allocation."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc

from agreement_service.domain import accounts, writeoffs
from agreement_service.rpc import common
from agreement_service.usecases import ledger, moments, waterfalls
from agreement_service.usecases import writeoffs as writeoff_cases
from recupera.agreement.v1 import agreement_pb2, ledger_pb2, ledger_service_pb2, ledger_service_pb2_grpc
from servicekit import dates, db, errors, ids, names, pagination, rpc

WATERFALL = "agencies/{agency}/creditors/{creditor}/waterfall"


class LedgerServicer(common.Methods, ledger_service_pb2_grpc.LedgerServiceServicer):
    """Waterfalls, trial balance, statements, write-offs."""

    def GetWaterfall(
        self, request: ledger_service_pb2.GetWaterfallRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.Waterfall:
        """A creditor's orders of allocation, or the law's."""
        agency, creditor_id = common.named(WATERFALL, request.name, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            return _waterfall(tx, agency, creditor_id)

    def UpdateWaterfall(
        self, request: ledger_service_pb2.UpdateWaterfallRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.Waterfall:
        """Set the order from a day on."""
        agency, creditor_id = common.named(WATERFALL, request.name, "creditor")
        valid_from = dates.from_proto(request.valid_from, "valid_from")
        order = _order(request.components)
        version = common.version_of(request.etag)

        def run(tx: db.Transaction) -> ledger_pb2.Waterfall:
            waterfalls.update(
                tx=tx,
                agency=agency,
                creditor_id=creditor_id,
                order=order,
                valid_from=valid_from,
                version=version,
                set_by=common.subject(),
                moment=moments.read(tx, agency),
            )
            return _waterfall(tx, agency, creditor_id)

        return self.once(agency, request, ledger_pb2.Waterfall, run)

    def GetTrialBalance(
        self, request: ledger_service_pb2.GetTrialBalanceRequest, context: grpc.ServicerContext
    ) -> ledger_service_pb2.GetTrialBalanceResponse:
        """Every account with debit, credit and balance."""
        agency = common.agency_of(request.parent, "parent")
        asked = _id(request.creditor_id, "creditor_id")
        with db.begin(self.engine, agency=agency) as tx:
            found = ledger.trial_balance(
                tx=tx,
                agency=agency,
                creditor_id=rpc.caller().creditor or asked,
                case_id=_id(request.case_id, "case_id"),
                date=common.date_of(request, "date"),
            )
        return ledger_service_pb2.GetTrialBalanceResponse(
            accounts=[
                ledger_pb2.AccountBalance(
                    account=one.account,
                    currency=one.currency,
                    debit=common.money_of(one.debit_minor, one.currency),
                    credit=common.money_of(one.credit_minor, one.currency),
                    balance=common.money_of(one.balance_minor, one.currency),
                )
                for one in found
            ]
        )

    def ListPostings(
        self, request: ledger_service_pb2.ListPostingsRequest, context: grpc.ServicerContext
    ) -> ledger_service_pb2.ListPostingsResponse:
        """Postings in their order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(int,))
        with db.begin(self.engine, agency=agency) as tx:
            found = ledger.postings(
                tx=tx,
                agency=agency,
                creditor_id=rpc.caller().creditor,
                case_id=_id(request.case_id, "case_id"),
                title_id=_id(request.title_id, "title_id"),
                payment_id=_id(request.payment_id, "payment_id"),
                after=page.after[0] if page.after else 0,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda row: (row.id,))
        return ledger_service_pb2.ListPostingsResponse(
            postings=[
                ledger_pb2.Posting(
                    number=row.id,
                    kind=row.kind,
                    component=row.component,
                    amount=common.money_of(row.amount_minor, row.currency),
                    debit=row.debit,
                    credit=row.credit,
                    business_date=dates.to_proto(row.business_date),
                    value_date=dates.to_proto(row.value_date),
                    **{
                        name: str(getattr(row, name) or "")
                        for name in ("case_id", "title_id", "instalment_id", "payment_id", "agreement_id")
                    },
                )
                for row in kept
            ],
            next_page_token=token,
        )

    def WriteOffTitles(
        self, request: ledger_service_pb2.WriteOffTitlesRequest, context: grpc.ServicerContext
    ) -> ledger_service_pb2.WriteOffTitlesResponse:
        """Settle titles of a case without cash."""
        agency = common.agency_of(request.parent, "parent")
        case_id = ids.parse(request.case_id, "case_id")
        title_ids = _title_ids(request.title_ids)
        type_ = _type(request.type)

        def run(tx: db.Transaction) -> ledger_service_pb2.WriteOffTitlesResponse:
            amount, currency = writeoff_cases.write_off(
                tx=tx,
                agency=agency,
                case_id=case_id,
                title_ids=title_ids,
                type_=type_,
                reason=common.reason(request.reason),
                by=common.subject(),
                authority=common.authority(),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return ledger_service_pb2.WriteOffTitlesResponse(amount=common.money_of(amount, currency))

        return self.once(agency, request, ledger_service_pb2.WriteOffTitlesResponse, run)

    def UndoWriteOff(
        self, request: ledger_service_pb2.UndoWriteOffRequest, context: grpc.ServicerContext
    ) -> ledger_service_pb2.UndoWriteOffResponse:
        """Titles owe again what was written off."""
        agency = common.agency_of(request.parent, "parent")
        case_id = ids.parse(request.case_id, "case_id")
        title_ids = _title_ids(request.title_ids)

        def run(tx: db.Transaction) -> ledger_service_pb2.UndoWriteOffResponse:
            amount, currency = writeoff_cases.undo(
                tx=tx,
                agency=agency,
                case_id=case_id,
                title_ids=title_ids,
                reason=common.reason(request.reason),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return ledger_service_pb2.UndoWriteOffResponse(amount=common.money_of(amount, currency))

        return self.once(agency, request, ledger_service_pb2.UndoWriteOffResponse, run)


def _waterfall(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> ledger_pb2.Waterfall:
    found = waterfalls.find(tx=tx, agency=agency, creditor_id=creditor_id)
    today = moments.read(tx, agency).business_date
    return ledger_pb2.Waterfall(
        name=names.format(WATERFALL, agency=agency, creditor=creditor_id),
        orders=[
            ledger_pb2.Waterfall.Order(
                valid_from=dates.to_proto(since), components=[common.component(one) for one in order]
            )
            for since, order in found.dated
        ],
        components=[common.component(one) for one in found.on(today)],
        etag=str(len(found.dated)),
    )


def _order(values: Sequence[int]) -> list[accounts.Component]:
    known = {common.component(one): one for one in accounts.WATERFALL}
    unknown = [place for place, value in enumerate(values) if value not in known]
    if unknown:
        raise errors.invalid(f"components[{unknown[0]}]", "expected a component of a title")
    return [known[agreement_pb2.BalanceLine.Component.ValueType(value)] for value in values]


def _type(value: int) -> writeoffs.WriteOffType:
    for name, number in ledger_pb2.WriteOffType.items():
        if value and number == value:
            return writeoffs.WriteOffType(name.removeprefix("WRITE_OFF_TYPE_"))
    raise errors.invalid("type", f"expected one of {', '.join(writeoffs.WriteOffType)}")


def _title_ids(values: Sequence[str]) -> list[uuid.UUID]:
    if len(values) > writeoffs.MAX_TITLES:
        raise errors.invalid("title_ids", f"expected at most {writeoffs.MAX_TITLES} titles")
    return [ids.parse(value, f"title_ids[{place}]") for place, value in enumerate(values)]


def _id(text: str, field: str) -> uuid.UUID | None:
    return ids.parse(text, field) if text else None
