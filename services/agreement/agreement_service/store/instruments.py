"""Payment instruments: issued, acted on, closed. The table is in `store.tables`."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import instruments
from agreement_service.store import tables
from servicekit import acts, db

TABLE = "instruments"
NEVER = datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC)
"""Due time of a draft that waits until an earlier one is unusable."""

instrument_titles = tables.table(
    "instrument_titles",
    ["instrument_id", "title_id"],
    tables.reference("instrument_id", "instruments", key=True),
    tables.reference("case_id", "case_accounts"),
    tables.reference("title_id", "titles", key=True),
    tables.business("amount_minor", tables.BIG),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One row of instruments; `act_key` is the number by which the bank knows it. Without an instalment it pays titles
    (`titles_of`). `payable_until` None: it never expires. `waits_for_id`: registered only when that one is unusable.
    `unwanted`: to be cancelled once it is registered."""

    id: uuid.UUID
    case_id: uuid.UUID
    instalment_id: uuid.UUID | None
    account_id: uuid.UUID | None
    kind: str
    generation: int
    state: str
    currency: str
    amount_minor: int
    issue_date: datetime.date
    due_date: datetime.date
    payable_until: datetime.date | None
    our_number: str = ""
    our_number_printed: str = ""
    barcode: str = ""
    txid: str = ""
    br_code: str = ""
    due_at: datetime.datetime
    act_key: str
    waits_for_id: uuid.UUID | None = None
    unwanted: bool = False
    version: int = 1

    @property
    def subject(self) -> tuple[uuid.UUID, uuid.UUID | None, str]:
        """What its generations are counted within: the instalment, or all loose titles of the case; and the kind."""
        return self.case_id, self.instalment_id, self.kind


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """Whose money an agreement's instruments collect, and the means it was agreed to be paid with (empty: any)."""

    case_id: uuid.UUID
    creditor_id: uuid.UUID
    means: str


