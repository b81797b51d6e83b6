"""What an agreement has beside its plan: its kind, the titles a novation made and their lineage, how it was accepted,
the signed confession, how it ended."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from agreement_service.domain import accounts, creditors, novations
from agreement_service.store import tables
from agreement_service.store.tables import (
    BIG,
    BOOL,
    BYTES,
    INSTANT,
    INT,
    TEXT,
    UUID,
    business,
    incidental,
    reference,
)
from servicekit import db

title_lineage = tables.table(
    "title_lineage",
    ["title_id", "parent_id"],
    reference("agreement_id", "agreements"),
    reference("case_id", "case_accounts"),
    reference("title_id", "titles", key=True),
    reference("parent_case_id", "case_accounts"),
    reference("parent_id", "titles", key=True),
)
ending_entries = tables.table(
    "ending_entries",
    ["agreement_id", "place"],
    reference("agreement_id", "agreements", key=True),
    business("place", INT, key=True),
    reference("case_id", "case_accounts"),
    reference("title_id", "titles"),
    reference("instalment_id", "instalments"),
    business("component", TEXT),
    business("kind", TEXT),
    business("amount_minor", BIG),
)
signed_documents = tables.table(
    "signed_documents",
    ["agreement_id"],
    reference("agreement_id", "agreements", key=True),
    incidental("blob_id", UUID, "UUID made by this service"),
    business("content_type", TEXT),
    business("size_bytes", BIG),
    business("sha256", BYTES),
    incidental("uploaded_at", INSTANT, "instant of the agency's clock when it was handled"),
    incidental("expire_at", INSTANT, "instant of the agency's clock when it was handled"),
    business("erased", BOOL),
    business("erase_reason", TEXT),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What an agreement has beside `agreements.Record`; channel and names empty where nobody accepted yet."""

    id: uuid.UUID
    number: int
    nature: novations.Nature
    breach_policy: creditors.BreachPolicy
    prefix: str
    confession_required: bool
    accept_channel: str
    accepted_by: str
    grace_date: datetime.date | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """A signed confession of debt: where its content is, and evidence of it."""

    blob_id: uuid.UUID
    content_type: str
    size_bytes: int
    sha256: bytes
    uploaded_at: datetime.datetime
    expire_at: datetime.datetime
    erased: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A title that a novation made, for facts."""

    case_id: uuid.UUID
    title_id: uuid.UUID
    reference: str
    principal_minor: int
    due_date: datetime.date
    agreement_id: uuid.UUID
    penalty_rate_e4: int
    monthly_rate_e4: int
    currency: str


_SET_NATURE = tables.sql(
    """
    UPDATE agreements SET kind = :kind, tolerance_date = :tolerance_date, acquirer = :acquirer,
        contact_person_id = :contact_person_id, responsible = :responsible, breach_policy = :breach_policy,
        novation_prefix = :prefix, confession_required = :confession_required
    WHERE agency = :agency AND id = :id
    """
)
_DETAILS = tables.sql(
    """
    SELECT id, number, kind, tolerance_date, acquirer, contact_person_id, responsible, breach_policy,
        novation_prefix AS prefix, confession_required, accept_channel, accepted_by, grace_date
    FROM agreements WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))
    """
)
_ACCEPTED = tables.sql(
    "UPDATE agreements SET accept_channel = :channel, accepted_by = :accepted_by WHERE agency = :agency AND id = :id"
)
_REINSTATED = tables.sql(
    "UPDATE agreements SET reinstate_reason = :reason WHERE agency = :agency AND id = :id"
)
# The parent's row with what is different: terms of late charges are the parent's, whatever columns they take.
_INSERT_TITLES = tables.sql(
    """
    INSERT INTO titles
    SELECT (jsonb_populate_record(parent, jsonb_build_object(
        'case_id', new.case_id, 'id', new.id, 'reference', new.reference, 'batch_id', NULL, 'due_date', new.due_date,
        'payable_until', new.payable_until, 'principal_minor', new.principal, 'accrued_through', new.due_date,
        'corrected_through', NULL, 'once_charged', false, 'agreement_id', NULL,
        'origin_agreement_id', CAST(:agreement_id AS uuid), 'acquirer', CAST(:acquirer AS text), 'state', 'OPEN',
        'version', 1, 'open_principal_minor', new.principal) || CAST(:zeros AS jsonb))).*
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:references AS text[]),
            CAST(:due_dates AS date[]), CAST(:payable AS date[]), CAST(:principals AS bigint[]))
            AS new (case_id, id, reference, due_date, payable_until, principal),
        titles AS parent
    WHERE parent.agency = :agency AND parent.case_id = :parent_case_id AND parent.id = :parent_id
    ORDER BY new.case_id, new.id
    """
).bindparams(sa.bindparam("zeros", type_=sa.JSON()))
_LINEAGE = tables.sql(
    """
    INSERT INTO title_lineage (agency, agreement_id, case_id, title_id, parent_case_id, parent_id)
    SELECT CAST(:agency AS uuid), CAST(:agreement_id AS uuid), child.case_id, child.id, parent.case_id, parent.title_id
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:ids AS uuid[])) AS child (case_id, id), agreement_titles AS parent
    WHERE parent.agency = :agency AND parent.agreement_id = :agreement_id AND NOT parent.novated
    ORDER BY child.id, parent.title_id
    """
)
_MARK_ORIGINALS = tables.sql(
    "UPDATE agreement_titles SET novated = true WHERE agency = :agency AND agreement_id = :agreement_id"
)
_AGREE_NEW = tables.sql(
    """
    INSERT INTO agreement_titles (agency, agreement_id, case_id, title_id, title_version, principal_minor,
        penalty_minor, interest_minor, waived_penalty_minor, waived_interest_minor)
    SELECT CAST(:agency AS uuid), CAST(:agreement_id AS uuid), case_id, id, 1, principal, 0, 0, 0, 0
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:principals AS bigint[]))
        AS new (case_id, id, principal)
    ORDER BY id
    """
)
_DROP_ENTRIES = tables.sql(
    "DELETE FROM ending_entries WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))"
)
_ADD_ENTRIES = tables.sql(
    """
    INSERT INTO ending_entries (agency, agreement_id, place, case_id, title_id, instalment_id, component, kind,
        amount_minor)
    SELECT CAST(:agency AS uuid), new.*
    FROM unnest(CAST(:ids AS uuid[]), CAST(:places AS int[]), CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]),
        CAST(:instalment_ids AS uuid[]), CAST(:components AS text[]), CAST(:kinds AS text[]),
        CAST(:amounts AS bigint[]))
        AS new (agreement_id, place, case_id, title_id, instalment_id, component, kind, amount)
    ORDER BY new.agreement_id, new.place
    """
)
_END_EPOCHS = tables.sql(
    """
    UPDATE agreement_cases SET end_epoch = case_accounts.epoch, next_day = '9999-12-31' FROM case_accounts
    WHERE agreement_cases.agency = :agency AND agreement_cases.agreement_id = ANY(CAST(:ids AS uuid[]))
        AND case_accounts.agency = :agency AND case_accounts.case_id = agreement_cases.case_id
    """
)
_SAME_EPOCHS = tables.sql(
    """
    SELECT bool_and(coalesce(agreement_cases.end_epoch = case_accounts.epoch, false)
        AND case_accounts.agreement_id IS NULL)
    FROM agreement_cases JOIN case_accounts
        ON case_accounts.agency = agreement_cases.agency AND case_accounts.case_id = agreement_cases.case_id
    WHERE agreement_cases.agency = :agency AND agreement_cases.agreement_id = :id
    """
)
_REBIND = tables.sql(
    """
    UPDATE case_accounts SET agreement_id = CAST(:id AS uuid)
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[]))
    """
)
_ENDING = tables.sql(
    """
    SELECT case_id, title_id, instalment_id, component, kind, amount_minor
    FROM ending_entries WHERE agency = :agency AND agreement_id = :id ORDER BY place
    """
)
_ADD_DOCUMENT = tables.sql(
    """
    INSERT INTO signed_documents (agency, agreement_id, blob_id, content_type, size_bytes, sha256, uploaded_at,
        expire_at)
    VALUES (:agency, :agreement_id, :blob_id, :content_type, :size_bytes, :sha256, :uploaded_at, :expire_at)
    """
)
_DOCUMENTS = tables.sql(
    """
    SELECT agreement_id, blob_id, content_type, size_bytes, sha256, uploaded_at, expire_at, erased
    FROM signed_documents WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))
    """
)
_ERASE_DOCUMENT = tables.sql(
    """
    UPDATE signed_documents SET erased = true, erase_reason = :reason
    WHERE agency = :agency AND agreement_id = :id AND NOT erased
    """
)
_WALK = {
    "ancestors": ("parent_id", "title_id", "parent_case_id"),
    "descendants": ("title_id", "parent_id", "case_id"),
}
_RELATIVES = {
    name: tables.sql(
        f"""
        WITH RECURSIVE found (case_id, id) AS (
            SELECT {case}, {far} FROM title_lineage WHERE agency = :agency AND {near} = :id
            UNION
            SELECT title_lineage.{case}, title_lineage.{far}
            FROM found JOIN title_lineage ON title_lineage.{near} = found.id WHERE title_lineage.agency = :agency
        )
        SELECT case_id, id FROM found
        """  # noqa: S608 -- text of this module
    )
    for name, (far, near, case) in _WALK.items()
}
_MADE = tables.sql(
    """
    SELECT titles.case_id, titles.id AS title_id, titles.reference, titles.principal_minor, titles.due_date,
        titles.origin_agreement_id AS agreement_id, titles.penalty_rate_e4, titles.monthly_rate_e4,
        case_accounts.currency
    FROM titles JOIN case_accounts ON case_accounts.agency = titles.agency AND case_accounts.case_id = titles.case_id
    WHERE titles.agency = :agency AND titles.origin_agreement_id = ANY(CAST(:ids AS uuid[])) AND titles.acquirer = ''
    ORDER BY titles.origin_agreement_id, titles.due_date, titles.reference
    """
)
_ORIGINS = tables.sql(
    """
    SELECT DISTINCT origin_agreement_id FROM titles
    WHERE agency = :agency AND origin_agreement_id > :after ORDER BY origin_agreement_id LIMIT :limit
    """
)
_PARENTS = tables.sql(
    """
    SELECT agreement_id, title_id FROM agreement_titles
    WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[])) AND novated ORDER BY agreement_id, title_id
    """
)


def set_nature(
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    nature: novations.Nature,
    settings: creditors.CreditorSettings,
) -> None:
    """Note the kind of a new proposal, and what the creditor's settings say of its life."""
    tx.execute(
        _SET_NATURE,
        {
            "agency": agency,
            "id": agreement_id,
            "kind": nature.kind.value,
            "tolerance_date": nature.tolerance_date,
            "acquirer": nature.acquirer,
            "contact_person_id": nature.contact_person_id,
            "responsible": nature.responsible,
            "breach_policy": settings.breach_policy.value,
            "prefix": settings.novation_prefix,
            "confession_required": settings.confession_required,
        },
    )


