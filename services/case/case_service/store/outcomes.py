"""What other services and people report: reservations, contacts, promises, titles, agreements, payments."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from case_service.store import scoped
from servicekit import db


def close_reservations(
    tx: db.Transaction, agency: uuid.UUID, *, keys: Sequence[uuid.UUID], attempted: Sequence[bool]
) -> None:
    """Close open reservations; those not attempted count no more."""
    tx.execute(_CLOSE, {"agency": agency, "keys": keys, "attempted": attempted})


def close_call(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    key: uuid.UUID,
    attempted: bool,
    right_party: bool,
    abandoned: bool,
    version: int,
) -> None:
    """Close the reservation of a call with what the caps need, if this is news."""
    tx.execute(
        _CLOSE_CALL,
        {
            "agency": agency,
            "key": key,
            "attempted": attempted,
            "right_party": right_party,
            "abandoned": abandoned,
            "version": version,
        },
    )


def bar(
    tx: db.Transaction, agency: uuid.UUID, *, contact_point_id: uuid.UUID, reason: str, now: datetime.datetime
) -> None:
    """Never use the contact point's number or address again, whoever has it (R26)."""
    tx.execute(_BAR, {"agency": agency, "id": contact_point_id, "reason": reason, "now": now})


def record(tx: db.Transaction, agency: uuid.UUID, contact: Mapping[str, Any]) -> sa.Row[Any] | None:
    """Put a contact on record, or what is known of it since, by the key of the act. None where it is old news."""
    return tx.execute(_RECORD, {"agency": agency, **contact}).one_or_none()


def record_messages(tx: db.Transaction, agency: uuid.UUID, contacts: Sequence[Mapping[str, Any]]) -> None:
    """Put messages on record that left; those on record stay as they are."""
    if contacts:
        tx.execute(_RECORD_MESSAGE, [{"agency": agency, **contact} for contact in contacts])


