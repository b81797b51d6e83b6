"""Payment conditions with their options, agreement categories, and what agreements were made from."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.domain import conditions
from agreement_service.store import tables
from servicekit import db

_OWN_ID = "UUID made by this service"
_WALL = "instant of the agency's clock when it was made"
_COUNTER = "counts writes: how often somebody changed it"

CONDITIONS = tables.table(
    "payment_conditions",
    ["creditor_id", "currency", "description"],
    tables.incidental("id", tables.UUID, _OWN_ID, key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("description", tables.TEXT),
    tables.business("active", tables.BOOL),
    tables.business("is_default", tables.BOOL),
    tables.business("currency", tables.TEXT),
    tables.business("value_from_minor", tables.BIG),
    tables.business("value_to_minor", tables.BIG),
    tables.business("delay_from", tables.INT),
    tables.business("delay_to", tables.INT),
    tables.business("days_to_first", tables.INT),
    tables.business("means_filter", tables.TEXTS),
    tables.business("charge_means", tables.TEXT),
    tables.business("interest_e4", tables.INT),
    tables.business("penalty_e4", tables.INT),
    tables.incidental("created_at", tables.INSTANT, _WALL),
    tables.incidental("version", tables.BIG, _COUNTER),
)
OPTIONS = tables.table(
    "payment_condition_options",
    ["condition_id", "number"],
    tables.incidental("id", tables.UUID, _OWN_ID, key=True),
    tables.reference("condition_id", "payment_conditions"),
    tables.business("number", tables.INT),
    tables.business("instalments", tables.INT),
    tables.business("interval_days", tables.INT),
    tables.business("interest_discount_e4", tables.INT),
    tables.business("debt_discount_e4", tables.INT),
    tables.business("with_entry", tables.BOOL),
    tables.business("minimum_entry_e4", tables.INT),
)
CATEGORIES = tables.table(
    "agreement_categories",
    ["title"],
    tables.incidental("id", tables.UUID, _OWN_ID, key=True),
    tables.business("title", tables.TEXT),
    tables.business("active", tables.BOOL),
    tables.incidental("created_at", tables.INSTANT, _WALL),
    tables.incidental("version", tables.BIG, _COUNTER),
)
OFFERS = tables.table(
    "agreement_offers",
    ["agreement_id"],
    tables.reference("agreement_id", "agreements", key=True),
    tables.reference("category_id", "agreement_categories"),
    tables.reference("condition_id", "payment_conditions"),
    tables.business("option_number", tables.INT),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A condition as stored."""

    condition: conditions.Condition
    created_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A category of agreements."""

    id: uuid.UUID
    title: str
    active: bool
    created_at: datetime.datetime
    version: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an agreement was made from, and how it is counted."""

    agreement_id: uuid.UUID
    category_id: uuid.UUID | None = None
    condition_id: uuid.UUID | None = None
    option_number: int | None = None


