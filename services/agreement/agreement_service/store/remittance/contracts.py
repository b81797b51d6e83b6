"""Creditors, and their contracts of commission with their bands."""

import dataclasses
import datetime
import uuid

import sqlalchemy as sa

from agreement_service.domain import remittance
from agreement_service.store import tables
from servicekit import db


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Creditor:
    """A creditor by its own reference."""

    creditor_id: uuid.UUID
    creditor_reference: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A contract with whose it is and who made it."""

    contract: remittance.Contract
    creditor_reference: str
    created_by: str
    created_at: datetime.datetime


_CREDITOR = tables.sql(
    "SELECT creditor_id, creditor_reference FROM creditors"
    " WHERE agency = :agency AND creditor_reference = :reference"
)
_LOCK = tables.sql(
    "SELECT creditor_id, creditor_reference FROM creditors"
    " WHERE agency = :agency AND creditor_reference = :reference FOR NO KEY UPDATE"
)
_INSERT_CONTRACT = tables.sql(
    """
    INSERT INTO commission_contracts (agency, id, creditor_id, currency, product, valid_from, fixed_minor, fixed_per,
        success_rate_e4, tax, tax_rate_e4, tax_retained, minimum_minor, frequency, grouping, created_by, created_at)
    VALUES (CAST(:agency AS uuid), :contract_id, :creditor_id, :currency, :product, :valid_from, :fixed_minor,
        :fixed_per, :success_rate_e4, :tax, :tax_rate_e4, :tax_retained, :minimum_minor, :frequency, :grouping,
        :created_by, :now)
    ON CONFLICT DO NOTHING
    """
)
_INSERT_BANDS = tables.sql(
    """
    INSERT INTO commission_bands (agency, contract_id, from_day, principal_rate_e4, charges_rate_e4, costs_rate_e4)
    SELECT CAST(:agency AS uuid), :contract_id, band.* FROM unnest(CAST(:from_days AS int[]), CAST(:principal AS int[]),
        CAST(:charges AS int[]), CAST(:costs AS int[])) AS band
    """
)
_CONTRACTS = """
    SELECT contracts.id AS contract_id, contracts.currency, contracts.product, contracts.valid_from,
        contracts.fixed_minor, contracts.fixed_per, contracts.success_rate_e4, contracts.tax, contracts.tax_rate_e4,
        contracts.tax_retained, contracts.minimum_minor, contracts.frequency, contracts.grouping, contracts.created_by,
        contracts.created_at, creditors.creditor_reference, ARRAY(
            SELECT jsonb_build_object('from_day', from_day, 'principal_rate_e4', principal_rate_e4,
                'charges_rate_e4', charges_rate_e4, 'costs_rate_e4', costs_rate_e4)
            FROM commission_bands WHERE commission_bands.agency = contracts.agency
                AND commission_bands.contract_id = contracts.id ORDER BY from_day) AS bands
    FROM commission_contracts AS contracts JOIN creditors
        ON creditors.agency = contracts.agency AND creditors.creditor_id = contracts.creditor_id
    WHERE contracts.agency = :agency
"""
_CONTRACTS_OF = tables.sql(
    _CONTRACTS + " AND contracts.creditor_id = :creditor_id AND contracts.currency = :currency"
)
_CONTRACT = tables.sql(_CONTRACTS + " AND contracts.id = :id")
_CONTRACT_PAGE = tables.sql(
    _CONTRACTS
    + """ AND (CAST(:creditor AS uuid) IS NULL OR contracts.creditor_id = :creditor)
        AND (:reference = '' OR creditors.creditor_reference = :reference)
        AND (CAST(:after AS uuid) IS NULL OR contracts.id > :after)
    ORDER BY contracts.id LIMIT :limit"""
)


def creditor(tx: db.Transaction, agency: uuid.UUID, reference: str, *, lock: bool = False) -> Creditor | None:
    """The creditor of a reference. `lock`: until the transaction ends nobody else counts its statements; placements and
    payments go on."""
    row = tx.execute(_LOCK if lock else _CREDITOR, {"agency": agency, "reference": reference}).first()
    return (
        None
        if row is None
        else Creditor(creditor_id=row.creditor_id, creditor_reference=row.creditor_reference)
    )


def add_contract(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    new: remittance.Contract,
    *,
    created_by: str,
    now: datetime.datetime,
) -> bool:
    """Add a contract; False when there is one of this creditor, currency, product and day."""
    values = dataclasses.asdict(new) | {
        "agency": agency,
        "creditor_id": creditor_id,
        "created_by": created_by,
    }
    bands = values.pop("bands")
    if not tx.execute(_INSERT_CONTRACT, values | {"now": now}).rowcount:
        return False
    tx.execute(
        _INSERT_BANDS,
        {
            "agency": agency,
            "contract_id": new.contract_id,
            "from_days": [band["from_day"] for band in bands],
            **{
                name: [band[f"{name}_rate_e4"] for band in bands]
                for name in ("principal", "charges", "costs")
            },
        },
    )
    return True


def contracts(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, currency: str
) -> list[remittance.Contract]:
    """All contracts of a creditor and currency."""
    params = {"agency": agency, "creditor_id": creditor_id, "currency": currency}
    return [_agreed(row).contract for row in tx.execute(_CONTRACTS_OF, params).mappings()]


def contract(tx: db.Transaction, agency: uuid.UUID, contract_id: uuid.UUID) -> Agreed:
    """One contract, which exists."""
    return _agreed(tx.execute(_CONTRACT, {"agency": agency, "id": contract_id}).mappings().one())


def contract_page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None,
    reference: str,
    after: uuid.UUID | None,
    limit: int,
) -> list[Agreed]:
    """Contracts in id order, of a creditor where one is given."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "reference": reference,
        "after": after,
        "limit": limit,
    }
    return [_agreed(row) for row in tx.execute(_CONTRACT_PAGE, params).mappings()]


def _agreed(row: sa.RowMapping) -> Agreed:
    values = dict(row)
    made = {name: values.pop(name) for name in ("creditor_reference", "created_by", "created_at")}
    values["bands"] = tuple(remittance.Band(**band) for band in values["bands"])
    for name, kind in (
        ("fixed_per", remittance.FixedPer),
        ("tax", remittance.Tax),
        ("frequency", remittance.Frequency),
        ("grouping", remittance.Grouping),
    ):
        values[name] = None if values[name] is None else kind(values[name])
    return Agreed(contract=remittance.Contract(**values), **made)
