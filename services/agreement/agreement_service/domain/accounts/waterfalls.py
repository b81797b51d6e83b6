"""The order in which a payment extinguishes what a title owes: a creditor's, dated, within what the law allows.

CC BR art. 354: a payment counts towards interest first, then capital, "salvo estipulação em contrário, ou se o credor
passar a quitação por conta do capital". CC PT art. 785: expenses, compensation, interest, capital; capital before only
where the creditor agrees. So, with the groups costs (COSTS, FEES), interest (PENALTY, INTEREST) and capital
(CORRECTION, PRINCIPAL):

- each group stands together, its two members in any order;
- costs come before interest;
- capital comes last; a creditor may set it earlier, which only ever favours the debtor: charges accrue on less
  principal, and the sum of what is owed is the same on the day.
"""

import dataclasses
import datetime
from collections.abc import Sequence

from agreement_service.domain.accounts.entries import WATERFALL, Component

Order = tuple[Component, ...]

COSTS = frozenset({Component.COSTS, Component.FEES})
INTEREST = frozenset({Component.PENALTY, Component.INTEREST})
CAPITAL = frozenset({Component.CORRECTION, Component.PRINCIPAL})
LAWFUL = ((COSTS, INTEREST, CAPITAL), (COSTS, CAPITAL, INTEREST), (CAPITAL, COSTS, INTEREST))
"""Orders of the groups that the law allows, its own first."""


def lawful(order: Sequence[Component]) -> bool:
    """Whether `order` names every component of a title once, in an order that the law allows."""
    if len(order) != len(WATERFALL) or frozenset(order) != frozenset(WATERFALL):
        return False
    return tuple(frozenset(order[at : at + 2]) for at in (0, 2, 4)) in LAWFUL


@dataclasses.dataclass(frozen=True, slots=True)
class Waterfalls:
    """A creditor's orders, each from a day on: a payment follows the one in force on its value date; before the first
    the law's own (`WATERFALL`)."""

    dated: tuple[tuple[datetime.date, Order], ...] = ()

    def on(self, date: datetime.date) -> Order:
        """The order for a payment of this value date."""
        standing = [(since, order) for since, order in self.dated if since <= date]
        return max(standing)[1] if standing else WATERFALL


LEGAL = Waterfalls()
