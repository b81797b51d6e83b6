"""What creditors allow in agreements, as set; the house's defaults where a creditor has set nothing."""

import uuid
from typing import Any

from agreement_service.domain import creditors
from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "creditor_settings",
    ["creditor_id"],
    tables.reference("creditor_id", "creditors", key=True),
    tables.business("minimum_down_payment_minor", tables.BIG),
    tables.business("minimum_down_payment_e4", tables.INT),
    tables.business("maximum_instalments", tables.INT),
    tables.business("minimum_instalment_minor", tables.BIG),
    tables.business("minimum_instalment_e4", tables.INT),
    tables.business("charge_interest", tables.BOOL),
    tables.business("default_interest", tables.BOOL),
    tables.business("remunerative_interest", tables.BOOL),
    tables.business("annual_rate_e4", tables.INT),
    tables.business("confession_required", tables.BOOL),
    tables.business("notice_days", tables.INT),
    tables.business("missed_days", tables.INT),
    tables.business("broken_days", tables.INT),
    tables.business("validity_days", tables.INT),
    tables.business("accepted_means", tables.TEXTS),
    tables.business("breach_policy", tables.TEXT),
    tables.business("novation_prefix", tables.TEXT),
    tables.incidental("version", tables.BIG, "counts writes: how often somebody set it"),
)
_FLOORS = ("minimum_down_payment", "minimum_instalment")
_PLAIN = (
    "maximum_instalments",
    "charge_interest",
    "default_interest",
    "remunerative_interest",
    "annual_rate_e4",
    "confession_required",
    "notice_days",
    "missed_days",
    "broken_days",
    "validity_days",
    "novation_prefix",
)
_COLUMNS = (
    *_PLAIN,
    *(f"{name}_{unit}" for name in _FLOORS for unit in ("minor", "e4")),
    "accepted_means",
    "breach_policy",
)
_FIND = tables.sql(
    f"SELECT {', '.join(_COLUMNS)}, version FROM creditor_settings"  # noqa: S608 -- names of this module
    " WHERE agency = :agency AND creditor_id = :creditor_id"
)
_INSERT = tables.sql(
    f"INSERT INTO creditor_settings (agency, creditor_id, {', '.join(_COLUMNS)})"  # noqa: S608 -- as above
    f" VALUES (CAST(:agency AS uuid), :creditor_id, {', '.join(':' + name for name in _COLUMNS)})"
    " ON CONFLICT DO NOTHING"
)
_UPDATE = tables.sql(
    f"UPDATE creditor_settings SET {', '.join(f'{name} = :{name}' for name in _COLUMNS)},"  # noqa: S608 -- as above
    " version = version + 1 WHERE agency = :agency AND creditor_id = :creditor_id AND version = :version"
)
_KNOWN = tables.sql("SELECT 1 FROM creditors WHERE agency = :agency AND creditor_id = :creditor_id")


def knows(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> bool:
    """Whether a title of the creditor was ever placed."""
    return bool(tx.execute(_KNOWN, {"agency": agency, "creditor_id": creditor_id}).scalar())


def settings(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> creditors.CreditorSettings:
    """A creditor's settings; `creditors.DEFAULTS` when nothing was set."""
    return find(tx, agency, creditor_id)[0]


def find(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID
) -> tuple[creditors.CreditorSettings, int]:
    """A creditor's settings and their version; the defaults and 0 when nothing was set."""
    row = tx.execute(_FIND, {"agency": agency, "creditor_id": creditor_id}).mappings().first()
    if row is None:
        return creditors.DEFAULTS, 0
    found: dict[str, Any] = {name: row[name] for name in _PLAIN}
    for name in _FLOORS:
        found[name] = creditors.Floor(minor=row[f"{name}_minor"], rate_e4=row[f"{name}_e4"])
    return creditors.CreditorSettings(
        **found,
        accepted_means=frozenset(row["accepted_means"]),
        breach_policy=creditors.BreachPolicy(row["breach_policy"]),
    ), row["version"]


def put(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    new: creditors.CreditorSettings,
    *,
    version: int,
) -> bool:
    """Write settings over those of `version` (0: none yet). False when they are of another version by now."""
    values: dict[str, Any] = {name: getattr(new, name) for name in _PLAIN}
    for name in _FLOORS:
        floor: creditors.Floor = getattr(new, name)
        values |= {f"{name}_minor": floor.minor, f"{name}_e4": floor.rate_e4}
    values |= {
        "accepted_means": sorted(new.accepted_means),
        "breach_policy": new.breach_policy.value,
        "agency": agency,
        "creditor_id": creditor_id,
    }
    if version == 0:
        return bool(tx.execute(_INSERT, values).rowcount)
    return bool(tx.execute(_UPDATE, values | {"version": version}).rowcount)
