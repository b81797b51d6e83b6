"""What is owed on a date, line by line, as `agreement` explained it: stated to the person and kept as
evidence (R08).
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from typing import Any

from servicekit import money


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A component of a balance. `rate_e4` is percent times 10 000; `source` the term or law it follows
    from.
    """

    component: str
    amount: money.Money
    base: money.Money | None
    rate_e4: int
    days: int
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Balance of a title or of an instalment of the agreement in force."""

    name: str
    """Resource name: agencies/../titles/.. or agencies/../agreements/..."""
    due_date: datetime.date
    days_past_due: int
    total: money.Money
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseBalance:
    """Everything owed on a case on `date`, in one currency."""

    case_id: uuid.UUID
    date: datetime.date
    total: money.Money
    subjects: tuple[Subject, ...]

    def instalment(self, *, agreement_id: uuid.UUID, due_date: datetime.date | None) -> Subject | None:
        """The open instalment of this agreement that is due on `due_date`; None where it is no longer
        open.
        """
        ending = f"/agreements/{agreement_id}"
        for subject in self.subjects:
            if subject.name.endswith(ending) and subject.due_date == due_date:
                return subject
        return None

    def evidence(self) -> dict[str, Any]:
        """The balance as kept beside the message: ids, amounts in minor units, dates, sources; no personal
        data.
        """
        return {
            "date": self.date.isoformat(),
            "currency": self.total.currency,
            "total_minor": self.total.minor,
            "subjects": [
                {
                    "subject": subject.name,
                    "due_date": subject.due_date.isoformat(),
                    "days_past_due": subject.days_past_due,
                    "total_minor": subject.total.minor,
                    "lines": [
                        {
                            "component": line.component,
                            "amount_minor": line.amount.minor,
                            "base_minor": line.base.minor if line.base else None,
                            "rate_e4": line.rate_e4,
                            "days": line.days,
                            "source": line.source,
                        }
                        for line in subject.lines
                    ],
                }
                for subject in self.subjects
            ],
        }
