"""Rules of imported files: states of a batch, what a file is refused for, layouts, amounts, control totals.

Pure: standard library and servicekit's money, errors and ids. Source of the states: state-machines.md "Import batch".
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal

from servicekit import errors, money

MAX_LINE = 64 * 1024
"""Bytes of one record, line breaks inside quoted cells included. A longer line refuses the file: LINE_TOO_LONG."""
MAX_RECORD_LINES = 50
"""Lines that one quoted cell may span; a quote still open then is a broken one."""
MAX_COLUMNS = 200
SLICE_ROWS = 10_000
"""Rows of a slice: one transaction at the service that applies it, within 10 seconds (architecture.md §1.6)."""
MAX_AMOUNT_MINOR = 99_999_999_999_999
"""999,999,999,999.99: a larger amount in a file is a mistake."""


class Kind(enum.StrEnum):
    """What the rows of a batch are."""

    PORTFOLIO = "PORTFOLIO"
    PAYMENTS = "PAYMENTS"


class State(enum.StrEnum):
    """State machine "Import batch"."""

    RECEIVED = "RECEIVED"
    REJECTED = "REJECTED"
    PARSED = "PARSED"
    VALIDATED = "VALIDATED"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    APPLYING = "APPLYING"
    APPLIED = "APPLIED"
    APPLIED_WITH_ERRORS = "APPLIED_WITH_ERRORS"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.PARSED, State.REJECTED}),
    State.PARSED: frozenset({State.VALIDATED, State.REJECTED}),
    State.VALIDATED: frozenset({State.AWAITING_APPROVAL, State.APPLYING}),
    State.AWAITING_APPROVAL: frozenset({State.APPLYING, State.REJECTED}),
    State.APPLYING: frozenset({State.APPLIED, State.APPLIED_WITH_ERRORS}),
    State.APPLIED: frozenset({State.ROLLING_BACK}),
    State.APPLIED_WITH_ERRORS: frozenset({State.ROLLING_BACK}),
    # back to where it was when case or agreement refuse
    State.ROLLING_BACK: frozenset({State.ROLLED_BACK, State.APPLIED, State.APPLIED_WITH_ERRORS}),
    State.ROLLED_BACK: frozenset(),
    State.REJECTED: frozenset(),
}


class RollbackStep(enum.StrEnum):
    """Where the taking back of a batch is; each step is one call, safe to repeat."""

    BEGIN = "BEGIN"
    TITLES = "TITLES"
    END = "END"
    ABORT = "ABORT"


class DuplicateFile(errors.ServiceError):
    """The same bytes of the same kind are here already, in the batch of metadata `batch`."""

    status = errors.Status.ALREADY_EXISTS


class FileTooLarge(errors.ServiceError):
    """The upload is above the limit (RECUPERA_MAX_FILE_BYTES)."""

    status = errors.Status.RESOURCE_EXHAUSTED


class TruncatedUpload(errors.ServiceError):
    """Fewer or more bytes came than were announced, or their SHA-256 is another: nothing was kept, send again."""

    status = errors.Status.INVALID_ARGUMENT


class BatchStateForbids(errors.ServiceError):
    """The batch is in a state (metadata `state`) in which this cannot be done."""

    status = errors.Status.FAILED_PRECONDITION


class BatchNotReversible(errors.ServiceError):
    """Only portfolio batches are taken back; a payment is reversed where it was entered, at the agreement service."""

    status = errors.Status.FAILED_PRECONDITION


class FileRefused(Exception):
    """The file as a whole is refused: `code` is stable, `sentence` says what was expected; no content of the file."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a layout. `length`: most characters of the cell."""

    name: str
    required: bool = False
    length: int = 200


REJECT_COLUMNS = ("reject_row", "reject_field", "reject_code", "reject_expected")
"""What a reject file has after the columns of the upload; a corrected reject file may be sent as it is."""

