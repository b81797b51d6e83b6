"""Collection files: direct debits of a creditor journaled as one pain.008, which is then written and kept."""

import datetime
import hashlib
import uuid
from collections.abc import Iterator

from agreement_service import providers
from agreement_service.domain import instruments, sepa
from agreement_service.providers import pain008
from agreement_service.store import accounts as account_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import mandates as store
from agreement_service.usecases import existing, mandates, moments
from servicekit import blobs, db, errors, ids

MAX_TRANSACTIONS = 10_000
"""Direct debits of one file; what is left is in the next."""
MAX_DAYS_AHEAD = 14
"""Banks take collections at most so many days before they fall due."""
RETENTION_DAYS = 400
"""An unauthorised collection can be claimed back for thirteen months."""
CLAIMED = 10
_LIVE = frozenset(state.value for state in instruments.LIVE)
BLOB_KIND = "collection-file"


class NothingToCollect(errors.ServiceError):
    """No direct debit of the creditor waits for a file and falls due up to that day."""

    status = errors.Status.FAILED_PRECONDITION


class CollectionFileNotReady(errors.ServiceError):
    """The file is being written: ask again."""

    status = errors.Status.FAILED_PRECONDITION


def collect(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    due_through: datetime.date,
    moment: moments.Moment,
) -> uuid.UUID:
    """Journal a creditor's direct debits that fall due up to a day, inclusive, as one file; its id.

    A direct debit asks for what is unpaid of its instalment, on the due date or the first TARGET day that keeps the
    notice. Each is in one file ever. Raises ResourceNotFound, InvalidRequest, EuroAccountMissing, NothingToCollect.
    """
    existing.creditor(tx, agency, creditor_id)
    today = moment.business_date
    last = today + datetime.timedelta(days=MAX_DAYS_AHEAD)
    if due_through > last:
        raise errors.invalid("due_through", f"expected a day up to {last}")
    account = store.euro_account(tx, agency, creditor_id)
    if account is None or not account.scheme_identifier:
        raise mandates.EuroAccountMissing(
            "the creditor has no SEPA creditor identifier", creditor=creditor_id
        )
    seen = _due(tx, agency, creditor_id, due_through)
    account_store.lock(tx, agency, {one.case_id for one in seen})
    locked = store.get(tx, agency, {one.mandate_id for one in seen}, lock=True)
    usable = {key: one for key, one in locked.items() if one.state_on(today) is sepa.MandateState.ACTIVE}
    keys = {one.instrument_id for one in seen}
    found = [
        one
        for one in _due(tx, agency, creditor_id, due_through)
        if one.instrument_id in keys and one.mandate_id in usable and one.open_minor > 0
    ]
    if not found:
        raise NothingToCollect("no direct debit falls due", due_through=due_through)
    history = store.of_mandates(tx, agency, usable)
    collected = dict.fromkeys(usable, 0)
    waiting = dict.fromkeys(usable, 0)
    for one in history:
        collected[one.mandate_id] += one.state == "ASKED"
        waiting[one.mandate_id] += one.state == "DUE" and one.instrument_state in _LIVE
    asked = []
    for one in found:
        mandate = usable[one.mandate_id]
        waiting[mandate.id] -= 1
        sequence = sepa.sequence(
            one_off=mandate.one_off,
            collected_before=collected[mandate.id],
            more_to_come=waiting[mandate.id] > 0,
        )
        collected[mandate.id] += 1
        date = sepa.collection_date(
            due_date=one.due_date,
            today=today,
            notice_date=one.notice_date,
            pre_notice_days=account.pre_notice_days,
        )
        asked.append(
            store.Asked(
                instrument_id=one.instrument_id,
                amount_minor=one.open_minor,
                sequence=sequence,
                collection_date=date,
            )
        )
        mandate.last_collection_date = max(date, mandate.last_collection_date or date)
        if sequence in (sepa.Sequence.ONE_OFF, sepa.Sequence.FINAL):
            mandate.state = sepa.MandateState.USED
    number = instrument_store.numbers(tx, agency, account=f"collections/{creditor_id}", count=1)[0]
    file_id = ids.new()
    store.add_file(
        tx,
        agency,
        store.File(
            id=file_id,
            creditor_id=creditor_id,
            number=number,
            due_through=due_through,
            create_date=today,
            transactions=len(asked),
            total_minor=sum(one.amount_minor for one in asked),
            state="DRAFT",
            blob_id=None,
            sha256=b"",
            created_at=moment.now,
        ),
    )
    if store.ask(tx, agency, file_id, asked) != len(asked):
        raise errors.VersionMismatch("direct debits were asked for by somebody else")
    for key in sorted({one.mandate_id for one in found}):
        store.write(tx, agency, usable[key])
    return file_id


