"""Instruments in EUR: Multibanco references, and SEPA direct debits under a mandate (standards.md 4.6, 4.7)."""

import uuid
from collections.abc import Sequence

from agreement_service.domain import instruments, multibanco, sepa
from agreement_service.store import creditors as creditor_store
from agreement_service.store import instruments as store
from agreement_service.store import mandates as mandate_store
from agreement_service.usecases import makers
from servicekit import db


def references(
    desk: makers.Desk, debts: Sequence[instruments.Debt], new_ids: Sequence[uuid.UUID]
) -> Sequence[makers.Fields | None]:
    """A Multibanco reference for each debt of at most 999,999.99, of the creditor's entity, or the house's
    (`bank.multibanco_entity`) where he has none."""
    account = mandate_store.euro_account(desk.tx, desk.agency, desk.creditor_id)
    entity = (account.multibanco_entity if account is not None else "") or desk.bank.multibanco_entity
    fitting = [debt.amount_minor <= multibanco.MAX_AMOUNT_MINOR for debt in debts]
    if not entity or not any(fitting):
        return [None] * len(debts)
    numbers = iter(store.numbers(desk.tx, desk.agency, account=f"multibanco/{entity}", count=sum(fitting)))
    made: list[makers.Fields | None] = []
    for debt, fits in zip(debts, fitting, strict=True):
        if not fits:
            made.append(None)
            continue
        reference = multibanco.make(entity=entity, number=next(numbers), amount_minor=debt.amount_minor)
        made.append(
            makers.Fields(
                act_key=reference.key,
                our_number=reference.key,
                our_number_printed=multibanco.spaced(reference.reference),
            )
        )
    return made


def debits(
    desk: makers.Desk, debts: Sequence[instruments.Debt], new_ids: Sequence[uuid.UUID]
) -> Sequence[makers.Fields | None]:
    """A direct debit for each instalment where its debtor gave a mandate, the creditor has an account to collect for,
    and no earlier one is under way or came back for good. A one-off mandate serves one instalment, by due date.

    The debtor is told today: the schedule of the agreement, or of what is left of it, is the pre-notice.
    """
    today = desk.moment.business_date
    instalments = [debt.instalment_id for debt in debts if debt.instalment_id is not None]
    account = mandate_store.euro_account(desk.tx, desk.agency, desk.creditor_id)
    if not instalments or account is None or not account.scheme_identifier:
        return [None] * len(debts)
    usable = {
        case_id: mandate
        for case_id, mandate in mandate_store.active_of_cases(
            desk.tx, desk.agency, {debt.case_id for debt in debts}
        ).items()
        if mandate.state_on(today) is sepa.MandateState.ACTIVE
    }
    returned: dict[uuid.UUID, list[str]] = {}
    under_way = set()
    for old in mandate_store.of_instalments(desk.tx, desk.agency, instalments):
        if old.state == "RETURNED":
            returned.setdefault(old.instalment_id, []).append(old.reason_code)
        elif old.state == "ASKED" or (old.state == "DUE" and old.instrument_state in instruments.LIVE):
            under_way.add(old.instalment_id)
    live = {
        old.mandate_id
        for old in mandate_store.of_mandates(desk.tx, desk.agency, {one.id for one in usable.values()})
        if old.state in ("DUE", "ASKED")
    }
    made: list[makers.Fields | None] = [None] * len(debts)
    mandate_of = {}
    for place in sorted(range(len(debts)), key=lambda place: (debts[place].due_date, place)):
        debt, key = debts[place], new_ids[place]
        mandate = usable.get(debt.case_id)
        if (
            mandate is None
            or debt.instalment_id is None
            or debt.instalment_id in under_way
            or (mandate.one_off and mandate.id in live)
            or not sepa.may_present(returned.get(debt.instalment_id, ()))
            or debt.amount_minor > sepa.MAX_AMOUNT_MINOR
        ):
            continue
        made[place] = makers.Fields(act_key=key.hex, txid=key.hex)
        mandate_of[key] = mandate.id
        live.add(mandate.id)
    mandate_store.add_debits(desk.tx, desk.agency, mandate_of, notice_date=today)
    return made


def accepts_debits(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> bool:
    """Whether a creditor accepts direct debits (S1-29)."""
    accepted = creditor_store.settings(tx, agency, creditor_id).accepted_means
    return instruments.Kind.SEPA_DD.value in accepted
