"""Accounting to creditors: commission contracts, statements, their files."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid
from collections.abc import Iterator

import grpc
from google.api import httpbody_pb2

from agreement_service.domain import remittance
from agreement_service.rpc import common
from agreement_service.store import remittance as store
from agreement_service.usecases import moments, statement_files
from agreement_service.usecases import remittance as cases
from recupera.agreement.v1 import (
    remittance_pb2,
    remittance_service_pb2,
    remittance_service_pb2_grpc,
)
from servicekit import dates, db, errors, ids, money, names, pagination, rpc

CONTRACT = "agencies/{agency}/commissionContracts/{contract}"
STATEMENT = "agencies/{agency}/statements/{statement}"
MAX_CLOSED = 100
EXPORT_PAGE = 5_000
"""Lines read at once for a file."""
_TYPES = {
    "CSV": "text/csv; charset=utf-8",
    "XLSX": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "PDF": "application/pdf",
}
_SETTLEMENTS, _FEES = 0, 1
"""Parts of a statement's lines, in the order in which they are listed."""
_ZERO = uuid.UUID(int=0)


class RemittanceServicer(common.Methods, remittance_service_pb2_grpc.RemittanceServiceServicer):
    """Accounting to creditors: commission contracts, statements, their files."""

    def CreateCommissionContract(
        self, request: remittance_service_pb2.CreateCommissionContractRequest, context: grpc.ServicerContext
    ) -> remittance_pb2.CommissionContract:
        """Add a contract."""
        agency = common.agency_of(request.parent, "parent")
        contract = _contract_of(request.contract)
        by = common.subject()

        def run(tx: db.Transaction) -> remittance_pb2.CommissionContract:
            made = cases.add_contract(
                tx=tx,
                agency=agency,
                creditor_reference=request.contract.creditor_reference,
                contract=contract,
                by=by,
                moment=moments.read(tx, agency),
            )
            return _contract(agency, made)

        return self.once(agency, request, remittance_pb2.CommissionContract, run)

    def ListCommissionContracts(
        self, request: remittance_service_pb2.ListCommissionContractsRequest, context: grpc.ServicerContext
    ) -> remittance_service_pb2.ListCommissionContractsResponse:
        """Contracts in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = store.contract_page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                reference=request.creditor_reference,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda one: (one.contract.contract_id,))
        return remittance_service_pb2.ListCommissionContractsResponse(
            contracts=[_contract(agency, one) for one in kept], next_page_token=token
        )

    def CloseStatement(
        self, request: remittance_service_pb2.CloseStatementRequest, context: grpc.ServicerContext
    ) -> remittance_service_pb2.CloseStatementResponse:
        """Count a creditor's period."""
        agency = common.agency_of(request.parent, "parent")
        period_end = common.date_of(request, "period_end")
        currency = _currency(request.currency, "currency")
        by = common.subject()

        def run(tx: db.Transaction) -> remittance_service_pb2.CloseStatementResponse:
            closed = cases.close(
                tx=tx,
                agency=agency,
                creditor_reference=request.creditor_reference,
                currency=currency,
                period_end=period_end,
                by=by,
                moment=moments.read(tx, agency),
            )
            shown = store.by_ids(tx, agency, closed[:MAX_CLOSED])
            return remittance_service_pb2.CloseStatementResponse(
                statements=[_statement(agency, one) for one in shown], closed=len(closed)
            )

        return self.once(agency, request, remittance_service_pb2.CloseStatementResponse, run)

    def ApproveStatement(
        self, request: remittance_service_pb2.ApproveStatementRequest, context: grpc.ServicerContext
    ) -> remittance_pb2.Statement:
        """A second person agrees."""
        agency, statement_id = common.named(STATEMENT, request.name, "statement")
        by = common.subject()

        def run(tx: db.Transaction) -> remittance_pb2.Statement:
            cases.approve(
                tx=tx,
                agency=agency,
                statement_id=statement_id,
                version=common.version_of(request.etag),
                by=by,
                moment=moments.read(tx, agency),
            )
            return _read(tx, agency, statement_id)

        return self.once(agency, request, remittance_pb2.Statement, run)

    def MarkStatementPaid(
        self, request: remittance_service_pb2.MarkStatementPaidRequest, context: grpc.ServicerContext
    ) -> remittance_pb2.Statement:
        """The money went to the creditor."""
        agency, statement_id = common.named(STATEMENT, request.name, "statement")
        date = common.date_of(request, "pay_date")

        def run(tx: db.Transaction) -> remittance_pb2.Statement:
            cases.mark_paid(
                tx=tx,
                agency=agency,
                statement_id=statement_id,
                bank_reference=request.bank_reference,
                date=date,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
            )
            return _read(tx, agency, statement_id)

        return self.once(agency, request, remittance_pb2.Statement, run)

    def GetStatement(
        self, request: remittance_service_pb2.GetStatementRequest, context: grpc.ServicerContext
    ) -> remittance_pb2.Statement:
        """One statement."""
        agency, statement_id = common.named(STATEMENT, request.name, "statement")
        with db.begin(self.engine, agency=agency) as tx:
            return _read(tx, agency, statement_id, creditor=rpc.caller().creditor)

    def ListStatements(
        self, request: remittance_service_pb2.ListStatementsRequest, context: grpc.ServicerContext
    ) -> remittance_service_pb2.ListStatementsResponse:
        """Statements in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                reference=request.creditor_reference,
                state=common.state_of(remittance_pb2.Statement.State.items(), request.state),
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda one: (one.id,))
        return remittance_service_pb2.ListStatementsResponse(
            statements=[_statement(agency, one) for one in kept], next_page_token=token
        )

    def ListStatementLines(
        self, request: remittance_service_pb2.ListStatementLinesRequest, context: grpc.ServicerContext
    ) -> remittance_service_pb2.ListStatementLinesResponse:
        """Settlements in the order of the ledger, then success fees."""
        agency, statement_id = _named(request.parent, "parent")
        page = pagination.read(request, key=(int, int, uuid.UUID))
        part, posting, case_id = page.after or (_SETTLEMENTS, 0, _ZERO)
        found: list[store.Line] = []
        with db.begin(self.engine, agency=agency) as tx:
            statement = cases.view_closed(
                tx=tx, agency=agency, statement_id=statement_id, creditor=rpc.caller().creditor
            )
            if part == _SETTLEMENTS:
                found = store.lines(tx, agency, statement_id, after=posting, limit=page.limit)
            if len(found) < page.limit:
                found += store.fees(tx, agency, statement_id, after=case_id, limit=page.limit - len(found))
        kept, token = page.cut(
            found,
            key=lambda line: (
                (_FEES, 0, line.case_id)
                if line.posting_id is None
                else (_SETTLEMENTS, line.posting_id, _ZERO)
            ),
        )
        return remittance_service_pb2.ListStatementLinesResponse(
            lines=[_line(agency, line, statement.currency) for line in kept], next_page_token=token
        )

    def ExportStatement(
        self, request: remittance_service_pb2.ExportStatementRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        """A closed statement as a file, in pieces."""
        agency, statement_id = common.named(STATEMENT, request.name, "statement")
        formats = remittance_service_pb2.ExportStatementRequest.Format
        if request.format not in formats.values() or not request.format:
            raise errors.invalid("format", "expected FORMAT_CSV, FORMAT_XLSX or FORMAT_PDF")
        form = formats.Name(request.format).removeprefix("FORMAT_")
        with db.begin(self.engine, agency=agency) as tx:
            statement = cases.view_closed(
                tx=tx, agency=agency, statement_id=statement_id, creditor=rpc.caller().creditor
            )
        for piece in self._file(agency, statement, form):
            yield httpbody_pb2.HttpBody(content_type=_TYPES[form], data=piece)

    def _file(self, agency: uuid.UUID, statement: store.Statement, form: str) -> Iterator[bytes]:
        match form:
            case "CSV":
                yield from statement_files.csv(statement, self._lines(agency, statement.id))
            case "XLSX":
                yield from statement_files.xlsx(statement, self._lines(agency, statement.id))
            case _:
                with db.begin(self.engine, agency=agency) as tx:
                    groups = store.groups(tx, agency, statement.id)
                    shown = store.lines(tx, agency, statement.id, after=0, limit=statement_files.PDF_LINES)
                    if len(shown) == statement.settlements:
                        shown += store.fees(
                            tx,
                            agency,
                            statement.id,
                            after=None,
                            limit=statement_files.PDF_LINES - len(shown),
                        )
                yield statement_files.pdf(statement, groups, shown)

    def _lines(self, agency: uuid.UUID, statement_id: uuid.UUID) -> Iterator[store.Line]:
        """All lines, a transaction a page: a closed statement never changes."""
        posting = 0
        while True:
            with db.begin(self.engine, agency=agency) as tx:
                rows = store.lines(tx, agency, statement_id, after=posting, limit=EXPORT_PAGE)
            yield from rows
            if len(rows) < EXPORT_PAGE:
                break
            posting = rows[-1].posting_id or 0
        case_id: uuid.UUID | None = None
        while True:
            with db.begin(self.engine, agency=agency) as tx:
                rows = store.fees(tx, agency, statement_id, after=case_id, limit=EXPORT_PAGE)
            yield from rows
            if len(rows) < EXPORT_PAGE:
                break
            case_id = rows[-1].case_id


def _named(name: str, field: str) -> tuple[uuid.UUID, uuid.UUID]:
    found = names.parse(STATEMENT, name, field)
    return found["agency"], found["statement"]


def _currency(code: str, field: str) -> str:
    if code not in money.CURRENCIES:
        raise errors.invalid(field, f"expected one of {', '.join(sorted(money.CURRENCIES))}")
    return code


def _contract_of(message: remittance_pb2.CommissionContract) -> remittance.Contract:
    currency = _currency(message.currency, "contract.currency")

    def amount(field: str) -> int:
        if not message.HasField(field):  # type: ignore[arg-type] # a name of ours
            return 0
        found = money.from_proto(getattr(message, field), f"contract.{field}")
        if found.currency != currency:
            raise errors.invalid(f"contract.{field}.currency_code", f"expected {currency}, the contract's")
        return found.minor

    def known(field: str) -> str | None:
        value = getattr(message, field)
        kinds = message.DESCRIPTOR.fields_by_name[field].enum_type
        assert kinds is not None
        if value not in kinds.values_by_number:
            raise errors.invalid(f"contract.{field}", f"expected a known {field.replace('_', ' ')}")
        return kinds.values_by_number[value].name.removeprefix(f"{field.upper()}_") if value else None

    fixed_per, tax, frequency, grouping = (
        known(field) for field in ("fixed_per", "tax", "frequency", "grouping")
    )
    return remittance.Contract(
        contract_id=ids.new(),
        currency=currency,
        product=message.product,
        valid_from=dates.from_proto(message.valid_from, "contract.valid_from"),
        bands=tuple(
            remittance.Band(
                from_day=band.from_day,
                principal_rate_e4=band.principal_rate_e4,
                charges_rate_e4=band.charges_rate_e4,
                costs_rate_e4=band.costs_rate_e4,
            )
            for band in message.bands
        ),
        fixed_minor=amount("fixed_amount"),
        fixed_per=remittance.FixedPer(fixed_per) if fixed_per else None,
        success_rate_e4=message.success_rate_e4,
        tax=remittance.Tax(tax) if tax else None,
        tax_rate_e4=message.tax_rate_e4,
        tax_retained=message.tax_retained,
        minimum_minor=amount("minimum_amount"),
        frequency=remittance.Frequency(frequency) if frequency else None,
        grouping=remittance.Grouping(grouping) if grouping else None,
    )


def _contract(agency: uuid.UUID, found: store.Agreed) -> remittance_pb2.CommissionContract:
    one = found.contract
    shown = remittance_pb2.CommissionContract

    def number(kind: str, value: str | None) -> int:
        return shown.DESCRIPTOR.enum_values_by_name[f"{kind}_{value}"].number if value else 0

    return shown(
        name=names.format(CONTRACT, agency=agency, contract=one.contract_id),
        creditor_reference=found.creditor_reference,
        currency=one.currency,
        product=one.product,
        valid_from=dates.to_proto(one.valid_from),
        bands=[
            remittance_pb2.CommissionBand(
                from_day=band.from_day,
                principal_rate_e4=band.principal_rate_e4,
                charges_rate_e4=band.charges_rate_e4,
                costs_rate_e4=band.costs_rate_e4,
            )
            for band in one.bands
        ],
        fixed_amount=common.money_of(one.fixed_minor, one.currency),
        fixed_per=number("FIXED_PER", one.fixed_per),  # type: ignore[arg-type] # an enum is an int
        success_rate_e4=one.success_rate_e4,
        tax=number("TAX", one.tax),  # type: ignore[arg-type] # an enum is an int
        tax_rate_e4=one.tax_rate_e4,
        tax_retained=one.tax_retained,
        minimum_amount=common.money_of(one.minimum_minor, one.currency),
        frequency=number("FREQUENCY", one.frequency),  # type: ignore[arg-type] # an enum is an int
        grouping=number("GROUPING", one.grouping),  # type: ignore[arg-type] # an enum is an int
        create_time=dates.to_timestamp(found.created_at),
        creator=found.created_by,
    )


def _read(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> remittance_pb2.Statement:
    return _statement(agency, cases.view(tx=tx, agency=agency, statement_id=statement_id, creditor=creditor))


def _statement(agency: uuid.UUID, one: store.Statement) -> remittance_pb2.Statement:
    def amount(minor: int) -> object:
        return common.money_of(minor, one.currency)

    def day(value: datetime.date | None) -> object:
        return None if value is None else dates.to_proto(value)

    def instant(value: datetime.datetime | None) -> object:
        return None if value is None else dates.to_timestamp(value)

    fields = {
        "name": names.format(STATEMENT, agency=agency, statement=one.id),
        "creditor_reference": one.creditor_reference,
        "currency": one.currency,
        "case_id": str(one.for_case_id or ""),
        "contract_reference": one.contract_reference,
        "number": one.number,
        "state": remittance_pb2.Statement.State.Value(f"STATE_{one.state.value}"),
        "period_start": day(one.period_start),
        "period_end": day(one.period_end),
        "settlements": one.settlements,
        "gross": amount(one.gross_minor),
        "commission": amount(one.commission_minor),
        "success_fee": amount(one.success_fee_minor),
        "tax_added": amount(one.tax_added_minor),
        "tax_retained": amount(one.tax_retained_minor),
        "carried_in": amount(one.carried_in_minor),
        "net": amount(one.net_minor),
        "remitted": amount(one.remitted_minor),
        "carried_out": amount(one.carried_out_minor),
        "closer": one.closed_by,
        "close_time": instant(one.closed_at),
        "approver": one.approved_by,
        "approve_time": instant(one.approved_at),
        "pay_date": day(one.pay_date),
        "bank_reference": one.bank_reference,
        "etag": str(one.version),
    }
    return remittance_pb2.Statement(**fields)  # type: ignore[arg-type] # of many types


def _line(agency: uuid.UUID, line: store.Line, currency: str) -> remittance_pb2.StatementLine:
    fee = line.posting_id is None
    shown = remittance_pb2.StatementLine(
        kind=remittance_pb2.StatementLine.KIND_SUCCESS_FEE
        if fee
        else remittance_pb2.StatementLine.KIND_SETTLEMENT,
        case_id=str(line.case_id),
        contract_reference=line.contract_reference,
        title_reference=line.title_reference,
        instalment_number=line.instalment_number,
        days_past_due=line.days_past_due,
        amount=common.money_of(line.amount_minor, currency),
        commission_contract=names.format(CONTRACT, agency=agency, contract=line.contract_id),
        rate_e4=line.rate_e4,
        percentage=common.money_of(line.percentage_minor, currency),
        fixed=common.money_of(line.fixed_minor, currency),
        tax_added=common.money_of(line.tax_added_minor, currency),
        tax_retained=common.money_of(line.tax_retained_minor, currency),
    )
    if line.payment_id is not None:
        shown.component = common.component(line.component)
        shown.payment = names.format(common.PAYMENT, agency=agency, payment=line.payment_id)
    if line.value_date is not None:
        shown.value_date.CopyFrom(dates.to_proto(line.value_date))
    if line.business_date is not None:
        shown.business_date.CopyFrom(dates.to_proto(line.business_date))
    return shown
