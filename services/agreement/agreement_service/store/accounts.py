"""Accounts: locked, loaded and written back, many at a time, one statement a table."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

from agreement_service.domain import accounts, creditors
from agreement_service.store import tables, terms
from servicekit import db

ANCHORS = "case_accounts"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a title belongs."""

    title_id: uuid.UUID
    case_id: uuid.UUID
    creditor_id: uuid.UUID
    currency: str
    consumer: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseAccount:
    """One row of case_accounts with its creditor's own reference."""

    case_id: uuid.UUID
    creditor_id: uuid.UUID
    creditor_reference: str
    debtor_id: uuid.UUID
    contract_reference: str
    currency: str
    partition: int
    agreement_id: uuid.UUID | None
    epoch: int


_CASES = tables.sql(
    """
    SELECT case_accounts.case_id, case_accounts.creditor_id, creditors.creditor_reference, case_accounts.debtor_id,
        case_accounts.contract_reference, case_accounts.currency, case_accounts.partition,
        case_accounts.agreement_id, case_accounts.epoch
    FROM case_accounts JOIN creditors
        ON creditors.agency = case_accounts.agency AND creditors.creditor_id = case_accounts.creditor_id
    WHERE case_accounts.agency = :agency AND case_accounts.case_id = ANY(CAST(:ids AS uuid[]))
        AND (CAST(:creditor AS uuid) IS NULL OR case_accounts.creditor_id = :creditor)
    ORDER BY case_accounts.case_id
    """
)
_PLACES = tables.sql(
    """
    SELECT titles.id AS title_id, titles.case_id, case_accounts.creditor_id, case_accounts.currency,
        case_accounts.consumer
    FROM titles JOIN case_accounts ON case_accounts.agency = titles.agency AND case_accounts.case_id = titles.case_id
    WHERE titles.agency = :agency AND titles.id = ANY(CAST(:ids AS uuid[]))
    """
)
_BOUND_WITH = tables.sql(
    """
    SELECT DISTINCT other.case_id
    FROM case_accounts AS one JOIN case_accounts AS other
        ON other.agency = one.agency AND other.agreement_id = one.agreement_id
    WHERE one.agency = :agency AND one.case_id = ANY(CAST(:ids AS uuid[]))
    """
)
_MEMBERS = tables.sql(
    "SELECT case_id FROM case_accounts WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))"
)
_BALANCE = (
    "open_principal_minor",
    "open_correction_minor",
    "open_penalty_minor",
    "open_interest_minor",
    "open_costs_minor",
    "open_fees_minor",
    "charged_correction_minor",
    "charged_penalty_minor",
    "charged_interest_minor",
    "charged_costs_minor",
    "charged_fees_minor",
    "received_minor",
    "waived_minor",
    "withdrawn_minor",
    "written_off_minor",
    "novated_minor",
)
"""What moves on a title: columns of the table and fields of `accounts.Title` alike."""
OPEN = " + ".join(f"titles.{name}" for name in _BALANCE if name.startswith("open_"))
"""What is open and posted of a title."""
_TITLE_COLUMNS = f"""
    id AS title_id, case_id, reference, due_date, payable_until, principal_minor, penalty_rate_e4, monthly_rate_e4,
    accrued_through, {", ".join(_BALANCE)}, title_type, own_penalty, own_interest, bears_interest, corrected_through,
    once_charged, terms_id, agreement_id, origin_agreement_id, acquirer, state, version
"""
_TITLES = tables.sql(
    f"""
    SELECT {_TITLE_COLUMNS} FROM titles
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[])) AND (
        {OPEN} > 0 OR agreement_id IS NOT NULL OR id = ANY(CAST(:also AS uuid[])))
    """  # noqa: S608 -- column names of this module
)
_POSTED = tables.sql(
    """
    SELECT postings.case_id, postings.title_id, postings.component, postings.base_minor, postings.numerator,
        postings.denominator, postings.rule, postings.from_date, postings.through_date,
        CAST(sum(postings.amount_minor) AS bigint) AS amount_minor
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[])) AS wanted (case_id, title_id)
    JOIN postings ON postings.agency = :agency AND postings.case_id = wanted.case_id
        AND postings.title_id = wanted.title_id AND postings.kind = 'CHARGED'
    GROUP BY postings.case_id, postings.title_id, postings.component, postings.base_minor, postings.numerator,
        postings.denominator, postings.rule, postings.from_date, postings.through_date
    HAVING sum(postings.amount_minor) <> 0 ORDER BY max(postings.id)
    """
)
_AGREEMENTS = tables.sql(
    """
    SELECT id AS agreement_id, case_id, state, currency, expire_date, notice_days, missed_days, broken_days, kind,
        breach_policy, acquirer, grace_date, end_date, version,
        ARRAY(SELECT agreement_cases.case_id FROM agreement_cases WHERE agreement_cases.agency = agreements.agency
            AND agreement_cases.agreement_id = agreements.id ORDER BY agreement_cases.case_id) AS case_ids
    FROM agreements WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))
    """
)
_INSTALMENTS = tables.sql(
    """
    SELECT id AS instalment_id, agreement_id, number, due_date, payable_until, capital_minor, interest_minor,
        charged_interest_minor, paid_interest_minor, paid_capital_minor, paid_date, state, version
    FROM instalments WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))
    """
)
_AGREED = tables.sql(
    f"""
    SELECT agreement_id, {", ".join(field.name for field in dataclasses.fields(accounts.AgreedTitle))}
    FROM agreement_titles WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[])) AND novated = :novated
    """  # noqa: S608 -- column names of the domain
)
_AGREEMENTS_OF_INSTALMENTS = tables.sql(
    "SELECT DISTINCT agreement_id FROM instalments WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))"
)
_WRITE_TITLES = tables.sql(
    f"""
    UPDATE titles SET accrued_through = new.accrued_through, corrected_through = new.corrected_through,
        once_charged = new.once_charged, agreement_id = new.agreement_id, state = new.state,
        version = new.version, {", ".join(f"{name} = new.{name}" for name in _BALANCE)}
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:accrued_through AS date[]),
        CAST(:corrected_through AS date[]), CAST(:once_charged AS boolean[]),
        CAST(:agreement_ids AS uuid[]), CAST(:states AS text[]), CAST(:versions AS bigint[]),
        {", ".join(f"CAST(:{name} AS bigint[])" for name in _BALANCE)})
        AS new (case_id, id, accrued_through, corrected_through, once_charged, agreement_id, state, version,
            {", ".join(_BALANCE)})
    WHERE titles.agency = :agency AND titles.case_id = new.case_id AND titles.id = new.id
        AND titles.version = new.version - 1
    """  # noqa: S608 -- column names of this module
)
_WRITE_INSTALMENTS = tables.sql(
    """
    UPDATE instalments SET charged_interest_minor = new.charged_interest, paid_interest_minor = new.paid_interest,
        paid_capital_minor = new.paid_capital, paid_date = new.paid_date, state = new.state, version = new.version
    FROM unnest(CAST(:ids AS uuid[]), CAST(:charged_interest AS bigint[]), CAST(:paid_interest AS bigint[]),
        CAST(:paid_capital AS bigint[]), CAST(:paid_dates AS date[]), CAST(:states AS text[]),
        CAST(:versions AS bigint[]))
        AS new (id, charged_interest, paid_interest, paid_capital, paid_date, state, version)
    WHERE instalments.agency = :agency AND instalments.id = new.id AND instalments.version = new.version - 1
    """
)
_WRITE_AGREEMENTS = tables.sql(
    """
    UPDATE agreements SET state = new.state, end_date = new.end_date, grace_date = new.grace_date, version = new.version
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:end_dates AS date[]),
        CAST(:grace_dates AS date[]), CAST(:versions AS bigint[])) AS new (id, state, end_date, grace_date, version)
    WHERE agreements.agency = :agency AND agreements.id = new.id AND agreements.version = new.version - 1
    """
)
# An agreement that ends keeps its day: then the daily run sees that it is over.
_ANY_DAY = tables.sql(
    """
    UPDATE agreement_cases SET next_day = DEFAULT
    WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[])) AND next_day <> '0001-01-01'
    """
)
_POST = tables.sql(
    """
    INSERT INTO postings (agency, case_id, title_id, instalment_id, component, kind, amount_minor, currency,
        business_date, value_date, from_date, through_date, base_minor, numerator, denominator, rule, payment_id,
        agreement_id)
    SELECT CAST(:agency AS uuid), new.case_id, new.title_id, new.instalment_id, new.component, new.kind, new.amount,
        case_accounts.currency, CAST(:business_date AS date), new.value_date, new.from_date, new.through_date,
        new.base_minor, new.numerator, new.denominator, new.rule, new.payment_id, new.agreement_id
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]), CAST(:instalment_ids AS uuid[]),
        CAST(:components AS text[]), CAST(:kinds AS text[]), CAST(:amounts AS bigint[]), CAST(:value_dates AS date[]),
        CAST(:from_dates AS date[]), CAST(:through_dates AS date[]), CAST(:bases AS bigint[]),
        CAST(:numerators AS bigint[]), CAST(:denominators AS bigint[]), CAST(:rules AS text[]),
        CAST(:payment_ids AS uuid[]), CAST(:agreement_ids AS uuid[])) WITH ORDINALITY
        AS new (case_id, title_id, instalment_id, component, kind, amount, value_date, from_date, through_date,
            base_minor, numerator, denominator, rule, payment_id, agreement_id, place)
        JOIN case_accounts ON case_accounts.agency = :agency AND case_accounts.case_id = new.case_id
    ORDER BY new.place
    """
)
_BIND = tables.sql(
    """
    UPDATE case_accounts SET agreement_id = CAST(:agreement_id AS uuid), epoch = epoch + 1
    WHERE agency = :agency AND case_id = ANY(CAST(:ids AS uuid[]))
    """
)
_NEW_EPOCH = tables.sql(
    "UPDATE case_accounts SET epoch = epoch + 1 WHERE agency = :agency AND case_id = ANY(CAST(:ids AS uuid[]))"
)