PORTFOLIO_COLUMNS: Sequence[Column] = (
    Column(name="creditor_reference", required=True, length=64),
    Column(name="creditor_name", required=True),
    Column(name="creditor_document", length=20),
    Column(name="creditor_address", length=300),
    Column(name="contract_reference", required=True, length=64),
    Column(name="product", length=100),
    Column(name="debtor_reference", length=64),
    Column(name="debtor_document_type", length=4),
    Column(name="debtor_document", required=True, length=20),
    Column(name="debtor_name", required=True),
    Column(name="birth_date", length=10),
    Column(name="country", length=2),
    Column(name="region", length=60),
    Column(name="city", length=100),
    Column(name="postal_code", length=10),
    Column(name="address", length=300),
    Column(name="phone_1", length=40),
    Column(name="phone_2", length=40),
    Column(name="email", length=254),
    Column(name="guarantor_document_type", length=4),
    Column(name="guarantor_document", length=20),
    Column(name="guarantor_name"),
    Column(name="guarantor_phone", length=40),
    Column(name="guarantor_email", length=254),
    Column(name="title_reference", required=True, length=64),
    Column(name="title_type", length=20),
    Column(name="issue_date", length=10),
    Column(name="due_date", required=True, length=10),
    Column(name="principal", required=True, length=30),
    Column(name="currency", required=True, length=3),
    Column(name="penalty_rate", length=10),
    Column(name="monthly_interest_rate", length=10),
)
PAYMENTS_COLUMNS: Sequence[Column] = (
    Column(name="creditor_reference", required=True, length=64),
    Column(name="account", required=True, length=64),
    Column(name="means", required=True, length=20),
    Column(name="bank_reference", required=True, length=64),
    Column(name="value_date", required=True, length=10),
    Column(name="amount", required=True, length=30),
    Column(name="currency", required=True, length=3),
    Column(name="txid", length=35),
    Column(name="our_number", length=25),
    Column(name="title_reference", length=64),
    Column(name="contract_reference", length=64),
    Column(name="payer_document", length=20),
)
LAYOUTS: Mapping[Kind, Sequence[Column]] = {
    Kind.PORTFOLIO: PORTFOLIO_COLUMNS,
    Kind.PAYMENTS: PAYMENTS_COLUMNS,
}
AMOUNT_COLUMN: Mapping[Kind, str] = {Kind.PORTFOLIO: "principal", Kind.PAYMENTS: "amount"}
TITLE_TYPES = ("INVOICE", "INSTALMENT", "CHEQUE", "LOAN", "FORECAST", "OTHER")
CONSUMER_PENALTY_E4 = 20_000
"""Highest penalty of a consumer in Brazil, percent times 10 000 (CDC art. 52 §1, Lei 9.298/1996)."""
PAYMENT_MEANS = ("PIX", "BOLETO", "TRANSFER", "MULTIBANCO", "SEPA_DD", "CARD", "CHEQUE", "CASH")
DOCUMENT_TYPES = ("CPF", "CNPJ", "NIF")
UFS = (
    "AC", "AL", "AP", "AM", "BA", "CE", "DF", "ES", "GO", "MA", "MT", "MS", "MG", "PA", "PB", "PR",
    "PE", "PI", "RJ", "RN", "RS", "RO", "RR", "SC", "SP", "SE", "TO",
)  # fmt: skip
CURRENCIES = tuple(sorted(money.CURRENCIES))
EARLIEST_DUE = datetime.date(1980, 1, 1)
LATEST_DUE = datetime.date(2099, 12, 31)
EARLIEST_BIRTH = datetime.date(1890, 1, 1)


