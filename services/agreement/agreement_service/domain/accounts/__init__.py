"""Titles, instalments and payments of one account, and the ledger entries that move them (features S1-17..19, S1-28).

An `Account` is what money can flow between: the titles of one case, or of all cases of the agreement in force. Every
change of a balance is an `Entry`, a posting of the ledger; entries are only ever added, taking back is an entry with
the opposite sign. What a title or an instalment holds is the sum of its entries:

    principal + charged = open + received + waived + withdrawn + written off + novated    (per title; a CHECK)

Rules, each simple and exact:
- Charges are posted when money is allocated to a title or an agreement over it is accepted, and accrue on the fly
  until then. `accrued_through` moves only together with posted interest.
- A payment counts charges to its value date. Allocation: titles chosen by hand with amounts, the title it names, then
  instalments of the agreement in force (oldest due first), then the other titles (oldest due first); inside a title
  costs, fees, penalty, interest, correction, principal (CC art. 354) or the creditor's order of that day
  (waterfalls.py); inside an instalment plan interest, then the agreed titles' components, oldest title first. What is
  left is kept as overpaid; what of it is refunded or used as a credit leaves the payment.
- Payments apply in the order (value date, identity). One that arrives late, or is reversed, takes later ones of the
  same epoch back and applies them again, so the result does not depend on the order of arrival. An epoch ends when an
  agreement begins or ends, or titles are withdrawn or written off; what lies behind it is not counted again.
- A title in an agreement bears no charges. Charges are posted at acceptance as agreed: counted to the proposal's last
  day.
- What a negotiation adds (accretion, penalty, charges, fees) is posted at acceptance too, as charges of the titles.
- When an agreement ends unfulfilled: the discount comes back entirely; what the negotiation added disappears as far as
  it is not paid; plan interest that was earned and not paid becomes interest of the oldest open title; unearned plan
  interest disappears; charges go on from the day it ended (or from the proposal's last day, to which they are counted
  already, if that is later).
"""

from agreement_service.domain.accounts.account import Account
from agreement_service.domain.accounts.entries import CHARGES, WATERFALL, Component, Entry, Kind
from agreement_service.domain.accounts.instalments import (
    IN_FORCE,
    AgreedTitle,
    Agreement,
    AgreementKind,
    AgreementState,
    Honour,
    Instalment,
    InstalmentState,
    honour,
    instalment_state,
)
from agreement_service.domain.accounts.payments import (
    APPLIED,
    TAKEN_BACK,
    UNCONFIRMED,
    Payment,
    PaymentKey,
    PaymentState,
    Posting,
    applied_state,
)
from agreement_service.domain.accounts.titles import Title, TitleState, title_state_on
from agreement_service.domain.accounts.waterfalls import Waterfalls

__all__ = [
    "APPLIED",
    "CHARGES",
    "IN_FORCE",
    "TAKEN_BACK",
    "UNCONFIRMED",
    "WATERFALL",
    "Account",
    "AgreedTitle",
    "Agreement",
    "AgreementKind",
    "AgreementState",
    "Component",
    "Entry",
    "Honour",
    "Instalment",
    "InstalmentState",
    "Kind",
    "Payment",
    "PaymentKey",
    "PaymentState",
    "Posting",
    "Title",
    "TitleState",
    "Waterfalls",
    "applied_state",
    "honour",
    "instalment_state",
    "title_state_on",
]
