"""Instruments, the accounts behind them, minutes."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc
from google.api import httpbody_pb2

from agreement_service.domain import boleto, collection, instruments
from agreement_service.rpc import common, minutes
from agreement_service.store import collection as collection_store
from agreement_service.store import instruments as store
from agreement_service.usecases import collection as collection_cases
from agreement_service.usecases import instruments as cases
from agreement_service.usecases import moments, papers
from recupera.agreement.v1 import (
    agreement_pb2,
    instrument_service_pb2,
    instrument_service_pb2_grpc,
    instruments_pb2,
)
from servicekit import dates, db, errors, ids, names, pagination, rpc

INSTRUMENT = "agencies/{agency}/instruments/{instrument}"
ACCOUNT = "agencies/{agency}/collectionAccounts/{collection_account}"
_FORMATS = {
    instrument_service_pb2.RenderInstrumentRequest.FORMAT_UNSPECIFIED: papers.Format.PDF,
    instrument_service_pb2.RenderInstrumentRequest.FORMAT_PDF: papers.Format.PDF,
    instrument_service_pb2.RenderInstrumentRequest.FORMAT_PNG: papers.Format.PNG,
    instrument_service_pb2.RenderInstrumentRequest.FORMAT_SVG: papers.Format.SVG,
}


class InstrumentServicer(minutes.Minutes, instrument_service_pb2_grpc.InstrumentServiceServicer):
    """Instruments, the accounts behind them, minutes."""

    def GetInstrument(
        self, request: instrument_service_pb2.GetInstrumentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Instrument:
        """One instrument."""
        agency, instrument_id = common.named(INSTRUMENT, request.name, "instrument")
        with db.begin(self.engine, agency=agency) as tx:
            return _instrument(tx, agency, instrument_id, creditor=rpc.caller().creditor)

    def ListInstruments(
        self, request: instrument_service_pb2.ListInstrumentsRequest, context: grpc.ServicerContext
    ) -> instrument_service_pb2.ListInstrumentsResponse:
        """Instruments in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                state=common.state_of(agreement_pb2.Instrument.State.items(), request.state),
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(found, key=lambda one: (one.id,))
            response = instrument_service_pb2.ListInstrumentsResponse(next_page_token=token)
            response.instruments.extend(_shown(tx, agency, kept))
        return response

    def IssueInstruments(
        self, request: instrument_service_pb2.IssueInstrumentsRequest, context: grpc.ServicerContext
    ) -> instrument_service_pb2.IssueInstrumentsResponse:
        """For an instalment, or for titles outside an agreement."""
        agency = common.agency_of(request.parent, "parent")
        date = common.date_of(request, "date")
        kinds = [_kind(value, f"kinds[{place}]") for place, value in enumerate(request.kinds)]
        if bool(request.instalment_id) == bool(request.titles):
            raise errors.invalid("titles", "expected either titles or an instalment")
        if len(request.titles) > instruments.MAX_TITLES:
            raise errors.invalid("titles", f"expected at most {instruments.MAX_TITLES}")
        account_id = (
            common.inside(
                agency, ACCOUNT, request.collection_account, "collection_account", "collection_account"
            )
            if request.collection_account
            else None
        )
        titles = [
            common.inside(agency, common.TITLE, name, f"titles[{place}]", "title")
            for place, name in enumerate(request.titles)
        ]

        def run(tx: db.Transaction) -> instrument_service_pb2.IssueInstrumentsResponse:
            moment = moments.read(tx, agency)
            if request.instalment_id:
                made = cases.issue_for_instalment(
                    tx=tx,
                    agency=agency,
                    instalment_id=ids.parse(request.instalment_id, "instalment_id"),
                    kinds=kinds,
                    date=date,
                    account_id=account_id,
                    moment=moment,
                    bank=self.bank,
                )
            else:
                made = cases.issue_for_titles(
                    tx=tx,
                    agency=agency,
                    case_id=ids.parse(request.case_id, "case_id"),
                    title_ids=titles,
                    kinds=kinds,
                    date=date,
                    account_id=account_id,
                    moment=moment,
                    bank=self.bank,
                )
            return instrument_service_pb2.IssueInstrumentsResponse(
                instruments=[_instrument(tx, agency, key) for key in made]
            )

        return self.once(agency, request, instrument_service_pb2.IssueInstrumentsResponse, run)

    def CancelInstrument(
        self, request: instrument_service_pb2.CancelInstrumentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Instrument:
        """Make it unusable."""
        agency, instrument_id = common.named(INSTRUMENT, request.name, "instrument")

        def run(tx: db.Transaction) -> agreement_pb2.Instrument:
            cases.cancel(
                tx=tx,
                agency=agency,
                instrument_id=instrument_id,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
            )
            return _instrument(tx, agency, instrument_id)

        return self.once(agency, request, agreement_pb2.Instrument, run)

    def ReissueInstrument(
        self, request: instrument_service_pb2.ReissueInstrumentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Instrument:
        """Second copy."""
        agency, instrument_id = common.named(INSTRUMENT, request.name, "instrument")
        date = common.date_of(request, "date")

        def run(tx: db.Transaction) -> agreement_pb2.Instrument:
            made = cases.reissue(
                tx=tx,
                agency=agency,
                instrument_id=instrument_id,
                date=date,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _instrument(tx, agency, made)

        return self.once(agency, request, agreement_pb2.Instrument, run)

    def RenderInstrument(
        self, request: instrument_service_pb2.RenderInstrumentRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """The instrument on paper."""
        agency, instrument_id = common.named(INSTRUMENT, request.name, "instrument")
        form = _FORMATS.get(request.format)
        if form is None:
            raise errors.invalid("format", "expected a known format")
        with db.begin(self.engine, agency=agency) as tx:
            paper = papers.read(
                tx=tx,
                agency=agency,
                instrument_id=instrument_id,
                form=form,
                creditor=rpc.caller().creditor,
                bank=self.bank,
            )
        made = papers.render(paper, form=form, agency=agency, parties=self.parties)
        return httpbody_pb2.HttpBody(content_type=form.value, data=made)

    def CreateCollectionAccount(
        self, request: instrument_service_pb2.CreateCollectionAccountRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.CollectionAccount:
        """A new account."""
        agency = common.agency_of(request.parent, "parent")
        message = request.collection_account
        creditor_id = (
            ids.parse(message.creditor_id, "collection_account.creditor_id") if message.creditor_id else None
        )

        def run(tx: db.Transaction) -> instruments_pb2.CollectionAccount:
            account_id = collection_cases.create(
                tx=tx,
                agency=agency,
                creditor_id=creditor_id,
                description=message.description,
                account=_account_of(message),
                active=message.active,
                is_default=message.is_default,
                moment=moments.read(tx, agency),
            )
            return _account(tx, agency, account_id)

        return self.once(agency, request, instruments_pb2.CollectionAccount, run)

    def GetCollectionAccount(
        self, request: instrument_service_pb2.GetCollectionAccountRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.CollectionAccount:
        """One account."""
        agency, account_id = common.named(ACCOUNT, request.name, "collection_account")
        with db.begin(self.engine, agency=agency) as tx:
            return _account(tx, agency, account_id)

    def ListCollectionAccounts(
        self, request: instrument_service_pb2.ListCollectionAccountsRequest, context: grpc.ServicerContext
    ) -> instrument_service_pb2.ListCollectionAccountsResponse:
        """Accounts in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = collection_store.page(
                tx,
                agency,
                creditor_id=ids.parse(request.creditor_id, "creditor_id") if request.creditor_id else None,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda one: (one.account.id,))
        return instrument_service_pb2.ListCollectionAccountsResponse(
            collection_accounts=[_shown_account(agency, one) for one in kept], next_page_token=token
        )

    def UpdateCollectionAccount(
        self, request: instrument_service_pb2.UpdateCollectionAccountRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.CollectionAccount:
        """Change what may change."""
        message = request.collection_account
        found = names.parse(ACCOUNT, message.name, "collection_account.name")
        agency, account_id = found["agency"], found["collection_account"]

        def run(tx: db.Transaction) -> instruments_pb2.CollectionAccount:
            collection_cases.update(
                tx=tx,
                agency=agency,
                account_id=account_id,
                wanted=collection_store.Record(
                    account=_account_of(message),
                    creditor_id=None,
                    description=message.description,
                    active=message.active,
                    is_default=message.is_default,
                    created_at=moments.read(tx, agency).now,
                ),
                only=request.update_mask.paths,
                version=common.version_of(message.etag),
            )
            return _account(tx, agency, account_id)

        return self.once(agency, request, instruments_pb2.CollectionAccount, run)


def shown(
    agency: uuid.UUID, one: store.Instrument, titles: Sequence[tuple[uuid.UUID, int]] = ()
) -> agreement_pb2.Instrument:
    """An instrument on the wire; `titles` with their parts of one that pays titles outside an agreement."""
    message = agreement_pb2.Instrument(
        id=str(one.id),
        kind=agreement_pb2.Instrument.Kind.Value(f"KIND_{one.kind}"),
        state=agreement_pb2.Instrument.State.Value(f"STATE_{one.state}"),
        amount=common.money_of(one.amount_minor, one.currency),
        due_date=dates.to_proto(one.due_date),
        barcode=one.barcode,
        typeable_line=boleto.typeable_line(one.barcode) if one.barcode else "",
        name=names.format(INSTRUMENT, agency=agency, instrument=one.id),
        etag=str(one.version),
        case_id=str(one.case_id),
        instalment_id=str(one.instalment_id or ""),
        titles=[
            agreement_pb2.InstrumentTitle(
                title=names.format(common.TITLE, agency=agency, title=title_id),
                amount=common.money_of(minor, one.currency),
            )
            for title_id, minor in titles
        ],
        payable_until=dates.to_proto(one.payable_until) if one.payable_until is not None else None,
        generation=one.generation,
        collection_account=names.format(ACCOUNT, agency=agency, collection_account=one.account_id)
        if one.account_id is not None
        else "",
        issue_date=dates.to_proto(one.issue_date),
    )
    match one.kind:
        case instruments.Kind.BOLETO:
            message.our_number, message.our_number_printed = one.our_number, one.our_number_printed
        case instruments.Kind.PIX:
            message.br_code, message.txid = one.br_code, one.txid
        case instruments.Kind.MULTIBANCO:
            message.entity, message.reference = one.our_number[:5], one.our_number_printed
        case instruments.Kind.SEPA_DD:
            message.end_to_end_id = one.txid
    return message


def _instrument(
    tx: db.Transaction, agency: uuid.UUID, instrument_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> agreement_pb2.Instrument:
    found = store.find(tx, agency, instrument_id, creditor=creditor)
    if found is None:
        raise errors.ResourceNotFound("no such instrument", instrument=instrument_id)
    return _shown(tx, agency, [found])[0]


def _shown(
    tx: db.Transaction, agency: uuid.UUID, found: Sequence[store.Instrument]
) -> list[agreement_pb2.Instrument]:
    loose = [one.id for one in found if one.instalment_id is None]
    titles = store.titles_of(tx, agency, loose) if loose else {}
    return [shown(agency, one, titles.get(one.id, ())) for one in found]


def _kind(value: "agreement_pb2.Instrument.Kind.ValueType", field: str) -> instruments.Kind:
    for name, number in agreement_pb2.Instrument.Kind.items():
        if number == value and number:
            return instruments.Kind(name.removeprefix("KIND_"))
    raise errors.invalid(field, "expected a known kind")


def _account_of(message: instruments_pb2.CollectionAccount) -> collection.CollectionAccount:
    return collection.CollectionAccount(
        bank=message.bank,
        branch=message.branch,
        account=message.account,
        wallet=message.wallet,
        agreement=message.agreement_number,
        beneficiary_name=message.beneficiary_name,
        beneficiary_document=message.beneficiary_document,
        payable_days=message.payable_days,
        pix_key=message.pix_key,
        pix_name=message.pix_name,
        pix_city=message.pix_city,
    )


def _account(
    tx: db.Transaction, agency: uuid.UUID, account_id: uuid.UUID
) -> instruments_pb2.CollectionAccount:
    found = collection_store.find(tx, agency, account_id)
    if found is None:
        raise errors.ResourceNotFound("no such collection account", collection_account=account_id)
    return _shown_account(agency, found)


def _shown_account(agency: uuid.UUID, one: collection_store.Record) -> instruments_pb2.CollectionAccount:
    account = one.account
    assert account.id is not None
    return instruments_pb2.CollectionAccount(
        name=names.format(ACCOUNT, agency=agency, collection_account=account.id),
        creditor_id=str(one.creditor_id or ""),
        description=one.description,
        bank=account.bank,
        branch=account.branch,
        account=account.account,
        wallet=account.wallet,
        agreement_number=account.agreement,
        beneficiary_name=account.beneficiary_name,
        beneficiary_document=account.beneficiary_document,
        payable_days=account.payable_days,
        pix_key=account.pix_key,
        pix_name=account.pix_name,
        pix_city=account.pix_city,
        active=one.active,
        is_default=one.is_default,
        create_time=dates.to_timestamp(one.created_at),
        etag=str(one.version),
    )