class Convention(enum.StrEnum):
    """How a file writes amounts, decided once for the whole file (docs/layouts/portfolio-v1.md, "Amounts")."""

    COMMA = "COMMA"
    """1.234,50"""
    POINT = "POINT"
    """1,234.50"""
    UNKNOWN = "UNKNOWN"
    """No amount of the file shows it: whole numbers are read, 1.234 and 1,234 are refused as ambiguous."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file is written. `encoding` is a Python codec name; `cells` counts the header's cells, unnamed ones too."""

    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    convention: Convention = Convention.UNKNOWN

    @property
    def cells(self) -> int:
        """Cells that every row must have."""
        return len(self.columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reject:
    """One reason why a row is refused; a row may have several. `row` is the record's number, the header being 1."""

    row: int
    field: str
    code: str
    expected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums of a file's rows in one currency, minor units: of all rows with a readable amount, and of good rows."""

    currency: str
    read_minor: int
    good_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """Control totals of the sender; None: not said. `total_minor` is the plain sum of the file's amounts."""

    rows: int | None
    total_minor: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doubt:
    """Why a batch waits for a person."""

    code: str
    sentence: str


def convention(*, comma: int, point: int, delimiter: str) -> Convention:
    """The convention of a file whose first telling block has so many amounts that only one of both explains.

    On a tie the delimiter tells: a comma between cells goes with decimal points.
    """
    if not comma and not point:
        return Convention.UNKNOWN
    if comma == point:
        return Convention.POINT if delimiter == "," else Convention.COMMA
    return Convention.COMMA if comma > point else Convention.POINT


def check_transition(before: State, after: State) -> None:
    """Raises BatchStateForbids when the state machine has no such arrow."""
    if after not in TRANSITIONS[before]:
        raise BatchStateForbids(f"the batch is {before}", state=before.value)


def doubt(
    *,
    expected: Expected,
    rows_read: int,
    rows_rejected: int,
    read_total_minor: int,
    max_error_percent: Decimal,
) -> Doubt | None:
    """Whether a validated batch must wait for approval, and why (state-machines.md: control totals, error % > limit).

    `rows_read` counts the file's rows without blank ones; `read_total_minor` is the sum over good and bad rows
    with a readable amount, whatever the currency. Exactly the limit is not above it.
    """
    if expected.rows is not None and expected.rows != rows_read:
        return Doubt(
            code="CONTROL_ROWS_DIFFER",
            sentence=f"{expected.rows} rows were announced, the file has {rows_read}",
        )
    if expected.total_minor is not None and expected.total_minor != read_total_minor:
        return Doubt(
            code="CONTROL_TOTAL_DIFFERS",
            sentence=f"a total of {money.from_minor(expected.total_minor)} was announced, "
            f"the readable amounts of the file add up to {money.from_minor(read_total_minor)}",
        )
    if rows_read and Decimal(rows_rejected) * 100 > max_error_percent * rows_read:
        return Doubt(
            code="TOO_MANY_REJECTS",
            sentence=f"{rows_rejected} of {rows_read} rows are refused, more than {max_error_percent.normalize():f} %",
        )
    return None


_SAFE_NUMBER = re.compile(r"[+-]?[\d.,() -]*\d[\d.,() -]*", re.ASCII)


def formula_safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before = @ + - tab and line breaks at its start.

    Plain signed numbers (amounts, +55 11 ... telephone numbers) stay as they are.
    """
    if not cell or cell[0] not in "=+-@\t\r\n" or _SAFE_NUMBER.fullmatch(cell):
        return cell
    return "'" + cell


def dialect_of(header: Sequence[str], *, kind: Kind, encoding: str, delimiter: str) -> Dialect:
    """The dialect of a file with this header line, its names trimmed and in lower case.

    Raises FileRefused: TOO_MANY_COLUMNS; WRONG_LAYOUT naming missing, unknown and doubled columns (names of known
    columns and the position of unknown ones, whose text may be anything).
    """
    if len(header) > MAX_COLUMNS:
        raise FileRefused("TOO_MANY_COLUMNS", f"at most {MAX_COLUMNS} columns, the header has {len(header)}")
    names = [name.strip().lower() for name in header]
    layout = LAYOUTS[kind]
    known = {column.name for column in layout} | set(REJECT_COLUMNS)
    missing = [column.name for column in layout if column.required and column.name not in names]
    filled = len(names)
    while filled and not names[filled - 1]:
        filled -= 1
    unknown = [str(index + 1) for index, name in enumerate(names[:filled]) if name not in known]
    doubled = sorted({name for name in names if name in known and names.count(name) > 1})
    problems = []
    if missing:
        problems.append("missing columns: " + ", ".join(missing))
    if unknown:
        problems.append("columns that the layout does not have, at position " + ", ".join(unknown[:20]))
    if doubled:
        problems.append("columns named twice: " + ", ".join(doubled))
    if problems:
        name = f"{kind.value.lower()}-v1"
        raise FileRefused("WRONG_LAYOUT", f"the header is not of layout {name}: " + "; ".join(problems))
    return Dialect(encoding=encoding, delimiter=delimiter, columns=tuple(names))


def expected_total(text: str) -> int | None:
    """The announced total "12345.67" in minor units; None when empty. Raises InvalidRequest."""
    if not text:
        return None
    if not re.fullmatch(r"\d{1,15}(\.\d{1,2})?", text, re.ASCII):
        raise errors.invalid("expected_total", 'expected a decimal with a point, e.g. "12345.67"')
    return money.to_minor(Decimal(text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as stored. Amounts are in tables of their own."""

    id: uuid.UUID
    kind: Kind
    state: State
    file_name: str
    size_bytes: int
    sha256: bytes
    blob_id: uuid.UUID
    creditor: uuid.UUID | None
    expected: Expected
    rows_read: int
    rows_good: int
    rows_rejected: int
    rows_applied: int
    rows_unchanged: int
    slices: int
    slices_applied: int
    refusal_code: str
    refusal: str
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    business_date: datetime.date
    created_at: datetime.datetime
    applied_at: datetime.datetime | None
    version: int