_FIELDS = (
    "creditor_id",
    "description",
    "active",
    "is_default",
    "currency",
    "value_from_minor",
    "value_to_minor",
    "delay_from",
    "delay_to",
    "days_to_first",
    "means_filter",
    "charge_means",
    "interest_e4",
    "penalty_e4",
)
_OPTION_FIELDS = tuple(
    field.name for field in dataclasses.fields(conditions.Option) if field.name not in ("id", "number")
)
_COLUMNS = f"id, {', '.join(_FIELDS)}, created_at, version"
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM payment_conditions
    WHERE agency = :agency AND (CAST(:after AS uuid) IS NULL OR id > :after)
        AND (CAST(:ids AS uuid[]) IS NULL OR id = ANY(CAST(:ids AS uuid[])))
        AND (CAST(:creditor_id AS uuid) IS NULL OR creditor_id IS NULL OR creditor_id = :creditor_id)
        AND (active OR NOT :active_only)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- names of this module
)
_LOCK = tables.sql("SELECT version FROM payment_conditions WHERE agency = :agency AND id = :id FOR UPDATE")
_OPTIONS = tables.sql(
    f"""
    SELECT condition_id, id, number, {", ".join(_OPTION_FIELDS)} FROM payment_condition_options
    WHERE agency = :agency AND condition_id = ANY(CAST(:ids AS uuid[])) ORDER BY condition_id, number
    """  # noqa: S608 -- as above
)
_INSERT = tables.sql(
    f"""
    INSERT INTO payment_conditions (agency, id, {", ".join(_FIELDS)}, created_at)
    VALUES (CAST(:agency AS uuid), :id, {", ".join(f":{one}" for one in _FIELDS)}, :now)
    """  # noqa: S608 -- as above
)
_UPDATE = tables.sql(
    f"""
    UPDATE payment_conditions SET {", ".join(f"{one} = :{one}" for one in _FIELDS)}, version = version + 1
    WHERE agency = :agency AND id = :id
    """  # noqa: S608 -- as above
)
_DROP_OPTIONS = tables.sql(
    "DELETE FROM payment_condition_options WHERE agency = :agency AND condition_id = :id"
    " AND number <> ALL(CAST(:numbers AS integer[]))"
)
_PUT_OPTION = tables.sql(
    f"""
    INSERT INTO payment_condition_options (agency, id, condition_id, number, {", ".join(_OPTION_FIELDS)})
    VALUES (CAST(:agency AS uuid), :id, :condition_id, :number, {", ".join(f":{one}" for one in _OPTION_FIELDS)})
    ON CONFLICT (agency, condition_id, number) DO UPDATE
    SET {", ".join(f"{one} = excluded.{one}" for one in _OPTION_FIELDS)}
    """  # noqa: S608 -- as above
)
_SAME = tables.sql(
    """
    SELECT count(*) FILTER (WHERE description = :description) AS descriptions,
        count(*) FILTER (WHERE is_default) AS defaults
    FROM payment_conditions
    WHERE agency = :agency AND currency = :currency AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid)
        AND id <> :id
    """
)
_GUARD = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('payment_conditions' || CAST(:agency AS text), 0))"
)
_USED = tables.sql("SELECT 1 FROM agreement_offers WHERE agency = :agency AND condition_id = :id LIMIT 1")
_DELETE = tables.sql("DELETE FROM payment_conditions WHERE agency = :agency AND id = :id")
_CATEGORIES = tables.sql(
    """
    SELECT id, title, active, created_at, version FROM agreement_categories
    WHERE agency = :agency AND (CAST(:after AS uuid) IS NULL OR id > :after)
        AND (CAST(:id AS uuid) IS NULL OR id = :id)
    ORDER BY id LIMIT :limit
    """
)
_ADD_CATEGORY = tables.sql(
    "INSERT INTO agreement_categories (agency, id, title, active, created_at)"
    " VALUES (CAST(:agency AS uuid), :id, :title, :active, :now) ON CONFLICT DO NOTHING"
)
_SET_CATEGORY = tables.sql(
    """
    UPDATE agreement_categories SET title = :title, active = :active, version = version + 1
    WHERE agency = :agency AND id = :id AND version = :version AND NOT EXISTS (SELECT FROM agreement_categories AS other
        WHERE other.agency = :agency AND other.title = :title AND other.id <> :id)
    """
)
_ADD_ORIGIN = tables.sql(
    "INSERT INTO agreement_offers (agency, agreement_id, category_id, condition_id, option_number)"
    " VALUES (CAST(:agency AS uuid), :agreement_id, :category_id, :condition_id, :option_number)"
)
_ORIGINS = tables.sql(
    "SELECT agreement_id, category_id, condition_id, option_number FROM agreement_offers"
    " WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))"
)


def guard(tx: db.Transaction, agency: uuid.UUID) -> None:
    """Conditions of an agency are changed one at a time: descriptions and defaults are checked against the others."""
    tx.execute(_GUARD, {"agency": agency})