def cases(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, creditor: uuid.UUID | None = None
) -> dict[uuid.UUID, CaseAccount]:
    """The accounts of these cases that exist (and are the creditor's, where one is given)."""
    params = {"agency": agency, "ids": tables.array(set(ids)), "creditor": creditor}
    found = tables.rows(tx.execute(_CASES, params))
    return {row["case_id"]: CaseAccount(**row) for row in found}


def places(tx: db.Transaction, agency: uuid.UUID, title_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Place]:
    """Case, creditor and currency of these titles, by title; of those that exist."""
    found = tx.execute(_PLACES, {"agency": agency, "ids": sorted(set(title_ids))}).mappings()
    return {row["title_id"]: Place(**row) for row in found}


def lock(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, CaseAccount]:
    """Lock these cases and all that are bound with them in an agreement, in id order; their accounts.

    Which cases are bound together may change before the locks are held: then they are given back and taken anew.
    """
    wanted = set(ids)
    while True:
        wanted |= _bound_with(tx, agency, wanted)
        mark = tx.connection.begin_nested()
        db.lock_anchors(tx, ANCHORS, agency, wanted)
        locked = cases(tx, agency, wanted)
        bound = tables.array({one.agreement_id for one in locked.values()} - {None})
        if not set(tx.execute(_MEMBERS, {"agency": agency, "ids": bound}).scalars()) - wanted:
            mark.commit()
            return locked
        mark.rollback()