def note_once(tx: db.Transaction, agency: uuid.UUID, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write lines into timelines unless the same thing stands there with the same code."""
    if entries:
        tx.execute(_NOTE_ONCE, [{"agency": agency, **entry} for entry in entries])


def reached_nobody(
    tx: db.Transaction, agency: uuid.UUID, *, case_ids: Sequence[uuid.UUID], now: datetime.datetime
) -> Sequence[sa.Row[Any]]:
    """Cases in collection that were NEW are NO_CONTACT now; those that changed."""
    return tx.execute(_REACHED_NOBODY, {"agency": agency, "case_ids": case_ids, "now": now}).all()


def add_promise(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    act_key: uuid.UUID,
    made_on: datetime.date,
    promise_date: datetime.date,
    amount_minor: int,
    currency: str,
) -> None:
    """Record an open promise in place of those that were open; the case's ``promise_until`` follows."""
    params = {
        "agency": agency,
        "case_id": case_id,
        "act_key": act_key,
        "made_on": made_on,
        "promise_date": promise_date,
        "amount_minor": amount_minor,
        "currency": currency,
    }
    for statement in _PROMISE:
        tx.execute(statement, params)


def keep_promises(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Open promises whose amount was received since they were made are kept; their act keys."""
    kept = tx.execute(_KEEP, {"agency": agency, "case_id": case_id}).scalars().all()
    if kept:
        tx.execute(_PROMISE_UNTIL, {"agency": agency, "case_id": case_id})
    return kept


def change_titles(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_ids: Sequence[uuid.UUID],
    title_ids: Sequence[uuid.UUID],
    versions: Sequence[int],
    states: Sequence[str],
    open_minor: Sequence[int],
    due_dates: Sequence[datetime.date],
    now: datetime.datetime,
) -> Sequence[sa.Row[Any]]:
    """Take over states, open principal and due dates (none given: they stay) where they are newer; the totals of the
    cases that changed follow. Returns those cases as they are now.
    """
    return tx.execute(
        _CHANGE_TITLES,
        {
            "agency": agency,
            "case_ids": case_ids,
            "title_ids": title_ids,
            "versions": versions,
            "states": states,
            "open_minor": open_minor,
            "due_dates": list(due_dates),
            "now": now,
        },
    ).all()


def add_novated(
    tx: db.Transaction, agency: uuid.UUID, titles: Sequence[Mapping[str, Any]], *, now: datetime.datetime
) -> Sequence[sa.Row[Any]]:
    """Insert titles that novations made and are not known; the totals of their cases follow. Returns those cases as
    they are now."""
    names = (
        "case_id",
        "title_id",
        "title_reference",
        "principal_minor",
        "due_date",
        "penalty_rate_e4",
        "monthly_interest_rate_e4",
    )
    columns = {name: [title[name] for title in titles] for name in names}
    return tx.execute(_ADD_NOVATED, {"agency": agency, "now": now, **columns}).all()


def known_titles(tx: db.Transaction, agency: uuid.UUID, title_ids: Sequence[uuid.UUID]) -> int:
    """How many of these titles are known."""
    return int(tx.execute(_KNOWN_TITLES, {"agency": agency, "title_ids": title_ids}).scalar_one())


def change_agreement(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    agreement_id: uuid.UUID,
    state: str,
    version: int,
    in_force: Sequence[str],
) -> bool:
    """Take over the agreement's state if it is newer; the case's number of agreements in force follows."""
    params = {
        "agency": agency,
        "case_id": case_id,
        "agreement_id": agreement_id,
        "state": state,
        "version": version,
        "in_force": list(in_force),
    }
    if tx.execute(_CHANGE_AGREEMENT, params).rowcount == 0:
        return False
    tx.execute(_AGREEMENTS_IN_FORCE, params)
    return True


def change_payment(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    payment_id: uuid.UUID,
    state: str,
    allocated_minor: int,
    value_date: datetime.date | None,
    version: int,
) -> bool:
    """Take over the payment's state if it is newer."""
    params = {
        "agency": agency,
        "case_id": case_id,
        "payment_id": payment_id,
        "state": state,
        "allocated_minor": allocated_minor,
        "value_date": value_date,
        "version": version,
    }
    return tx.execute(_CHANGE_PAYMENT, params).rowcount == 1


_CLOSE = scoped.text(
    """
    UPDATE reservations SET state = 'CLOSED', counts = done.attempted
    FROM unnest(CAST(:keys AS uuid[]), CAST(:attempted AS boolean[])) AS done (key, attempted)
    WHERE reservations.agency = @agency AND reservations.key = done.key AND reservations.state = 'OPEN'
    """
)
_CLOSE_CALL = scoped.text(
    """
    UPDATE reservations SET state = 'CLOSED', counts = :attempted, right_party_call = :right_party,
           abandoned = :abandoned, version = :version
    WHERE agency = @agency AND key = :key AND state <> 'REFUSED' AND version < :version
    """
)
_BAR = scoped.text(
    """
    INSERT INTO barred_contacts (agency, kind, value, reason, since)
    SELECT agency, kind, value, :reason, :now FROM contact_points WHERE agency = @agency AND id = :id
    ON CONFLICT DO NOTHING
    """
)
_RECORD = scoped.text(
    """
    INSERT INTO contacts AS known (agency, act_key, case_id, person_id, channel, outcome, manual, promise_date,
                                   promise_amount_minor, note, business_date, at, version)
    VALUES (:agency, :act_key, :case_id, :person_id, :channel, :outcome, :manual, :promise_date,
    :promise_amount_minor,
            :note, :business_date, :at, :version)
    ON CONFLICT (agency, act_key) DO UPDATE SET
        outcome = excluded.outcome, promise_date = excluded.promise_date,
        promise_amount_minor = excluded.promise_amount_minor, version = excluded.version
    WHERE known.version < excluded.version
    RETURNING id, at
    """
)
_RECORD_MESSAGE = scoped.text(
    """
    INSERT INTO contacts (agency, act_key, case_id, person_id, channel, outcome, manual, business_date, at, version)
    VALUES (:agency, :act_key, :case_id, :person_id, :channel, :outcome, false, :business_date, :at, 0)
    ON CONFLICT DO NOTHING
    """
)
_NOTE_ONCE = scoped.text(
    """
    INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, details, subject_id)
    SELECT :agency, :case_id, :at, :business_date, :actor, :kind, :code, :details, :subject_id
    WHERE NOT EXISTS (
        SELECT FROM timeline WHERE agency = @agency AND case_id = :case_id AND kind = :kind AND code = :code
        AND subject_id = :subject_id)
    """
).bindparams(
    sa.bindparam("agency", type_=sa.Uuid),
    sa.bindparam("case_id", type_=sa.Uuid),
    sa.bindparam("subject_id", type_=sa.Uuid),
    sa.bindparam("details", type_=postgresql.JSONB(none_as_null=True)),
)
_MOVED = "id, version, state, sub_state, open_principal_minor"
_REACHED_NOBODY = scoped.text(
    f"""
    UPDATE cases SET sub_state = 'NO_CONTACT', version = version + 1, updated_at = :now
    WHERE agency = @agency AND id = ANY (:case_ids) AND state = 'IN_COLLECTION' AND sub_state = 'NEW'
    RETURNING {_MOVED}
    """  # noqa: S608
)
_PROMISE_UNTIL = scoped.text(
    """
    UPDATE cases SET promise_until = (
        SELECT max(promise_date) FROM promises WHERE agency = @agency AND case_id = :case_id AND state = 'OPEN')
    WHERE agency = @agency AND id = :case_id
    """
)
_PROMISE = (
    scoped.text(
        """
        UPDATE promises SET state = 'REPLACED'
        WHERE agency = @agency AND case_id = :case_id AND state = 'OPEN' AND act_key <> :act_key
        """
    ),
    scoped.text(
        """
        INSERT INTO promises AS known (agency, case_id, act_key, state, made_on, promise_date, amount_minor,
        currency)
        VALUES (:agency, :case_id, :act_key, 'OPEN', :made_on, :promise_date, :amount_minor, :currency)
        ON CONFLICT (agency, case_id, act_key) DO UPDATE SET
            promise_date = excluded.promise_date, amount_minor = excluded.amount_minor
        WHERE known.state = 'OPEN'
        """
    ),
    _PROMISE_UNTIL,
)
_KEEP = scoped.text(
    """
    UPDATE promises SET state = 'KEPT'
    WHERE agency = @agency AND case_id = :case_id AND state = 'OPEN' AND amount_minor <= (
        SELECT coalesce(sum(allocated_minor), 0) FROM case_payments
        WHERE agency = @agency AND case_id = :case_id AND state = 'ALLOCATED' AND value_date >= promises.made_on)
    RETURNING act_key
    """
)
_KNOWN_TITLES = scoped.text("SELECT count(*) FROM titles WHERE agency = @agency AND id = ANY (:title_ids)")

# Sums move by the difference that this statement makes, so that a case of 100,000 titles costs no more than
# a small one;
# the oldest open title is the first row of its index that is open.
_CHANGE_TITLES = scoped.text(
    """
    WITH news AS (
        SELECT DISTINCT ON (title_id) title_id, version, state, open_minor, due_date
        FROM unnest(CAST(:title_ids AS uuid[]), CAST(:versions AS bigint[]), CAST(:states AS text[]),
                    CAST(:open_minor AS bigint[]), CAST(:due_dates AS date[]))
            AS row (title_id, version, state, open_minor, due_date)
        ORDER BY title_id, version DESC
    ), changed AS (
        UPDATE titles SET state = news.state, open_principal_minor = news.open_minor, version = news.version,
            due_date = coalesce(news.due_date, titles.due_date)
        FROM news
        WHERE titles.agency = @agency AND titles.id = news.title_id AND titles.version < news.version
          AND NOT titles.withdrawn
        RETURNING titles.case_id, new.id AS title_id, new.due_date, new.open_principal_minor AS open_now,
                  old.open_principal_minor AS open_before, old.due_date AS due_before
    ), sums AS (
        SELECT case_id, sum(open_now - open_before)::bigint AS minor,
               (count(*) FILTER (WHERE open_now > 0) - count(*) FILTER (WHERE open_before > 0))::integer AS titles,
               min(due_date) FILTER (WHERE open_now > 0) AS oldest, array_agg(title_id) AS ids
        FROM changed WHERE open_now <> open_before OR (open_now > 0 AND due_date <> due_before) GROUP BY case_id
    )
    UPDATE cases SET
        open_principal_minor = cases.open_principal_minor + sums.minor,
        open_titles = cases.open_titles + sums.titles,
        oldest_due_date = least(sums.oldest, (
            SELECT other.due_date FROM titles AS other
            WHERE other.agency = @agency AND other.case_id = cases.id AND other.open_principal_minor > 0
              AND other.id <> ALL (sums.ids)
            ORDER BY other.due_date, other.id LIMIT 1)),
        version = cases.version + 1, updated_at = :now
    FROM sums WHERE cases.agency = @agency AND cases.id = sums.case_id
    RETURNING cases.id, cases.version, cases.state, cases.sub_state, cases.held_state, cases.held_sub_state,
              cases.open_principal_minor, cases.open_titles, cases.agreements_in_force
    """
)
_ADD_NOVATED = scoped.text(
    """
    WITH new AS (
        INSERT INTO titles (agency, id, case_id, contract_id, title_reference, title_type, due_date, principal_minor,
                            open_principal_minor, penalty_rate_e4, monthly_interest_rate_e4, state)
        SELECT :agency, row.title_id, row.case_id, cases.contract_id, row.title_reference, 'NOVATION', row.due_date,
               row.principal, row.principal, row.penalty_rate, row.monthly_rate, 'OPEN'
        FROM unnest(CAST(:title_id AS uuid[]), CAST(:case_id AS uuid[]), CAST(:title_reference AS text[]),
                    CAST(:due_date AS date[]), CAST(:principal_minor AS bigint[]),
                    CAST(:penalty_rate_e4 AS bigint[]), CAST(:monthly_interest_rate_e4 AS bigint[]))
             AS row (title_id, case_id, title_reference, due_date, principal, penalty_rate, monthly_rate)
        JOIN cases ON cases.agency = @agency AND cases.id = row.case_id
        ORDER BY row.title_id
        ON CONFLICT DO NOTHING
        RETURNING case_id, principal_minor, due_date
    ), sums AS (
        SELECT case_id, sum(principal_minor)::bigint AS minor, count(*)::integer AS titles, min(due_date) AS oldest
        FROM new GROUP BY case_id
    )
    UPDATE cases SET
        placed_principal_minor = cases.placed_principal_minor + sums.minor,
        open_principal_minor = cases.open_principal_minor + sums.minor,
        open_titles = cases.open_titles + sums.titles,
        oldest_due_date = least(cases.oldest_due_date, sums.oldest),
        version = cases.version + 1, updated_at = :now
    FROM sums WHERE cases.agency = @agency AND cases.id = sums.case_id
    RETURNING cases.id, cases.version, cases.state, cases.sub_state, cases.held_state, cases.held_sub_state,
              cases.open_principal_minor, cases.open_titles, cases.agreements_in_force
    """
).bindparams(sa.bindparam("agency", type_=sa.Uuid))
_CHANGE_AGREEMENT = scoped.text(
    """
    INSERT INTO case_agreements AS known (agency, case_id, agreement_id, state, version)
    VALUES (:agency, :case_id, :agreement_id, :state, :version)
    ON CONFLICT (agency, case_id, agreement_id) DO UPDATE SET state = excluded.state, version = excluded.version
    WHERE known.version < excluded.version
    """
)
_AGREEMENTS_IN_FORCE = scoped.text(
    """
    UPDATE cases SET agreements_in_force = (
        SELECT count(*) FROM case_agreements
        WHERE agency = @agency AND case_id = :case_id AND state = ANY (:in_force))
    WHERE agency = @agency AND id = :case_id
    """
)
_CHANGE_PAYMENT = scoped.text(
    """
    INSERT INTO case_payments AS known (agency, case_id, payment_id, state, allocated_minor, value_date, version)
    VALUES (:agency, :case_id, :payment_id, :state, :allocated_minor, :value_date, :version)
    ON CONFLICT (agency, case_id, payment_id) DO UPDATE SET
        state = excluded.state, allocated_minor = excluded.allocated_minor, value_date = excluded.value_date,
        version = excluded.version
    WHERE known.version < excluded.version
    """
)
