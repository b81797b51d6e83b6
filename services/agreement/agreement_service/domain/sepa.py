"""SEPA direct debit: mandates, dates, sequences, returns (standards.md 4.7; EPC SDD rulebooks).

Amounts in cents of EUR. A collection takes place on a TARGET business day, at least one such day after the file is
made, and not before the debtor was told of it: the schedule of an agreement tells him when it is accepted.
"""

import dataclasses
import datetime
import enum
import re
import unicodedata
from collections.abc import Iterable, Mapping

from stdnum import bic as bics
from stdnum import exceptions as stdnum_errors
from stdnum import iban as ibans
from stdnum.eu import at_02

from servicekit import errors

PRE_NOTICE_DAYS = 14
"""Days between telling the debtor and collecting, where nothing shorter was agreed."""
IDLE_MONTHS = 36
"""A mandate that was not used for so long lapses."""
MAX_PRESENTATIONS = 3
"""An instalment is presented at most so many times: at first and after two returns that may be tried again."""
MAX_REFERENCE = 35
MAX_NAME = 70
MAX_AMOUNT_MINOR = 99_999_999_999
"""999,999,999.99 EUR, the most a collection of the scheme may be."""


class Scheme(enum.StrEnum):
    """Rulebook of a mandate: consumers (CORE) or companies (B2B: no refund)."""

    CORE = "CORE"
    B2B = "B2B"


class Sequence(enum.StrEnum):
    """Place of a collection in its mandate's life."""

    FIRST = "FRST"
    RECURRENT = "RCUR"
    ONE_OFF = "OOFF"
    FINAL = "FNAL"


class MandateState(enum.StrEnum):
    """Only an active mandate is collected on. Suspended: a return asks a person to look. Used: its last collection was
    made. Lapsed: idle for 36 months, which is seen when it is read."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    USED = "USED"
    LAPSED = "LAPSED"
    CANCELLED = "CANCELLED"


class Action(enum.StrEnum):
    """What a return means for the next collection."""

    RETRY = "RETRY"
    SUSPEND = "SUSPEND"
    END = "END"


@dataclasses.dataclass(frozen=True, slots=True)
class ReturnReason:
    """An ISO external reason code as the scheme uses it."""

    meaning: str
    action: Action


RETURNS: Mapping[str, ReturnReason] = {
    "AM04": ReturnReason("insufficient funds", Action.RETRY),
    "MS03": ReturnReason("reason not stated by the debtor's bank", Action.RETRY),
    "AC01": ReturnReason("account number incorrect", Action.SUSPEND),
    "AC06": ReturnReason("account blocked", Action.SUSPEND),
    "MD06": ReturnReason("refund asked for by the debtor", Action.SUSPEND),
    "MS02": ReturnReason("refused by the debtor", Action.SUSPEND),
    "SL01": ReturnReason("blocked by a service of the debtor's bank", Action.SUSPEND),
    "AC04": ReturnReason("account closed", Action.END),
    "MD01": ReturnReason("no mandate, or none that is valid", Action.END),
    "MD07": ReturnReason("debtor deceased", Action.END),
}


class IbanInvalid(errors.ServiceError):
    """No IBAN: country, length, national check digits or MOD 97-10 are wrong."""

    status = errors.Status.INVALID_ARGUMENT


class CreditorIdentifierInvalid(errors.ServiceError):
    """No SEPA creditor identifier: MOD 97-10 over country and national id is wrong."""

    status = errors.Status.INVALID_ARGUMENT


class ReturnCodeUnknown(errors.ServiceError):
    """A reason code that the table of returns does not have: it is never guessed what follows from it."""

    status = errors.Status.INVALID_ARGUMENT


class MandateReferenceInvalid(errors.ServiceError):
    """A mandate's reference has 1 to 35 characters of the SEPA set, without slash at the ends and no double slash."""

    status = errors.Status.INVALID_ARGUMENT


def iban(text: str, field: str = "iban") -> str:
    """The IBAN without spaces, in capitals. PT50000201231234567890154 is one. Raises IbanInvalid (never quoting it)."""
    try:
        return str(ibans.validate(text))
    except stdnum_errors.ValidationError:
        raise IbanInvalid(
            "the IBAN is wrong", fields=[errors.FieldViolation(field, "expected a valid IBAN")]
        ) from None


def bic(text: str, field: str = "bic") -> str:
    """A BIC of 8 or 11 characters, in capitals. Raises InvalidRequest."""
    try:
        return str(bics.validate(text))
    except stdnum_errors.ValidationError:
        raise errors.invalid(field, "expected a BIC of 8 or 11 characters") from None


def creditor_identifier(text: str, field: str = "scheme_identifier") -> str:
    """The creditor identifier without spaces: ES23ZZZ47690558N, PT73ZZZ123456. The business code (characters 5 to 7)
    is no part of the check. Raises CreditorIdentifierInvalid."""
    try:
        return str(at_02.validate(text))
    except stdnum_errors.ValidationError:
        raise CreditorIdentifierInvalid(
            "the creditor identifier is wrong",
            fields=[
                errors.FieldViolation(field, "expected country, check digits, business code, national id")
            ],
        ) from None


