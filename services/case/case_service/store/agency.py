"""The agency itself: currency, ladder, rules of contact."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from case_service.domain import contact, ladder, rules
from case_service.store import scoped, tables
from servicekit import db


def lock(tx: db.Transaction, agency: uuid.UUID) -> str | None:
    """Lock the agency's row until the transaction ends; its currency, None where there is no such agency."""
    found = tx.execute(_LOCK, {"agency": agency}).one_or_none()
    return None if found is None else str(found.currency)


def currency(tx: db.Transaction, agency: uuid.UUID) -> str:
    """Currency in which the agency reports; empty where there is no such agency."""
    return str(tx.execute(_CURRENCY_OF, {"agency": agency}).scalar_one_or_none() or "")


def create(tx: db.Transaction, agency: uuid.UUID, *, currency: str, now: datetime.datetime) -> bool:
    """Create the agency's row, waiting for a twin that does the same. False where it is there already."""
    return tx.execute(_CREATE, {"agency": agency, "currency": currency, "now": now}).rowcount == 1


def set_currency(tx: db.Transaction, agency: uuid.UUID, currency: str) -> None:
    """Change the currency in which the agency reports."""
    tx.execute(_CURRENCY, {"agency": agency, "currency": currency})


def add_rules(tx: db.Transaction, agency: uuid.UUID, wanted: Sequence[rules.Rule]) -> None:
    """Add rules of contact."""
    tx.execute(
        sa.insert(tables.contact_rules),
        [
            {
                "agency": agency,
                "code": rule.code,
                "country": rule.country,
                "region": rule.region,
                "channels": [str(channel) for channel in rule.channels],
                "valid_from": rule.valid_from,
                "valid_to": rule.valid_to,
                "parameters": rule.parameters,
                "source": rule.source,
            }
            for rule in wanted
        ],
    )


def rules_of(tx: db.Transaction, agency: uuid.UUID) -> list[rules.Rule]:
    """All rules of contact, newer before older."""
    return [
        rules.Rule(
            code=row.code,
            country=row.country,
            region=row.region,
            channels=tuple(contact.Channel(channel) for channel in row.channels),
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            parameters=row.parameters,
            source=row.source,
        )
        for row in tx.execute(_RULES, {"agency": agency})
    ]


def add_ladder(
    tx: db.Transaction, agency: uuid.UUID, *, code: str, display_name: str, levels: Sequence[ladder.Level]
) -> None:
    """Add a ladder with its levels."""
    made = tx.execute(
        _ADD_LADDER, {"agency": agency, "code": code, "display_name": display_name}
    ).scalar_one()
    _add_levels(tx, agency, made, levels)


def replace_levels(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    code: str,
    display_name: str,
    levels: Sequence[ladder.Level],
    version: int,
) -> bool:
    """Replace the levels of the ladder if it is still at ``version``."""
    changed = tx.execute(
        _TOUCH_LADDER, {"agency": agency, "code": code, "display_name": display_name, "version": version}
    ).one_or_none()
    if changed is None:
        return False
    tx.execute(_DROP_LEVELS, {"agency": agency, "ladder_id": changed.id})
    _add_levels(tx, agency, changed.id, levels)
    return True


def ladder_of(tx: db.Transaction, agency: uuid.UUID, code: str) -> Sequence[sa.Row[Any]]:
    """The ladder's rows, one a level in order: version, display name and level. Empty where there is no
    such ladder.
    """
    return tx.execute(_LADDER, {"agency": agency, "code": code}).all()


def level(row: sa.Row[Any]) -> ladder.Level:
    """A level from a row of ``ladder_of``."""
    return ladder.Level(
        code=row.code,
        display_name=row.level_name,
        from_days=row.from_days,
        to_days=row.to_days,
        minimum_wait_days=row.minimum_wait_days,
        channel=contact.Channel(row.channel),
        template=row.template,
        counts=row.counts,
    )


def _add_levels(
    tx: db.Transaction, agency: uuid.UUID, ladder_id: uuid.UUID, levels: Sequence[ladder.Level]
) -> None:
    tx.execute(
        sa.insert(tables.ladder_levels),
        [
            {
                "agency": agency,
                "ladder_id": ladder_id,
                "position": position,
                "code": level.code,
                "display_name": level.display_name,
                "from_days": level.from_days,
                "to_days": level.to_days,
                "minimum_wait_days": level.minimum_wait_days,
                "channel": str(level.channel),
                "template": level.template,
                "counts": level.counts,
            }
            for position, level in enumerate(levels)
        ],
    )


_LOCK = scoped.text("SELECT currency FROM agencies WHERE agency = @agency FOR NO KEY UPDATE")
_CURRENCY_OF = scoped.text("SELECT currency FROM agencies WHERE agency = @agency")
_CREATE = scoped.text(
    "INSERT INTO agencies (agency, currency, created_at) VALUES (:agency, :currency, :now) ON CONFLICT DO NOTHING"
)
_CURRENCY = scoped.text("UPDATE agencies SET currency = :currency WHERE agency = @agency")
_RULES = (
    sa.select(tables.contact_rules)
    .where(tables.contact_rules.c.agency == sa.bindparam("agency"))
    .order_by(tables.contact_rules.c.valid_from.desc(), tables.contact_rules.c.code)
)
_ADD_LADDER = (
    postgresql.insert(tables.ladders)
    .values(
        agency=sa.bindparam("agency"),
        code=sa.bindparam("code"),
        display_name=sa.bindparam("display_name"),
        version=1,
    )
    .returning(tables.ladders.c.id)
)
_TOUCH_LADDER = scoped.text(
    "UPDATE ladders SET version = version + 1, display_name = :display_name"
    " WHERE agency = @agency AND code = :code AND version = :version RETURNING id"
)
_DROP_LEVELS = scoped.text("DELETE FROM ladder_levels WHERE agency = @agency AND ladder_id = :ladder_id")
_LADDER = scoped.text(
    """
    SELECT ladder.version, ladder.display_name, level.id, level.code, level.display_name AS level_name,
    level.from_days,
           level.to_days, level.minimum_wait_days, level.channel, level.template, level.counts
    FROM ladders AS ladder
    JOIN ladder_levels AS level ON level.agency = ladder.agency AND level.ladder_id = ladder.id
    WHERE ladder.agency = @agency AND ladder.code = :code
    ORDER BY level.position
    """
)
