"""Instruments of instalments in EUR: Multibanco references, and SEPA direct debits under a mandate (standards.md 4.6,
4.7). Neither is registered at a bank: a reference proves itself, a direct debit is asked for in a collection file."""

import uuid
from collections.abc import Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, multibanco, sepa
from agreement_service.store import creditors as creditor_store
from agreement_service.store import instruments as store
from agreement_service.store import mandates as mandate_store
from agreement_service.usecases import moments
from servicekit import db, ids

MULTIBANCO = "MULTIBANCO"
SEPA_DD = "SEPA_DD"


def issue(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instalments: Sequence[accounts.Instalment],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give each instalment a reference and a direct debit of the next generation, as the creditor accepts them.

    The reference is of the creditor's entity, or the house's (`bank.multibanco_entity`); none for more than 999,999.99.
    """
    known = store.of_instalments(tx, agency, [one.instalment_id for one in instalments])
    creditor_of = {
        agreement_id: creditor_id
        for agreement_id, (creditor_id, _) in mandate_store.active_of_agreements(
            tx, agency, {one.agreement_id for one in instalments}
        ).items()
    }
    by_entity: dict[str, list[accounts.Instalment]] = {}
    for creditor_id in sorted(set(creditor_of.values())):
        if MULTIBANCO not in creditor_store.settings(tx, agency, creditor_id).accepted_means:
            continue
        account = mandate_store.euro_account(tx, agency, creditor_id)
        entity = (account.multibanco_entity if account is not None else "") or bank.multibanco_entity
        if entity:
            by_entity.setdefault(entity, []).extend(
                one
                for one in instalments
                if creditor_of[one.agreement_id] == creditor_id
                and one.amount_minor <= multibanco.MAX_AMOUNT_MINOR
            )
    for entity, referred in by_entity.items():
        _refer(tx, agency, entity, referred, known=known, moment=moment)
    debit(tx, agency, instalments=instalments, moment=moment)


def debit(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instalments: Sequence[accounts.Instalment],
    moment: moments.Moment,
) -> None:
    """Give unpaid instalments a direct debit where there is a mandate to collect on, the creditor accepts direct debits
    and has an account for them, and no earlier one came back for good. A one-off mandate serves one instalment.

    The debtor is told today: the schedule of the agreement, or of what is left of it, is the pre-notice.
    """
    today = moment.business_date
    known = store.of_instalments(tx, agency, [one.instalment_id for one in instalments])
    earlier: dict[uuid.UUID, list[mandate_store.DirectDebit]] = {}
    for old in mandate_store.of_instalments(tx, agency, [one.instalment_id for one in instalments]):
        earlier.setdefault(old.instalment_id, []).append(old)
    new, mandate_of = [], {}
    wanted = mandate_store.active_of_agreements(tx, agency, {one.agreement_id for one in instalments})
    usable = {
        agreement_id: mandate
        for agreement_id, (creditor_id, mandate) in wanted.items()
        if mandate is not None
        and mandate.state_on(today) is sepa.MandateState.ACTIVE
        and accepts_debits(tx, agency, creditor_id)
    }
    live = {
        old.mandate_id
        for old in mandate_store.of_mandates(tx, agency, {one.id for one in usable.values()})
        if old.state in ("DUE", "ASKED")
    }
    for one in sorted(instalments, key=lambda one: (one.agreement_id, one.number)):
        mandate = usable.get(one.agreement_id)
        olds = earlier.get(one.instalment_id, [])
        if (
            mandate is None
            or (mandate.one_off and mandate.id in live)
            or any(old.state == "DUE" and old.instrument_state == "REGISTERED" for old in olds)
            or not sepa.may_present(old.reason_code for old in olds if old.state == "RETURNED")
            or one.amount_minor > sepa.MAX_AMOUNT_MINOR
        ):
            continue
        instrument = _registered(one, SEPA_DD, known=known, moment=moment, number="", end_to_end_id=True)
        new.append(instrument)
        mandate_of[instrument.id] = mandate.id
        live.add(mandate.id)
    store.add(tx, agency, new)
    mandate_store.add_debits(tx, agency, mandate_of, notice_date=today)


def accepts_debits(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> bool:
    """Whether a creditor accepts direct debits (S1-29) and has an account to collect them for."""
    account = mandate_store.euro_account(tx, agency, creditor_id)
    return (
        account is not None
        and bool(account.scheme_identifier)
        and SEPA_DD in creditor_store.settings(tx, agency, creditor_id).accepted_means
    )


def _refer(
    tx: db.Transaction,
    agency: uuid.UUID,
    entity: str,
    instalments: Sequence[accounts.Instalment],
    *,
    known: Mapping[uuid.UUID, Sequence[store.Instrument]],
    moment: moments.Moment,
) -> None:
    ordered = sorted(instalments, key=lambda one: (one.agreement_id, one.number))
    numbers = store.numbers(tx, agency, account=f"multibanco/{entity}", count=len(ordered))
    store.add(
        tx,
        agency,
        [
            _registered(
                one,
                MULTIBANCO,
                known=known,
                moment=moment,
                number=multibanco.make(entity=entity, number=number, amount_minor=one.amount_minor).key,
            )
            for one, number in zip(ordered, numbers, strict=True)
        ],
    )


def _registered(
    instalment: accounts.Instalment,
    kind: str,
    *,
    known: Mapping[uuid.UUID, Sequence[store.Instrument]],
    moment: moments.Moment,
    number: str,
    end_to_end_id: bool = False,
) -> store.Instrument:
    instrument_id = ids.new()
    txid = instrument_id.hex if end_to_end_id else ""
    olds = [old.generation for old in known.get(instalment.instalment_id, ()) if old.kind == kind]
    return store.Instrument(
        id=instrument_id,
        instalment_id=instalment.instalment_id,
        kind=kind,
        generation=1 + max(olds, default=0),
        state="REGISTERED",
        amount_minor=instalment.amount_minor,
        due_date=instalment.due_date,
        our_number=number,
        txid=txid,
        due_at=moment.now,
        act_key=number or txid,
    )