_AT_THE_BANK = (instruments.State.REGISTERED, *instruments.CLOSING)
_NAMES = tuple(field.name for field in dataclasses.fields(Instrument))
_COLUMNS = ", ".join(f"instruments.{name}" for name in _NAMES)
_TYPES = {
    "id": "uuid",
    "case_id": "uuid",
    "instalment_id": "uuid",
    "account_id": "uuid",
    "generation": "int",
    "amount_minor": "bigint",
    "issue_date": "date",
    "due_date": "date",
    "payable_until": "date",
    "due_at": "timestamptz",
    "waits_for_id": "uuid",
    "unwanted": "boolean",
    "version": "bigint",
}
_NUMBERS = tables.sql(
    """
    INSERT INTO slip_numbers AS counter (agency, account, last_number) VALUES (:agency, :account, :count)
    ON CONFLICT (agency, account) DO UPDATE SET last_number = counter.last_number + excluded.last_number
    RETURNING last_number
    """
)
_INSERT = tables.sql(
    f"""
    INSERT INTO instruments (agency, {", ".join(_NAMES)})
    SELECT CAST(:agency AS uuid), new.*
    FROM unnest({", ".join(f"CAST(:{name} AS {_TYPES.get(name, 'text')}[])" for name in _NAMES)})
        AS new ({", ".join(_NAMES)})
    ORDER BY new.id
    """  # noqa: S608 -- column names of this module
)
_INSERT_TITLES = tables.sql(
    """
    INSERT INTO instrument_titles (agency, instrument_id, case_id, title_id, amount_minor)
    SELECT CAST(:agency AS uuid), new.* FROM unnest(CAST(:instrument_ids AS uuid[]), CAST(:case_ids AS uuid[]),
        CAST(:title_ids AS uuid[]), CAST(:amounts AS bigint[])) AS new (instrument_id, case_id, title_id, amount)
    ORDER BY new.instrument_id, new.title_id
    """
)
_OWNERS = tables.sql(
    """
    SELECT agreements.id, agreements.case_id, case_accounts.creditor_id,
        coalesce(agreements.terms ->> 'means', '') AS means
    FROM agreements JOIN case_accounts
        ON case_accounts.agency = agreements.agency AND case_accounts.case_id = agreements.case_id
    WHERE agreements.agency = :agency AND agreements.id = ANY(CAST(:ids AS uuid[]))
    """
)
_OF_INSTALMENTS = tables.sql(
    f"SELECT {_COLUMNS} FROM instruments WHERE agency = :agency AND instalment_id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
    " ORDER BY instalment_id, generation, kind"
)
_LOOSE = tables.sql(
    f"SELECT {_COLUMNS} FROM instruments WHERE agency = :agency AND case_id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
    " AND instalment_id IS NULL ORDER BY case_id, generation, kind"
)
_OF_TITLES = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM instruments
    WHERE agency = :agency AND state = ANY(CAST(:states AS text[])) AND id IN (
        SELECT instrument_id FROM instrument_titles
        WHERE instrument_titles.agency = :agency AND title_id = ANY(CAST(:ids AS uuid[])))
    ORDER BY id
    """  # noqa: S608 -- column names of this module
)
_TITLES_OF = tables.sql(
    """
    SELECT instrument_id, title_id, amount_minor FROM instrument_titles
    WHERE agency = :agency AND instrument_id = ANY(CAST(:ids AS uuid[])) ORDER BY instrument_id, title_id
    """
)
_CREDITOR = """(CAST(:creditor AS uuid) IS NULL OR EXISTS (SELECT 1 FROM case_accounts
    WHERE case_accounts.agency = instruments.agency AND case_accounts.case_id = instruments.case_id
        AND case_accounts.creditor_id = :creditor))"""
_FIND = tables.sql(
    f"SELECT {_COLUMNS} FROM instruments WHERE agency = :agency AND id = :id AND {_CREDITOR}"  # noqa: S608
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM instruments
    WHERE agency = :agency AND {_CREDITOR} AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:case_id AS uuid) IS NULL OR case_id = :case_id) AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_STATES = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM instruments WHERE agency = :agency
        AND (CAST(:after AS uuid) IS NULL OR id > :after) ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_PAY = tables.sql(
    "UPDATE instruments SET state = 'PAID', version = version + 1"  # noqa: S608 -- column names of this module
    f" WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND state <> 'PAID' RETURNING {_COLUMNS}"
)
_CLOSE_SET = """
    UPDATE instruments SET due_at = CASE state WHEN 'REGISTERING' THEN due_at ELSE :now END, version = version + 1,
        unwanted = unwanted OR state = 'REGISTERING', state = CASE state WHEN 'DRAFT' THEN 'CANCELLED'
            WHEN 'REGISTERED' THEN 'CANCEL_REQUESTED' ELSE state END
    WHERE agency = :agency AND (state IN ('DRAFT', 'REGISTERED') OR (state = 'REGISTERING' AND NOT unwanted))