def claim(tx: db.Transaction, agency: uuid.UUID, *, moment: moments.Moment) -> list[store.File]:
    """Files to write now."""
    return store.claim_files(tx, agency, now=moment.now, limit=CLAIMED)


def write(
    engine: db.Engine,
    agency: uuid.UUID,
    *,
    file: store.File,
    directory: providers.PartyDirectory,
    moment: moments.Moment,
) -> None:
    """Write a claimed file: who the debtors are is asked at `case` outside any transaction, and kept in the file only.

    The same file is written to the same bytes, whoever writes it. Raises RemoteUnavailable, RemoteRefused.
    """
    with db.begin(engine, agency=agency) as tx:
        debits = store.of_file(tx, agency, file.id)
        known = store.get(tx, agency, {one.mandate_id for one in debits})
        account = store.euro_account(tx, agency, file.creditor_id)
    assert account is not None
    parties = directory.of(agency, [one.case_id for one in debits])
    content = pain008.render(
        message_id=file.id.hex,
        created_at=file.created_at,
        creditor=pain008.Creditor(
            name=account.holder_name,
            iban=account.iban,
            bic=account.bic,
            scheme_identifier=account.scheme_identifier,
        ),
        collections=[
            pain008.Collection(
                end_to_end_id=one.end_to_end_id,
                amount_minor=one.amount_minor,
                collection_date=one.collection_date,
                sequence=one.sequence,
                scheme=known[one.mandate_id].scheme.value,
                mandate_reference=known[one.mandate_id].reference,
                signature_date=known[one.mandate_id].signature_date,
                debtor_name=parties[one.case_id].debtor_name if one.case_id in parties else "",
                debtor_iban=known[one.mandate_id].iban,
                description=f"{one.number} {one.agreement_id}",
            )
            for one in debits
            if one.collection_date is not None
        ],
    )
    with db.begin(engine, agency=agency) as tx:
        blob = blobs.create(
            tx,
            agency=agency,
            kind=BLOB_KIND,
            retention_days=RETENTION_DAYS,
            chunks=[content],
            now=moment.now,
        )
        if not store.finish_file(
            tx, agency, file.id, blob_id=blob.id, sha256=hashlib.sha256(content).digest()
        ):
            blobs.erase(tx, blob.id)


def content(engine: db.Engine, agency: uuid.UUID, file_id: uuid.UUID) -> Iterator[bytes]:
    """The pain.008 of a file that is ready. Raises ResourceNotFound, CollectionFileNotReady, BlobErased."""
    with db.begin(engine, agency=agency) as tx:
        found = store.file(tx, agency, file_id)
    if found is None:
        raise errors.ResourceNotFound("no such collection file", collection_file=file_id)
    if found.blob_id is None:
        raise CollectionFileNotReady("the file is being written", state=found.state)
    return blobs.read(engine, found.blob_id)


def _due(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, through: datetime.date
) -> list[store.DirectDebit]:
    return store.due(tx, agency, creditor_id=creditor_id, through=through, limit=MAX_TRANSACTIONS)