def mandate_reference(text: str, field: str = "reference") -> str:
    """A unique mandate reference as it goes into the file. Raises MandateReferenceInvalid."""
    good = re.fullmatch(r"[A-Za-z0-9+?/:().,' -]{1,35}", text)
    if not good or text != text.strip() or text.startswith("/") or text.endswith("/") or "//" in text:
        raise MandateReferenceInvalid(
            "the mandate's reference is wrong",
            fields=[
                errors.FieldViolation(field, "expected 1 to 35 letters, digits or + ? / : ( ) . , ' - space")
            ],
        )
    return text


def latin(text: str, length: int = MAX_NAME) -> str:
    """Text in the SEPA character set (EPC217-08): accents taken off, anything else a space, at most `length`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9/?:().,'+ -]", " ", plain)
    return re.sub(r" +", " ", kept).strip(" /")[:length].strip(" /")


def return_reason(code: str) -> ReturnReason:
    """What a code means. Raises ReturnCodeUnknown."""
    found = RETURNS.get(code)
    if found is None:
        expected = ", ".join(sorted(RETURNS))
        raise ReturnCodeUnknown(
            "the return code is not known",
            fields=[errors.FieldViolation("reason_code", f"expected one of {expected}")],
        )
    return found


def may_present(returned: Iterable[str]) -> bool:
    """Whether an instalment may get another direct debit, `returned` being the codes its earlier ones came back with:
    at most two, and all of the kind that may be tried again."""
    codes = list(returned)
    return len(codes) < MAX_PRESENTATIONS and all(
        return_reason(code).action is Action.RETRY for code in codes
    )


def sequence(*, one_off: bool, collected_before: int, more_to_come: bool) -> Sequence:
    """Sequence type of a collection. `collected_before` counts collections of the mandate that were not returned (a
    returned first one is first again); without `more_to_come` it is the mandate's last."""
    if one_off:
        return Sequence.ONE_OFF
    if collected_before == 0:
        return Sequence.FIRST
    return Sequence.RECURRENT if more_to_come else Sequence.FINAL


def easter(year: int) -> datetime.date:
    """Easter Sunday of the Gregorian calendar (the anonymous algorithm of 1876, as Meeus prints it)."""
    golden = year % 19
    century, rest = divmod(year, 100)
    leaps, skipped = divmod(century, 4)
    moon = (19 * golden + century - leaps - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    weekday = (32 + 2 * skipped + 2 * (rest // 4) - moon - rest % 4) % 7
    late = (golden + 11 * moon + 22 * weekday) // 451
    month, day = divmod(moon + weekday - 7 * late + 114, 31)
    return datetime.date(year, month, day + 1)


def is_target_day(date: datetime.date) -> bool:
    """Whether TARGET works: not on weekends, 1 January, Good Friday, Easter Monday, 1 May, 25 and 26 December."""
    if date.weekday() >= 5 or (date.month, date.day) in ((1, 1), (5, 1), (12, 25), (12, 26)):
        return False
    return (date - easter(date.year)).days not in (-2, 1)


def target_day(date: datetime.date) -> datetime.date:
    """The date, or the next TARGET business day after it."""
    while not is_target_day(date):
        date += datetime.timedelta(days=1)
    return date


def collection_date(
    *,
    due_date: datetime.date,
    today: datetime.date,
    notice_date: datetime.date,
    pre_notice_days: int = PRE_NOTICE_DAYS,
) -> datetime.date:
    """When a collection is asked for: the due date, at least one TARGET business day after `today`, and no earlier than
    `pre_notice_days` after the debtor was told (`notice_date`); rolled to a TARGET business day."""
    next_day = target_day(today + datetime.timedelta(days=1))
    noticed = notice_date + datetime.timedelta(days=pre_notice_days)
    return target_day(max(due_date, next_day, noticed))


def lapses_after(signature_date: datetime.date, last_collection_date: datetime.date | None) -> datetime.date:
    """The last day on which a mandate can be used: 36 months after its last collection, or its signature."""
    start = max(signature_date, last_collection_date or signature_date)
    year = start.year + IDLE_MONTHS // 12
    try:
        return start.replace(year=year)
    except ValueError:  # 29 February
        return start.replace(year=year, day=28)


def state_after(state: MandateState, sequence_sent: Sequence, reason: ReturnReason) -> MandateState:
    """A mandate's state after a return of a collection sent under `sequence_sent`.

    What ends it ends it whatever it was. A mandate that was used up by the collection that came back is active again
    where that one may be tried again; one that was cancelled meanwhile stays so.
    """
    if state is MandateState.CANCELLED or reason.action is Action.END:
        return MandateState.CANCELLED
    if reason.action is Action.SUSPEND:
        return MandateState.SUSPENDED
    if state is MandateState.USED and sequence_sent in (Sequence.ONE_OFF, Sequence.FINAL):
        return MandateState.ACTIVE
    return state


def state_on(
    state: MandateState,
    *,
    signature_date: datetime.date,
    last_collection_date: datetime.date | None,
    date: datetime.date,
) -> MandateState:
    """A mandate's state on a date: one that was idle for 36 months has lapsed."""
    if state in (MandateState.ACTIVE, MandateState.SUSPENDED) and date > lapses_after(
        signature_date, last_collection_date
    ):
        return MandateState.LAPSED
    return state