"""
_CLOSE_INSTALMENTS = tables.sql(
    f"{_CLOSE_SET} AND instalment_id = ANY(CAST(:ids AS uuid[])) RETURNING {_COLUMNS}"
)
_CLOSE = tables.sql(f"{_CLOSE_SET} AND id = ANY(CAST(:ids AS uuid[])) RETURNING {_COLUMNS}")
_OUTCOMES = tables.sql(
    f"""
    UPDATE instruments SET act_worker = NULL, due_at = :now, version = version + 1, state = CASE
        WHEN new.outcome = 'REGISTERED' AND unwanted THEN 'CANCEL_REQUESTED' ELSE new.outcome END,
        br_code = CASE new.code WHEN '' THEN instruments.br_code ELSE new.code END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:outcomes AS text[]), CAST(:codes AS text[])) AS new (id, outcome, code)
    WHERE agency = :agency AND instruments.id = new.id AND state = :acting RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
)
_RELEASE = tables.sql(
    """
    UPDATE instruments SET due_at = :now
    WHERE agency = :agency AND state = 'DRAFT' AND waits_for_id = ANY(CAST(:ids AS uuid[]))
        AND case_id = ANY(CAST(:case_ids AS uuid[]))
    """
)
_EXPIRING = tables.sql(
    """
    SELECT DISTINCT instruments.case_id FROM instruments JOIN case_accounts
        ON case_accounts.agency = instruments.agency AND case_accounts.case_id = instruments.case_id
    WHERE instruments.agency = :agency AND case_accounts.partition = :partition
        AND instruments.state = 'REGISTERED' AND instruments.payable_until < :date
    """
)
_EXPIRE = tables.sql(
    f"""
    UPDATE instruments SET state = 'EXPIRED', version = version + 1
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[])) AND state = 'REGISTERED'
        AND payable_until < :date RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
)
_WAITING = tables.sql(
    "SELECT count(*) FROM instruments"
    " WHERE agency = :agency AND state IN ('DRAFT', 'REGISTERING', 'CANCEL_REQUESTED', 'CANCELLING')"
)


def numbers(tx: db.Transaction, agency: uuid.UUID, *, account: str, count: int) -> range:
    """The next `count` numbers of slips on an account (nosso número)."""
    last = int(tx.execute(_NUMBERS, {"agency": agency, "account": account, "count": count}).scalar_one())
    return range(last - count + 1, last + 1)


def add(
    tx: db.Transaction,
    agency: uuid.UUID,
    new: Sequence[Instrument],
    titles: Mapping[uuid.UUID, Sequence[tuple[uuid.UUID, int]]],
) -> None:
    """Store new instruments, and the titles (with their parts) of those that pay loose titles, by instrument."""
    if not new:
        return
    columns: dict[str, list[Any]] = {name: [getattr(one, name) for one in new] for name in _NAMES}
    tx.execute(_INSERT, {"agency": agency, **columns})
    parts = [(one, title_id, amount) for one in new for title_id, amount in titles.get(one.id, ())]
    if parts:
        tx.execute(
            _INSERT_TITLES,
            {
                "agency": agency,
                "instrument_ids": [one.id for one, _, _ in parts],
                "case_ids": [one.case_id for one, _, _ in parts],
                "title_ids": [title_id for _, title_id, _ in parts],
                "amounts": [amount for _, _, amount in parts],
            },
        )


def owners(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Owner]:
    """The case that agreements' instruments belong to, and its creditor."""
    found = tx.execute(_OWNERS, {"agency": agency, "ids": sorted(set(agreement_ids))})
    return {row.id: Owner(row.case_id, row.creditor_id, row.means) for row in found}


def of_instalments(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Instrument]]:
    """Instruments by instalment, oldest generation first."""
    grouped: dict[uuid.UUID, list[Instrument]] = {}
    for one in _read(tx, _OF_INSTALMENTS, {"agency": agency, "ids": sorted(set(ids))}):
        assert one.instalment_id is not None
        grouped.setdefault(one.instalment_id, []).append(one)
    return grouped


def loose(tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID]) -> list[Instrument]:
    """Instruments of cases that pay titles outside an agreement, oldest generation first."""
    return _read(tx, _LOOSE, {"agency": agency, "ids": sorted(set(case_ids))})


def of_titles(
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Iterable[uuid.UUID],
    *,
    states: Iterable[instruments.State],
) -> list[Instrument]:
    """Instruments in these states that pay one of these titles outside an agreement."""
    params = {
        "agency": agency,
        "ids": tables.array(sorted(set(title_ids))),
        "states": sorted(state.value for state in states),
    }
    return _read(tx, _OF_TITLES, params)


def titles_of(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[tuple[uuid.UUID, int]]]:
    """Titles and their parts of the amount, by instrument; nothing for instruments of instalments."""
    grouped: dict[uuid.UUID, list[tuple[uuid.UUID, int]]] = {}
    for row in tx.execute(_TITLES_OF, {"agency": agency, "ids": sorted(set(ids))}):
        grouped.setdefault(row.instrument_id, []).append((row.title_id, row.amount_minor))
    return grouped


def find(
    tx: db.Transaction, agency: uuid.UUID, instrument_id: uuid.UUID, *, creditor: uuid.UUID | None = None
) -> Instrument | None:
    """One instrument, of this creditor where one is given."""
    found = _read(tx, _FIND, {"agency": agency, "id": instrument_id, "creditor": creditor})
    return found[0] if found else None


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None,
    case_id: uuid.UUID | None,
    state: str | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Instrument]:
    """Instruments in id order."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "case_id": case_id,
        "state": state,
        "after": after,
        "limit": limit,
    }
    return _read(tx, _PAGE, params)


def states(tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID | None, limit: int) -> list[Instrument]:
    """All of the agency's, in id order, to be stated again."""
    return _read(tx, _STATES, {"agency": agency, "after": after, "limit": limit})


