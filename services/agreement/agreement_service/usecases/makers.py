"""What makes an instrument of a kind: the desk it is made at, and what it gives (instruments.MAKERS)."""

import dataclasses
import uuid
from collections.abc import Callable, Sequence

from agreement_service import providers
from agreement_service.domain import collection, instruments
from agreement_service.usecases import moments
from servicekit import db


@dataclasses.dataclass(frozen=True, kw_only=True)
class Desk:
    """Where instruments of one creditor are made."""

    tx: db.Transaction
    agency: uuid.UUID
    moment: moments.Moment
    creditor_id: uuid.UUID
    account: collection.CollectionAccount
    bank: providers.BankProvider


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What distinguishes an instrument of a kind; `act_key` is how the bank knows it."""

    act_key: str
    our_number: str = ""
    our_number_printed: str = ""
    barcode: str = ""
    txid: str = ""
    br_code: str = ""


Maker = Callable[[Desk, Sequence[instruments.Debt], Sequence[uuid.UUID]], Sequence[Fields | None]]
"""Makes an instrument for each debt (the second sequence are their ids); None where a debt cannot have one."""
