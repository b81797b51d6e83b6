"""Due dates of titles moved by agreement with the debtor (S2-32)."""

import dataclasses
import datetime
import uuid

from agreement_service.domain import accounts
from servicekit import errors

MAX_YEARS = 10


class TitleNotOpen(errors.ServiceError):
    """Nothing is open on the title, or it is in an agreement, which has due dates of its own."""

    status = errors.Status.FAILED_PRECONDITION


class DueDateUnchanged(errors.ServiceError):
    """The title is due on that day already."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One title's move."""

    case_id: uuid.UUID
    title_id: uuid.UUID
    old_due_date: datetime.date
    new_due_date: datetime.date

    @property
    def days(self) -> int:
        """Calendar days; earlier is negative."""
        return (self.new_due_date - self.old_due_date).days


def move(title: accounts.Title, *, due_date: datetime.date, payable_until: datetime.date) -> Change:
    """Let a title be due on another day; `payable_until` is that day rolled to a business day.

    What is charged stays; charges that are not posted yet count from the new due date, and never again for days that
    are charged. Raises TitleNotOpen, DueDateUnchanged.
    """
    if not title.open_minor or title.agreement_id is not None:
        raise TitleNotOpen("the title is not open", title=title.title_id, state=title.state.value)
    if title.due_date == due_date:
        raise DueDateUnchanged("the title is due on that day", title=title.title_id, due_date=due_date)
    change = Change(
        case_id=title.case_id,
        title_id=title.title_id,
        old_due_date=title.due_date,
        new_due_date=due_date,
    )
    charged = title.accrued_through > title.due_date
    title.accrued_through = max(title.accrued_through, due_date) if charged else due_date
    if title.corrected_through is not None:
        title.corrected_through = max(title.corrected_through, due_date)
    title.due_date, title.payable_until = due_date, payable_until
    title.version += 1
    return change