def _bound_with(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID]) -> set[uuid.UUID]:
    if not ids:
        return set()
    return set(tx.execute(_BOUND_WITH, {"agency": agency, "ids": tables.array(ids)}).scalars())


def titles(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, also: Iterable[uuid.UUID] = ()
) -> list[accounts.Title]:
    """Titles of these cases that are open or in an agreement, and `also` these."""
    params = {
        "agency": agency,
        "case_ids": tables.array(set(case_ids)),
        "also": tables.array(set(also)),
    }
    found = tables.rows(tx.execute(_TITLES, params))
    rules = terms.rules(tx, agency, {row["terms_id"] for row in found if row["terms_id"] is not None})
    return [
        accounts.Title(**{**row, "state": accounts.TitleState(row["state"]), "rules": rules[row["terms_id"]]})
        for row in found
    ]


def posted_charges(
    tx: db.Transaction, agency: uuid.UUID, titles: Iterable[accounts.Title]
) -> dict[uuid.UUID, list[accounts.Entry]]:
    """What is charged on these titles by title, net of contra entries, in the order in which it was posted."""
    charged = [one for one in titles if any(one.charged_of(component) for component in accounts.CHARGES)]
    grouped: dict[uuid.UUID, list[accounts.Entry]] = {}
    if charged:
        ids = {
            "case_ids": [one.case_id for one in charged],
            "title_ids": [one.title_id for one in charged],
        }
        for row in tx.execute(_POSTED, {"agency": agency, **ids}).mappings():
            entry = accounts.Entry(
                **{**row, "component": accounts.Component(row["component"])},
                kind=accounts.Kind.CHARGED,
                instalment_id=None,
            )
            grouped.setdefault(row["title_id"], []).append(entry)
    return grouped


