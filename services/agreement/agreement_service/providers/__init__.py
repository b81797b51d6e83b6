"""The outside world: the bank that registers instruments, slices of payment files, the calendar of business days,
documents on paper (`providers.documents`, imported where they are made)."""

from agreement_service.domain.collection import CollectionAccount as CollectionAccount
from agreement_service.providers.bank import BankProvider as BankProvider
from agreement_service.providers.bank import BankUnavailable as BankUnavailable
from agreement_service.providers.bank import OfflineBank as OfflineBank
from agreement_service.providers.bank import Order as Order
from agreement_service.providers.bank import Registration as Registration
from agreement_service.providers.calendar import payable_until as payable_until
from agreement_service.providers.imports import SLICE_TIMEOUT as SLICE_TIMEOUT
from agreement_service.providers.imports import ImportSlices as ImportSlices
from agreement_service.providers.imports import Slices as Slices
from agreement_service.providers.parties import CaseParties as CaseParties
from agreement_service.providers.parties import Parties as Parties
from agreement_service.providers.parties import PartyDirectory as PartyDirectory