def details(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> Mapping[uuid.UUID, Details]:
    """What agreements have beside their plan."""
    found = {}
    for row in tx.execute(_DETAILS, {"agency": agency, "ids": sorted(set(ids))}).mappings():
        fields = dict(row)
        nature = novations.Nature(
            kind=accounts.AgreementKind(fields.pop("kind")),
            **{
                name: fields.pop(name)
                for name in ("tolerance_date", "acquirer", "contact_person_id", "responsible")
            },
        )
        fields["breach_policy"] = creditors.BreachPolicy(fields["breach_policy"])
        found[row["id"]] = Details(nature=nature, **fields)
    return found


def set_accepted(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, *, channel: str, accepted_by: str
) -> None:
    """Note how and by whom it was accepted."""
    tx.execute(
        _ACCEPTED, {"agency": agency, "id": agreement_id, "channel": channel, "accepted_by": accepted_by}
    )


def add_titles(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    acquirer: str,
    parent: accounts.Title,
    new: Sequence[accounts.Title],
) -> None:
    """Insert a novation's titles with the parent's terms, and their lineage from all its originals."""
    case_ids, title_ids = [one.case_id for one in new], [one.title_id for one in new]
    principals = [one.principal_minor for one in new]
    scope = {"agency": agency, "agreement_id": agreement_id}
    tx.execute(
        _INSERT_TITLES,
        {
            **scope,
            "acquirer": acquirer,
            "parent_case_id": parent.case_id,
            "parent_id": parent.title_id,
            "case_ids": case_ids,
            "ids": title_ids,
            "references": [one.reference for one in new],
            "due_dates": [one.due_date for one in new],
            "payable": [one.payable_until for one in new],
            "principals": principals,
            "zeros": {name: 0 for name in novations.MOVING if name != "open_principal_minor"},
        },
    )
    tx.execute(_LINEAGE, {**scope, "case_ids": case_ids, "ids": title_ids})
    tx.execute(_MARK_ORIGINALS, scope)
    if not acquirer:
        tx.execute(_AGREE_NEW, {**scope, "case_ids": case_ids, "ids": title_ids, "principals": principals})


def save_endings(
    tx: db.Transaction, agency: uuid.UUID, endings: Mapping[uuid.UUID, Sequence[accounts.Entry]]
) -> None:
    """Keep what the end of agreements did, in place of what an earlier end did; their cases are free already."""
    if not endings:
        return
    scope = {"agency": agency, "ids": tables.array(sorted(endings))}
    tx.execute(_DROP_ENTRIES, scope)
    rows = [
        (key, place, entry) for key in sorted(endings) for place, entry in enumerate(endings[key], start=1)
    ]
    if rows:
        columns: dict[str, str] = {
            "ids": tables.array([key for key, _, _ in rows]),
            "places": tables.array([place for _, place, _ in rows]),
            "case_ids": tables.array([entry.case_id for _, _, entry in rows]),
            "title_ids": tables.array([entry.title_id for _, _, entry in rows]),
            "instalment_ids": tables.array([entry.instalment_id for _, _, entry in rows]),
            "components": tables.array([entry.component.value for _, _, entry in rows]),
            "kinds": tables.array([entry.kind.value for _, _, entry in rows]),
            "amounts": tables.array([entry.amount_minor for _, _, entry in rows]),
        }
        tx.execute(_ADD_ENTRIES, {"agency": agency, **columns})
    tx.execute(_END_EPOCHS, scope)


def ending(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID) -> list[accounts.Entry]:
    """What the end of an agreement did, in order."""
    return [
        accounts.Entry(
            **{
                **row,
                "component": accounts.Component(row["component"]),
                "kind": accounts.Kind(row["kind"]),
            }
        )
        for row in tx.execute(_ENDING, {"agency": agency, "id": agreement_id}).mappings()
    ]


def free_since_the_end(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID) -> bool:
    """Whether no case of an ended agreement began another epoch since: no agreement, no withdrawal, no write-off."""
    return bool(tx.execute(_SAME_EPOCHS, {"agency": agency, "id": agreement_id}).scalar_one())


def rebind(
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    *,
    case_ids: Sequence[uuid.UUID],
    reason: str,
) -> None:
    """Cases are in their agreement again, in the epoch they are in: its payments are the agreement's now."""
    tx.execute(_REBIND, {"agency": agency, "id": agreement_id, "case_ids": sorted(case_ids)})
    tx.execute(_REINSTATED, {"agency": agency, "id": agreement_id, "reason": reason})
    tx.execute(_DROP_ENTRIES, {"agency": agency, "ids": [agreement_id]})


def add_document(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, document: SignedDocument
) -> None:
    """Keep a signed confession."""
    fields = dataclasses.asdict(document)
    fields.pop("erased")
    tx.execute(_ADD_DOCUMENT, {"agency": agency, "agreement_id": agreement_id, **fields})


def documents(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, SignedDocument]:
    """Signed confessions by agreement."""
    found = {}
    for row in tx.execute(_DOCUMENTS, {"agency": agency, "ids": sorted(set(ids))}).mappings():
        fields = dict(row)
        agreement_id = fields.pop("agreement_id")
        found[agreement_id] = SignedDocument(**fields)
    return found


def erase_document(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, *, reason: str) -> bool:
    """Note that a signed confession's content was erased; False where it was before."""
    return tx.execute(_ERASE_DOCUMENT, {"agency": agency, "id": agreement_id, "reason": reason}).rowcount == 1


def relatives(
    tx: db.Transaction, agency: uuid.UUID, title_id: uuid.UUID
) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """Ancestors and descendants of a title, all generations."""
    params = {"agency": agency, "id": title_id}
    up, down = (
        [row.id for row in tx.execute(_RELATIVES[name], params)] for name in ("ancestors", "descendants")
    )
    return up, down


def made(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Made]]:
    """The debtor's titles that novations made, by agreement."""
    grouped: dict[uuid.UUID, list[Made]] = {}
    for row in tx.execute(_MADE, {"agency": agency, "ids": sorted(set(agreement_ids))}).mappings():
        grouped.setdefault(row["agreement_id"], []).append(Made(**row))
    return grouped


def origins(tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID, limit: int) -> list[uuid.UUID]:
    """Agreements that made titles, in id order, for republish."""
    params = {"agency": agency, "after": after, "limit": limit}
    return list(tx.execute(_ORIGINS, params).scalars())


def parents(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[uuid.UUID]]:
    """Originals of novations, by agreement."""
    grouped: dict[uuid.UUID, list[uuid.UUID]] = {}
    for row in tx.execute(_PARENTS, {"agency": agency, "ids": sorted(set(agreement_ids))}):
        grouped.setdefault(row.agreement_id, []).append(row.title_id)
    return grouped