def agreements(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, accounts.Agreement]:
    """Agreements by id."""
    found = tables.rows(tx.execute(_AGREEMENTS, {"agency": agency, "ids": tables.array(set(ids))}))
    return {
        row["agreement_id"]: accounts.Agreement(
            **{
                **row,
                "state": accounts.AgreementState(row["state"]),
                "kind": accounts.AgreementKind(row["kind"]),
                "breach_policy": creditors.BreachPolicy(row["breach_policy"]),
                "case_ids": tuple(row["case_ids"]),
            }
        )
        for row in found
    }


def instalments(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[accounts.Instalment]]:
    """Instalments by agreement."""
    grouped: dict[uuid.UUID, list[accounts.Instalment]] = {}
    params = {"agency": agency, "ids": tables.array(set(agreement_ids))}
    for row in tables.rows(tx.execute(_INSTALMENTS, params)):
        instalment = accounts.Instalment(**{**row, "state": accounts.InstalmentState(row["state"])})
        grouped.setdefault(instalment.agreement_id, []).append(instalment)
    return grouped


def agreed(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID], *, novated: bool = False
) -> dict[uuid.UUID, list[accounts.AgreedTitle]]:
    """Agreed titles by agreement: those that it is paid by, or the originals that left circulation (`novated`)."""
    grouped: dict[uuid.UUID, list[accounts.AgreedTitle]] = {}
    params = {"agency": agency, "ids": tables.array(set(agreement_ids)), "novated": novated}
    for row in tables.rows(tx.execute(_AGREED, params)):
        grouped.setdefault(row.pop("agreement_id"), []).append(accounts.AgreedTitle(**row))
    return grouped


def agreements_of_instalments(
    tx: db.Transaction, agency: uuid.UUID, instalment_ids: Iterable[uuid.UUID]
) -> set[uuid.UUID]:
    """The agreements that these instalments are rows of."""
    params = {"agency": agency, "ids": sorted(set(instalment_ids))}
    return set(tx.execute(_AGREEMENTS_OF_INSTALMENTS, params).scalars())


def write_titles(tx: db.Transaction, agency: uuid.UUID, changed: Sequence[accounts.Title]) -> None:
    """Write titles whose version was counted up by one since they were loaded."""
    if not changed:
        return
    ordered = sorted(changed, key=lambda title: (title.case_id, title.title_id))
    columns: dict[str, str] = {
        "case_ids": tables.array([title.case_id for title in ordered]),
        "ids": tables.array([title.title_id for title in ordered]),
        "accrued_through": tables.array([title.accrued_through for title in ordered]),
        "corrected_through": tables.array([title.corrected_through for title in ordered]),
        "once_charged": tables.array([title.once_charged for title in ordered]),
        "agreement_ids": tables.array([title.agreement_id for title in ordered]),
        "states": tables.array([title.state.value for title in ordered]),
        "versions": tables.array([title.version for title in ordered]),
        **{name: tables.array([getattr(title, name) for title in ordered]) for name in _BALANCE},
    }
    _all_written(tx.execute(_WRITE_TITLES, {"agency": agency, **columns}).rowcount, len(ordered))


