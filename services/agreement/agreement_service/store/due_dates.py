"""Due dates that were moved: the titles, and who moved them why."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import accounts, due_dates
from agreement_service.store import accounts as account_store
from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "due_date_changes",
    ["title_id", "number"],
    tables.reference("title_id", "titles", key=True),
    tables.reference("case_id", "case_accounts"),
    tables.business("number", tables.INT, key=True),
    tables.business("old_due_date", tables.DATE),
    tables.business("new_due_date", tables.DATE),
    tables.business("business_date", tables.DATE),
    tables.business("reason", tables.TEXT),
    tables.business("changed_by", tables.TEXT),
    tables.incidental("changed_at", tables.INSTANT, "instant of the agency's clock when it was changed"),
)
_WRITE = tables.sql(
    """
    UPDATE titles SET due_date = new.due_date, payable_until = new.payable_until,
        accrued_through = new.accrued_through, corrected_through = new.corrected_through, version = new.version
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:due_dates AS date[]),
        CAST(:payable_until AS date[]), CAST(:accrued_through AS date[]), CAST(:corrected_through AS date[]),
        CAST(:versions AS bigint[]))
        AS new (case_id, id, due_date, payable_until, accrued_through, corrected_through, version)
    WHERE titles.agency = :agency AND titles.case_id = new.case_id AND titles.id = new.id
        AND titles.version = new.version - 1
    """
)
_RECORD = tables.sql(
    """
    INSERT INTO due_date_changes (agency, title_id, case_id, number, old_due_date, new_due_date, business_date, reason,
        changed_by, changed_at)
    SELECT CAST(:agency AS uuid), new.title_id, new.case_id, 1 + (SELECT count(*) FROM due_date_changes AS before
            WHERE before.agency = :agency AND before.title_id = new.title_id),
        new.old_due_date, new.new_due_date, :business_date, :reason, :changed_by, :now
    FROM unnest(CAST(:title_ids AS uuid[]), CAST(:case_ids AS uuid[]), CAST(:old AS date[]), CAST(:new AS date[]))
        AS new (title_id, case_id, old_due_date, new_due_date)
    """
)


def write(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    titles: Sequence[accounts.Title],
    changes: Sequence[due_dates.Change],
    reason: str,
    changed_by: str,
    business_date: datetime.date,
    now: datetime.datetime,
) -> None:
    """Write moved titles, whose cases are locked, and their history."""
    written = tx.execute(
        _WRITE,
        {
            "agency": agency,
            "case_ids": [one.case_id for one in titles],
            "ids": [one.title_id for one in titles],
            "due_dates": [one.due_date for one in titles],
            "payable_until": [one.payable_until for one in titles],
            "accrued_through": [one.accrued_through for one in titles],
            "corrected_through": [one.corrected_through for one in titles],
            "versions": [one.version for one in titles],
        },
    ).rowcount
    if written != len(titles):
        raise account_store.LostUpdate(f"{written} of {len(titles)} rows written")
    tx.execute(
        _RECORD,
        {
            "agency": agency,
            "title_ids": [one.title_id for one in changes],
            "case_ids": [one.case_id for one in changes],
            "old": [one.old_due_date for one in changes],
            "new": [one.new_due_date for one in changes],
            "business_date": business_date,
            "reason": reason,
            "changed_by": changed_by,
            "now": now,
        },
    )