def get(tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID) -> Stored | None:
    """One condition."""
    return next(iter(page(tx, agency, ids=[condition_id])), None)


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    ids: Sequence[uuid.UUID] | None = None,
    creditor_id: uuid.UUID | None = None,
    active_only: bool = False,
    after: uuid.UUID | None = None,
    limit: int = 10_000,
) -> list[Stored]:
    """Conditions in id order; with a creditor its own and those of all creditors."""
    rows = (
        tx.execute(
            _PAGE,
            {
                "agency": agency,
                "ids": None if ids is None else list(ids),
                "creditor_id": creditor_id,
                "active_only": active_only,
                "after": after,
                "limit": limit,
            },
        )
        .mappings()
        .all()
    )
    options: dict[uuid.UUID, list[conditions.Option]] = {}
    found = tx.execute(_OPTIONS, {"agency": agency, "ids": [row["id"] for row in rows]}).mappings()
    for option in found:
        values = {name: value for name, value in option.items() if name != "condition_id"}
        options.setdefault(option["condition_id"], []).append(conditions.Option(**values))
    return [
        Stored(
            condition=conditions.Condition(
                **{name: row[name] for name in ("id", *_FIELDS, "version") if name != "means_filter"},
                means_filter=tuple(row["means_filter"]),
                options=tuple(options.get(row["id"], ())),
            ),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def same(tx: db.Transaction, agency: uuid.UUID, one: conditions.Condition) -> tuple[int, int]:
    """How many other conditions of the creditor and currency have the description, and are default."""
    row = tx.execute(
        _SAME,
        {
            "agency": agency,
            "id": one.id,
            "creditor_id": one.creditor_id,
            "currency": one.currency,
            "description": one.description,
        },
    ).one()
    return row.descriptions, row.defaults


def add(tx: db.Transaction, agency: uuid.UUID, new: conditions.Condition, *, now: datetime.datetime) -> None:
    """Store a condition."""
    tx.execute(_INSERT, {**_values(agency, new), "now": now})
    _put_options(tx, agency, new)


def update(tx: db.Transaction, agency: uuid.UUID, new: conditions.Condition) -> None:
    """Write a condition over what it was; options keep their ids by number."""
    tx.execute(_UPDATE, _values(agency, new))
    numbers = [one.number for one in new.options]
    tx.execute(_DROP_OPTIONS, {"agency": agency, "id": new.id, "numbers": numbers})
    _put_options(tx, agency, new)


def used(tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID) -> bool:
    """Whether an agreement was made from it. Holds the condition, so that none is made until the transaction ends."""
    tx.execute(_LOCK, {"agency": agency, "id": condition_id})
    return tx.execute(_USED, {"agency": agency, "id": condition_id}).first() is not None


def delete(tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID) -> None:
    """Take a condition away with its options."""
    tx.execute(_DROP_OPTIONS, {"agency": agency, "id": condition_id, "numbers": []})
    tx.execute(_DELETE, {"agency": agency, "id": condition_id})


def categories(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    category_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int = 1,
) -> list[Category]:
    """Categories in id order, or one of them."""
    rows = tx.execute(
        _CATEGORIES, {"agency": agency, "id": category_id, "after": after, "limit": limit}
    ).mappings()
    return [Category(**row) for row in rows]


def add_category(
    tx: db.Transaction,
    agency: uuid.UUID,
    category_id: uuid.UUID,
    *,
    title: str,
    active: bool,
    now: datetime.datetime,
) -> bool:
    """Store a category. False when there is one of that title."""
    values = {"agency": agency, "id": category_id, "title": title, "active": active, "now": now}
    return bool(tx.execute(_ADD_CATEGORY, values).rowcount)


def set_category(tx: db.Transaction, agency: uuid.UUID, new: Category) -> bool:
    """Write over the category of this version. False when it has another by now, or the title is another's."""
    values = {
        "agency": agency,
        "id": new.id,
        "title": new.title,
        "active": new.active,
        "version": new.version,
    }
    return bool(tx.execute(_SET_CATEGORY, values).rowcount)


def add_origin(tx: db.Transaction, agency: uuid.UUID, new: Origin) -> None:
    """Say what an agreement was made from."""
    tx.execute(_ADD_ORIGIN, {"agency": agency, **dataclasses.asdict(new)})


def origins(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Origin]:
    """What agreements were made from, by agreement."""
    rows = tx.execute(_ORIGINS, {"agency": agency, "ids": sorted(set(agreement_ids))}).mappings()
    return {row["agreement_id"]: Origin(**row) for row in rows}


def _values(agency: uuid.UUID, one: conditions.Condition) -> dict[str, object]:
    values = {name: getattr(one, name) for name in _FIELDS}
    return values | {"agency": agency, "id": one.id, "means_filter": list(one.means_filter)}


def _put_options(tx: db.Transaction, agency: uuid.UUID, one: conditions.Condition) -> None:
    for option in one.options:
        tx.execute(_PUT_OPTION, {"agency": agency, "condition_id": one.id, **dataclasses.asdict(option)})