def write_instalments(tx: db.Transaction, agency: uuid.UUID, changed: Sequence[accounts.Instalment]) -> None:
    """Write instalments whose version was counted up by one since they were loaded."""
    if not changed:
        return
    ordered = sorted(changed, key=lambda instalment: instalment.instalment_id.int)
    columns: dict[str, str] = {
        "ids": tables.array([one.instalment_id for one in ordered]),
        "charged_interest": tables.array([one.charged_interest_minor for one in ordered]),
        "paid_interest": tables.array([one.paid_interest_minor for one in ordered]),
        "paid_capital": tables.array([one.paid_capital_minor for one in ordered]),
        "paid_dates": tables.array([one.paid_date for one in ordered]),
        "states": tables.array([one.state.value for one in ordered]),
        "versions": tables.array([one.version for one in ordered]),
    }
    _all_written(tx.execute(_WRITE_INSTALMENTS, {"agency": agency, **columns}).rowcount, len(ordered))


def write_agreements(tx: db.Transaction, agency: uuid.UUID, changed: Sequence[accounts.Agreement]) -> None:
    """Write agreements whose version was counted up by one since they were loaded. The daily run looks at those in
    force on the next day, whatever day it had noted."""
    if not changed:
        return
    ordered = sorted(changed, key=lambda agreement: agreement.agreement_id)
    columns: dict[str, str] = {
        "ids": tables.array([one.agreement_id for one in ordered]),
        "states": tables.array([one.state.value for one in ordered]),
        "end_dates": tables.array([one.end_date for one in ordered]),
        "grace_dates": tables.array([one.grace_date for one in ordered]),
        "versions": tables.array([one.version for one in ordered]),
    }
    _all_written(tx.execute(_WRITE_AGREEMENTS, {"agency": agency, **columns}).rowcount, len(ordered))
    going_on = tables.array([one.agreement_id for one in ordered if one.state in accounts.IN_FORCE])
    if going_on != tables.array([]):
        tx.execute(_ANY_DAY, {"agency": agency, "ids": going_on})


def post(
    tx: db.Transaction,
    agency: uuid.UUID,
    postings: Sequence[accounts.Posting],
    *,
    business_date: datetime.date,
) -> None:
    """Add entries to the ledger, in order."""
    if not postings:
        return
    columns: dict[str, str] = {
        "case_ids": tables.array([one.entry.case_id for one in postings]),
        "title_ids": tables.array([one.entry.title_id for one in postings]),
        "instalment_ids": tables.array([one.entry.instalment_id for one in postings]),
        "components": tables.array([one.entry.component.value for one in postings]),
        "kinds": tables.array([one.entry.kind.value for one in postings]),
        "amounts": tables.array([one.entry.amount_minor for one in postings]),
        "value_dates": tables.array([one.value_date for one in postings]),
        "from_dates": tables.array([one.entry.from_date for one in postings]),
        "through_dates": tables.array([one.entry.through_date for one in postings]),
        "bases": tables.array([one.entry.base_minor for one in postings]),
        "numerators": tables.array([one.entry.numerator for one in postings]),
        "denominators": tables.array([one.entry.denominator for one in postings]),
        "rules": tables.array([one.entry.rule for one in postings]),
        "payment_ids": tables.array([one.payment_id for one in postings]),
        "agreement_ids": tables.array([one.agreement_id for one in postings]),
    }
    tx.execute(_POST, {"agency": agency, "business_date": business_date, **columns})


def bind(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], agreement_id: uuid.UUID | None
) -> None:
    """Give cases an agreement, or take it away: a new epoch of their payments begins."""
    ids = tables.array(set(case_ids))
    tx.execute(_BIND, {"agency": agency, "ids": ids, "agreement_id": agreement_id})


def new_epoch(tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID]) -> None:
    """From now on earlier payments of these cases are not counted again."""
    tx.execute(_NEW_EPOCH, {"agency": agency, "ids": sorted(set(case_ids))})


class LostUpdate(RuntimeError):
    """A row changed although its case was locked: a mistake in the program."""


def _all_written(written: int, wanted: int) -> None:
    if written != wanted:
        raise LostUpdate(f"{written} of {wanted} rows written")
