"""What stands on papers besides names: which debt an instrument pays, whose agreement a minute is about."""

import dataclasses
import datetime
import uuid

from agreement_service.store import tables
from servicekit import db


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InstalmentPaid:
    """The instalment that an instrument pays; `number` 0 is the down payment, `instalments` those after it."""

    contract_reference: str
    agreement_number: int
    number: int
    instalments: int
    due_date: datetime.date


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TitlePaid:
    """A title that an instrument pays outside an agreement; centavos of the instrument's date."""

    reference: str
    due_date: datetime.date
    amount_minor: int


_INSTALMENT = tables.sql(
    """
    SELECT case_accounts.contract_reference, agreements.number AS agreement_number, instalments.number,
        CAST((SELECT count(*) FROM instalments AS others WHERE others.agency = instalments.agency
            AND others.agreement_id = instalments.agreement_id AND others.number > 0) AS int) AS instalments,
        instalments.due_date
    FROM instalments
        JOIN agreements ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
        JOIN case_accounts ON case_accounts.agency = agreements.agency AND case_accounts.case_id = agreements.case_id
    WHERE instalments.agency = :agency AND instalments.id = :id
    """
)
_TITLES = tables.sql(
    """
    SELECT titles.reference, titles.due_date, instrument_titles.amount_minor
    FROM instrument_titles JOIN titles ON titles.agency = instrument_titles.agency
        AND titles.case_id = instrument_titles.case_id AND titles.id = instrument_titles.title_id
    WHERE instrument_titles.agency = :agency AND instrument_titles.instrument_id = :id
    ORDER BY titles.due_date, titles.reference
    """
)
_CONTRACTS = tables.sql(
    """
    SELECT DISTINCT case_accounts.contract_reference FROM case_accounts
    WHERE case_accounts.agency = :agency AND case_accounts.case_id = ANY(CAST(:ids AS uuid[])) ORDER BY 1
    """
)
_AGREED = tables.sql(
    """
    SELECT titles.reference, titles.due_date, CAST(titles.principal_minor AS bigint) AS amount_minor
    FROM agreement_titles JOIN titles ON titles.agency = agreement_titles.agency
        AND titles.case_id = agreement_titles.case_id AND titles.id = agreement_titles.title_id
    WHERE agreement_titles.agency = :agency AND agreement_titles.agreement_id = :id
    ORDER BY titles.due_date, titles.reference
    """
)


def instalment(tx: db.Transaction, agency: uuid.UUID, instalment_id: uuid.UUID) -> InstalmentPaid:
    """The instalment and what it is a part of."""
    row = tx.execute(_INSTALMENT, {"agency": agency, "id": instalment_id}).mappings().one()
    return InstalmentPaid(**row)


def titles(tx: db.Transaction, agency: uuid.UUID, instrument_id: uuid.UUID) -> list[TitlePaid]:
    """Titles of an instrument, oldest due first."""
    return [
        TitlePaid(**row) for row in tx.execute(_TITLES, {"agency": agency, "id": instrument_id}).mappings()
    ]


def contracts(tx: db.Transaction, agency: uuid.UUID, case_ids: tuple[uuid.UUID, ...]) -> list[str]:
    """References of the contracts of cases."""
    return list(tx.execute(_CONTRACTS, {"agency": agency, "ids": sorted(case_ids)}).scalars())


def agreed(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID) -> list[TitlePaid]:
    """Titles of an agreement with their principal as placed, oldest due first."""
    return [
        TitlePaid(**row) for row in tx.execute(_AGREED, {"agency": agency, "id": agreement_id}).mappings()
    ]
