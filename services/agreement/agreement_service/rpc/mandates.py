"""Collecting in euro: creditors' accounts, mandates, collection files, returns."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid

import grpc
from google.api import httpbody_pb2

from agreement_service.domain import sepa
from agreement_service.rpc import common
from agreement_service.store import accounts as account_store
from agreement_service.store import mandates as store
from agreement_service.usecases import collections, mandates, moments
from recupera.agreement.v1 import mandate_service_pb2, mandate_service_pb2_grpc, mandates_pb2
from servicekit import dates, db, errors, ids, names, pagination

ACCOUNT = "agencies/{agency}/creditors/{creditor}/euroAccount"
MANDATE = "agencies/{agency}/mandates/{mandate}"
FILE = "agencies/{agency}/collectionFiles/{collection_file}"


class MandateServicer(common.Methods, mandate_service_pb2_grpc.MandateServiceServicer):
    """Collecting in euro."""

    def GetEuroAccount(
        self, request: mandate_service_pb2.GetEuroAccountRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.EuroAccount:
        """Where a creditor's money in EUR goes."""
        agency, creditor_id = common.named(ACCOUNT, request.name, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            return _account(tx, agency, creditor_id)

    def UpdateEuroAccount(
        self, request: mandate_service_pb2.UpdateEuroAccountRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.EuroAccount:
        """Set it as a whole."""
        message = request.euro_account
        found = names.parse(ACCOUNT, message.name, "euro_account.name")
        agency, creditor_id = found["agency"], found["creditor"]

        def run(tx: db.Transaction) -> mandates_pb2.EuroAccount:
            mandates.set_euro_account(
                tx=tx,
                agency=agency,
                creditor_id=creditor_id,
                new=store.EuroAccount(
                    holder_name=message.holder_name,
                    iban=message.iban,
                    bic=message.bic,
                    scheme_identifier=message.scheme_identifier,
                    pre_notice_days=message.pre_notice_days or sepa.PRE_NOTICE_DAYS,
                    multibanco_entity=message.multibanco_entity,
                ),
                version=common.version_of(message.etag),
            )
            return _account(tx, agency, creditor_id)

        return self.once(agency, request, mandates_pb2.EuroAccount, run)

    def CreateMandate(
        self, request: mandate_service_pb2.CreateMandateRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.Mandate:
        """A debtor signed a mandate."""
        agency = common.agency_of(request.parent, "parent")
        if not request.HasField("signature_date"):
            raise errors.invalid("signature_date", "expected a date")
        signature_date = dates.from_proto(request.signature_date, "signature_date")
        scheme = _scheme(request.scheme)

        def run(tx: db.Transaction) -> mandates_pb2.Mandate:
            moment = moments.read(tx, agency)
            mandate_id = mandates.create(
                tx=tx,
                agency=agency,
                case_id=ids.parse(request.case_id, "case_id"),
                reference=request.reference,
                signature_date=signature_date,
                scheme=scheme,
                one_off=request.one_off,
                iban=request.iban,
                moment=moment,
                bank=self.bank,
            )
            return _mandate(tx, agency, mandate_id)

        return self.once(agency, request, mandates_pb2.Mandate, run)

    def GetMandate(
        self, request: mandate_service_pb2.GetMandateRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.Mandate:
        """One mandate."""
        agency, mandate_id = common.named(MANDATE, request.name, "mandate")
        with db.begin(self.engine, agency=agency) as tx:
            return _mandate(tx, agency, mandate_id)

    def ListMandates(
        self, request: mandate_service_pb2.ListMandatesRequest, context: grpc.ServicerContext
    ) -> mandate_service_pb2.ListMandatesResponse:
        """Mandates in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            today = moments.read(tx, agency).business_date
            party = None
            if request.case_id:
                case_id = ids.parse(request.case_id, "case_id")
                case = account_store.cases(tx, agency, [case_id]).get(case_id)
                if case is None:
                    raise errors.ResourceNotFound("no such case", case=case_id)
                party = (case.creditor_id, case.debtor_id)
            found = store.page(
                tx,
                agency,
                party=party,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda one: (one.id,))
        return mandate_service_pb2.ListMandatesResponse(
            mandates=[_shown(agency, one, today) for one in kept], next_page_token=token
        )

    def CancelMandate(
        self, request: mandate_service_pb2.CancelMandateRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.Mandate:
        """The debtor withdraws it."""
        agency, mandate_id = common.named(MANDATE, request.name, "mandate")

        def run(tx: db.Transaction) -> mandates_pb2.Mandate:
            mandates.cancel(
                tx=tx,
                agency=agency,
                mandate_id=mandate_id,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
            )
            return _mandate(tx, agency, mandate_id)

        return self.once(agency, request, mandates_pb2.Mandate, run)

    def CreateCollectionFile(
        self, request: mandate_service_pb2.CreateCollectionFileRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.CollectionFile:
        """Journal what falls due as one file."""
        agency = common.agency_of(request.parent, "parent")
        creditor_id = ids.parse(request.creditor_id, "creditor_id")
        if not request.HasField("due_through"):
            raise errors.invalid("due_through", "expected a date")
        due_through = dates.from_proto(request.due_through, "due_through")

        def run(tx: db.Transaction) -> mandates_pb2.CollectionFile:
            file_id = collections.collect(
                tx=tx,
                agency=agency,
                creditor_id=creditor_id,
                due_through=due_through,
                moment=moments.read(tx, agency),
            )
            return _file(tx, agency, file_id)

        return self.once(agency, request, mandates_pb2.CollectionFile, run)

    def GetCollectionFile(
        self, request: mandate_service_pb2.GetCollectionFileRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.CollectionFile:
        """One file."""
        agency, file_id = common.named(FILE, request.name, "collection_file")
        with db.begin(self.engine, agency=agency) as tx:
            return _file(tx, agency, file_id)

    def ListCollectionFiles(
        self, request: mandate_service_pb2.ListCollectionFilesRequest, context: grpc.ServicerContext
    ) -> mandate_service_pb2.ListCollectionFilesResponse:
        """Files in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = store.page_files(
                tx,
                agency,
                creditor_id=ids.parse(request.creditor_id, "creditor_id") if request.creditor_id else None,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(found, key=lambda one: (one.id,))
        return mandate_service_pb2.ListCollectionFilesResponse(
            collection_files=[_shown_file(agency, one) for one in kept], next_page_token=token
        )

    def DownloadCollectionFile(
        self, request: mandate_service_pb2.DownloadCollectionFileRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """The pain.008 as it goes to the bank."""
        agency, file_id = common.named(FILE, request.name, "collection_file")
        content = b"".join(collections.content(self.engine, agency, file_id))
        return httpbody_pb2.HttpBody(content_type="application/xml", data=content)

    def ListDirectDebits(
        self, request: mandate_service_pb2.ListDirectDebitsRequest, context: grpc.ServicerContext
    ) -> mandate_service_pb2.ListDirectDebitsResponse:
        """Direct debits in order of their instruments."""
        file_id = None
        if request.parent.count("/") > 1:
            found = names.parse(FILE, request.parent, "parent")
            agency, file_id = found["agency"], found["collection_file"]
        else:
            agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            if file_id is not None:
                _file(tx, agency, file_id)
            debits = store.page_debits(
                tx,
                agency,
                file_id=file_id,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(debits, key=lambda one: (one.instrument_id,))
        return mandate_service_pb2.ListDirectDebitsResponse(
            direct_debits=[_debit(agency, one) for one in kept], next_page_token=token
        )

    def RecordReturn(
        self, request: mandate_service_pb2.RecordReturnRequest, context: grpc.ServicerContext
    ) -> mandates_pb2.DirectDebit:
        """An R-transaction."""
        agency = common.agency_of(request.parent, "parent")
        if not request.end_to_end_id:
            raise errors.invalid("end_to_end_id", "expected the id of a direct debit")

        def run(tx: db.Transaction) -> mandates_pb2.DirectDebit:
            mandates.come_back(
                tx=tx,
                agency=agency,
                end_to_end_id=request.end_to_end_id,
                reason_code=request.reason_code,
                return_date=common.date_of(request, "return_date"),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            found = store.by_end_to_end_id(tx, agency, request.end_to_end_id)
            assert found is not None
            return _debit(agency, found)

        return self.once(agency, request, mandates_pb2.DirectDebit, run)


def _scheme(value: "mandates_pb2.Mandate.Scheme.ValueType") -> sepa.Scheme:
    match value:
        case mandates_pb2.Mandate.SCHEME_UNSPECIFIED | mandates_pb2.Mandate.SCHEME_CORE:
            return sepa.Scheme.CORE
        case mandates_pb2.Mandate.SCHEME_B2B:
            return sepa.Scheme.B2B
    raise errors.invalid("scheme", "expected CORE or B2B")


def _account(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> mandates_pb2.EuroAccount:
    found = store.euro_account(tx, agency, creditor_id)
    if found is None:
        raise errors.ResourceNotFound("the creditor has no account in EUR", creditor=creditor_id)
    return mandates_pb2.EuroAccount(
        name=names.format(ACCOUNT, agency=agency, creditor=creditor_id),
        holder_name=found.holder_name,
        iban=found.iban,
        bic=found.bic,
        scheme_identifier=found.scheme_identifier,
        pre_notice_days=found.pre_notice_days,
        multibanco_entity=found.multibanco_entity,
        etag=str(found.version),
    )


def _mandate(tx: db.Transaction, agency: uuid.UUID, mandate_id: uuid.UUID) -> mandates_pb2.Mandate:
    found = store.get(tx, agency, [mandate_id]).get(mandate_id)
    if found is None:
        raise errors.ResourceNotFound("no such mandate", mandate=mandate_id)
    return _shown(agency, found, moments.read(tx, agency).business_date)


def _shown(agency: uuid.UUID, one: store.Mandate, today: datetime.date) -> mandates_pb2.Mandate:
    shown = mandates_pb2.Mandate(
        name=names.format(MANDATE, agency=agency, mandate=one.id),
        state=mandates_pb2.Mandate.State.Value(f"STATE_{one.state_on(today).value}"),
        case_id=str(one.case_id),
        creditor_id=str(one.creditor_id),
        reference=one.reference,
        signature_date=dates.to_proto(one.signature_date),
        scheme=mandates_pb2.Mandate.Scheme.Value(f"SCHEME_{one.scheme.value}"),
        one_off=one.one_off,
        iban_end=one.iban[-4:],
        reason_code=one.reason_code,
        lapse_date=dates.to_proto(sepa.lapses_after(one.signature_date, one.last_collection_date)),
        create_time=dates.to_timestamp(one.created_at),
        etag=str(one.version),
    )
    if one.last_collection_date is not None:
        shown.last_collection_date.CopyFrom(dates.to_proto(one.last_collection_date))
    return shown


def _file(tx: db.Transaction, agency: uuid.UUID, file_id: uuid.UUID) -> mandates_pb2.CollectionFile:
    found = store.file(tx, agency, file_id)
    if found is None:
        raise errors.ResourceNotFound("no such collection file", collection_file=file_id)
    return _shown_file(agency, found)


def _shown_file(agency: uuid.UUID, one: store.File) -> mandates_pb2.CollectionFile:
    return mandates_pb2.CollectionFile(
        name=names.format(FILE, agency=agency, collection_file=one.id),
        state=mandates_pb2.CollectionFile.State.Value(f"STATE_{one.state}"),
        creditor_id=str(one.creditor_id),
        number=one.number,
        due_through=dates.to_proto(one.due_through),
        transactions=one.transactions,
        total=common.money_of(one.total_minor, "EUR"),
        sha256=one.sha256.hex(),
        create_time=dates.to_timestamp(one.created_at),
    )


def _debit(agency: uuid.UUID, one: store.DirectDebit) -> mandates_pb2.DirectDebit:
    shown = mandates_pb2.DirectDebit(
        end_to_end_id=one.end_to_end_id,
        state=mandates_pb2.DirectDebit.State.Value(f"STATE_{one.state}"),
        instalment_id=str(one.instalment_id),
        mandate=names.format(MANDATE, agency=agency, mandate=one.mandate_id),
        amount=common.money_of(one.amount_minor or one.open_minor, "EUR"),
        due_date=dates.to_proto(one.due_date),
        reason_code=one.reason_code,
    )
    if one.file_id is not None:
        shown.collection_file = names.format(FILE, agency=agency, collection_file=one.file_id)
        shown.sequence = mandates_pb2.DirectDebit.Sequence.Value(f"SEQUENCE_{one.sequence}")
    if one.collection_date is not None:
        shown.collection_date.CopyFrom(dates.to_proto(one.collection_date))
    if one.return_date is not None:
        shown.return_date.CopyFrom(dates.to_proto(one.return_date))
    return shown
