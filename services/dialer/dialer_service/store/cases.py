"""What is known of cases: their anchors, which are locked before a fact about them is published."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from dialer_service import domain
from dialer_service.store import tables
from servicekit import db

_KNOW_CASES = sa.text(
    """
    INSERT INTO case_anchors (agency, case_id, natural_key, state, version)
    SELECT :agency, case_id, natural_key, '', 0
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:natural_keys AS bigint[])) AS due (case_id, natural_key)
    ORDER BY case_id
    ON CONFLICT DO NOTHING
    """
)
_CHANGE_CASES = sa.text(
    """
    UPDATE case_anchors AS anchor SET state = change.state, version = change.version
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:versions AS bigint[]), CAST(:states AS text[]))
        AS change (case_id, version, state)
    WHERE anchor.agency = :agency AND anchor.case_id = change.case_id AND anchor.version < change.version
    """
)
_VERSIONS = sa.select(tables.case_anchors.c.case_id, tables.case_anchors.c.version).where(
    tables.case_anchors.c.agency == tables.param("agency"),
    tables.case_anchors.c.case_id == sa.any_(tables.param("case_ids", tables.UUIDS)),
)
_CASE_STATES = sa.select(tables.case_anchors.c.case_id, tables.case_anchors.c.state).where(
    tables.case_anchors.c.agency == tables.param("agency"),
    tables.case_anchors.c.case_id == sa.any_(tables.param("case_ids", tables.UUIDS)),
)


def know_cases(
    tx: db.Transaction, agency: UUID, due: Sequence[domain.Due], *, also: Sequence[UUID] = ()
) -> None:
    """Rows for cases never due a call before; the anchors of all of them, and of `also`, are locked in id
    order.
    """
    keys = {item.case_id: tables.signed(item.natural_key) for item in due}
    ordered = sorted(keys)
    if ordered:
        tx.execute(
            _KNOW_CASES,
            {"agency": agency, "case_ids": ordered, "natural_keys": [keys[case] for case in ordered]},
        )
    db.lock_anchors(tx, tables.ANCHORS, agency, {*ordered, *also})


def known_versions(tx: db.Transaction, agency: UUID, case_ids: Iterable[UUID]) -> Mapping[UUID, int]:
    """Versions of the known ones of these cases (anchors are locked)."""
    rows = tx.execute(_VERSIONS, {"agency": agency, "case_ids": sorted(set(case_ids))})
    return {row.case_id: row.version for row in rows}


def change_cases(tx: db.Transaction, agency: UUID, changes: Mapping[UUID, domain.CaseChange]) -> None:
    """Take over newer states of known cases (anchors are locked)."""
    ordered = [changes[case] for case in sorted(changes)]
    tx.execute(
        _CHANGE_CASES,
        {
            "agency": agency,
            "case_ids": [change.case_id for change in ordered],
            "versions": [change.version for change in ordered],
            "states": [change.state for change in ordered],
        },
    )


def lock_cases(tx: db.Transaction, agency: UUID, case_ids: Iterable[UUID]) -> Mapping[UUID, str]:
    """Lock the anchors of these cases, in id order; answers their states."""
    wanted = sorted(db.lock_anchors(tx, tables.ANCHORS, agency, case_ids))
    if not wanted:
        return {}
    rows = tx.execute(_CASE_STATES, {"agency": agency, "case_ids": wanted})
    return {row.case_id: row.state for row in rows}