def pay(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> list[Instrument]:
    """These were used; those that changed."""
    return _read(tx, _PAY, {"agency": agency, "ids": sorted(set(ids))})


def close_instalments(
    tx: db.Transaction, agency: uuid.UUID, instalment_ids: Iterable[uuid.UUID], *, now: datetime.datetime
) -> list[Instrument]:
    """Nothing is to be paid on these instalments any more: what is registered is to be cancelled at the bank.

    One that is being registered right now is closed when its outcome comes.
    """
    params = {"agency": agency, "ids": tables.array(sorted(set(instalment_ids))), "now": now}
    return _read(tx, _CLOSE_INSTALMENTS, params)


def close(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, now: datetime.datetime
) -> list[Instrument]:
    """The same for these instruments."""
    return _read(tx, _CLOSE, {"agency": agency, "ids": sorted(set(ids)), "now": now})


def claim(
    tx: db.Transaction, agency: uuid.UUID, *, due: str, acting: str, now: datetime.datetime, limit: int
) -> list[Instrument]:
    """Take instruments whose act is due."""
    return _instruments(
        acts.claim(tx, TABLE, agency=agency, due_state=due, acting_state=acting, now=now, limit=limit)
    )


def oldest_due(
    tx: db.Transaction, agency: uuid.UUID, *, states: Sequence[str], now: datetime.datetime
) -> datetime.datetime | None:
    """Since when the oldest act in these states is due."""
    return acts.oldest_due(tx, TABLE, agency=agency, states=states, now=now)


def abandoned(tx: db.Transaction, agency: uuid.UUID, *, acting: str) -> list[Instrument]:
    """Instruments whose act was begun by a worker that is gone, or by an earlier tick of this one that failed."""
    return _instruments(acts.abandoned(tx, TABLE, agency=agency, acting_state=acting, mine=True))


def outcomes(
    tx: db.Transaction,
    agency: uuid.UUID,
    found: Mapping[uuid.UUID, tuple[str, str]],
    *,
    acting: str,
    now: datetime.datetime,
) -> list[Instrument]:
    """Write what came of acts, by instrument: outcome, and the BR Code that the bank gave (empty: none). A registered
    one that is not wanted any more is to be cancelled; what waited for one that is unusable now is due. Returns those
    that changed."""
    ordered = sorted(found)
    params = {
        "agency": agency,
        "ids": ordered,
        "outcomes": [found[key][0] for key in ordered],
        "codes": [found[key][1] for key in ordered],
        "acting": acting,
        "now": now,
    }
    changed = _read(tx, _OUTCOMES, params)
    release(tx, agency, [one for one in changed if one.state not in _AT_THE_BANK], now=now)
    return changed


def release(
    tx: db.Transaction, agency: uuid.UUID, over: Sequence[Instrument], *, now: datetime.datetime
) -> None:
    """These are unusable: what waited for them is due."""
    if over:
        params = {
            "agency": agency,
            "ids": sorted(one.id for one in over),
            "case_ids": sorted({one.case_id for one in over}),
            "now": now,
        }
        tx.execute(_RELEASE, params)


def expiring(tx: db.Transaction, agency: uuid.UUID, *, partition: int, date: datetime.date) -> set[uuid.UUID]:
    """Cases of the partition with a registered instrument whose last day is before `date`."""
    params = {"agency": agency, "partition": partition, "date": date}
    return set(tx.execute(_EXPIRING, params).scalars())


def expire(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, date: datetime.date
) -> list[Instrument]:
    """End the instruments of these cases whose last day is before `date`: the bank takes them no more."""
    return _read(tx, _EXPIRE, {"agency": agency, "case_ids": sorted(set(case_ids)), "date": date})


def waiting(tx: db.Transaction, agency: uuid.UUID) -> int:
    """Acts that are due or under way."""
    return int(tx.execute(_WAITING, {"agency": agency}).scalar_one())


def _read(tx: db.Transaction, statement: Any, params: Mapping[str, Any]) -> list[Instrument]:
    return _instruments(tx.execute(statement, dict(params)).mappings().all())


def _instruments(rows: Iterable[sa.RowMapping]) -> list[Instrument]:
    return [Instrument(**{name: row[name] for name in _NAMES}) for row in rows]
