"""Terms of charges and published series: set, imported, given to titles (S1-17, S1-26; R08, R09, R21)."""

import csv
import datetime
import io
import itertools
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal

from agreement_service.domain import series, terms
from agreement_service.store import accounts as account_store
from agreement_service.store import payments as payment_store
from agreement_service.store import terms as store
from agreement_service.usecases import existing, moments
from servicekit import db, errors, ids, money

MAX_CONTENT = 1_048_576
MAX_ROWS_NAMED = 20


class SeriesUnknown(errors.ServiceError):
    """No series of this code."""

    status = errors.Status.NOT_FOUND


class SeriesValueDiffers(errors.ServiceError):
    """A value differs from the one published before: refused unless the caller says replace."""

    status = errors.Status.FAILED_PRECONDITION


def put(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    scope: terms.Scope,
    content: terms.Terms,
    set_by: str,
    moment: moments.Moment,
) -> store.Record:
    """Add terms and give them to the open titles that they stand for; what is posted stays.

    Raises InvalidRequest, ChargeAboveLegalLimit naming field, limit and law (R09, R21), ResourceNotFound.
    """
    wrong = []
    if scope.currency not in money.CURRENCIES:
        expected = " or ".join(sorted(money.CURRENCIES))
        wrong.append(errors.FieldViolation("charge_terms.currency", f"expected {expected}"))
    if len(scope.product) > 100 or "\0" in scope.product:
        wrong.append(errors.FieldViolation("charge_terms.product", "expected at most 100 characters"))
    if scope.product and scope.creditor_id is None:
        wrong.append(errors.FieldViolation("charge_terms.creditor_id", "expected the product's creditor"))
    if scope.title_id is not None and (scope.creditor_id is None or scope.product):
        wrong.append(
            errors.FieldViolation("charge_terms.title_id", "expected a creditor and no product with it")
        )
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    content.check(scope)
    if scope.creditor_id is not None:
        existing.creditor(tx, agency, scope.creditor_id)
    if scope.title_id is not None:
        found = account_store.places(tx, agency, [scope.title_id]).get(scope.title_id)
        if found is None or found.creditor_id != scope.creditor_id:
            raise errors.ResourceNotFound("no such title of this creditor", title=scope.title_id)
    if content.interest_series:
        _ship(tx, agency, series.SERIES[content.interest_series], moment)
    key = ids.new()
    store.add(tx, agency, id=key, scope=scope, terms=content, set_by=set_by, now=moment.now)
    apply(tx=tx, agency=agency, creditor_id=scope.creditor_id, title_id=scope.title_id)
    return store.get(tx, agency, [key])[key]


def apply(
    *, tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID | None, title_id: uuid.UUID | None = None
) -> int:
    """Give open titles (of a creditor; of all) the terms and the interest switch that stand for them now; how many
    changed. Charges posted before stay: a new epoch of their cases begins. Titles being placed wait for it."""
    payment_store.guard_unidentified(tx, agency, shared=False)
    touched = store.touched(tx, agency, creditor_id=creditor_id, title_id=title_id)
    if not touched:
        return 0
    account_store.lock(tx, agency, touched)
    changed = store.resolve(tx, agency, creditor_id=creditor_id, title_id=title_id)
    account_store.new_epoch(tx, agency, touched)
    return changed


def definition(code: str) -> series.Definition:
    """A series by its code. Raises SeriesUnknown."""
    if code not in series.SERIES:
        raise SeriesUnknown("no such series", known=", ".join(series.SERIES))
    return series.SERIES[code]


def import_series(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    code: str,
    content: bytes,
    source: str,
    replace: bool,
    moment: moments.Moment,
) -> int:
    """Take published values from a CSV file; how many are new or replaced.

    A row is `month;value` in percent with decimal comma or point and at most six decimals; of LEGAL_BR also
    `month;selic_factor;ipca15_factor` of the month before. A month is 2026-01, 01/2026, 2026-01-01 or 01/01/2026; of
    rates by semester 2026-01 or 2026-07. Raises SeriesUnknown, InvalidRequest naming the rows, SeriesValueDiffers
    naming the month; months may not be left out.
    """
    found = definition(code)
    if len(content) > MAX_CONTENT:
        raise errors.invalid("content", f"expected at most {MAX_CONTENT} bytes")
    if not 1 <= len(source) <= terms.MAX_TEXT or "\0" in source:
        raise errors.invalid("source", f"expected who published it, at most {terms.MAX_TEXT} characters")
    read = _rows(found, content)
    store.lock_series(tx, agency, found)
    known = {one.period: one for one in store.values(tx, agency, code)}
    for period, value, shipped_source in found.shipped:
        known.setdefault(period, store.Value(period=period, value_e6=value, source=shipped_source))
    changed = [
        store.Value(period=period, value_e6=value, source=source)
        for period, value in read
        if period not in known or known[period].value_e6 != value
    ]
    differing = [one.period for one in changed if one.period in known]
    if differing and not replace:
        raise SeriesValueDiffers(
            "differs from the published value", month=f"{differing[0]:%Y-%m}", months=len(differing)
        )
    merged = {**known, **{one.period: one for one in changed}}
    _write(tx, agency, found, merged=merged, changed=changed, moment=moment)
    return len(changed)


def _ship(tx: db.Transaction, agency: uuid.UUID, found: series.Definition, moment: moments.Moment) -> None:
    """Values that come with the release, where the agency has none."""
    if not found.shipped or store.values(tx, agency, found.code):
        return
    store.lock_series(tx, agency, found)
    values = [store.Value(period=day, value_e6=value, source=text) for day, value, text in found.shipped]
    _write(tx, agency, found, merged={one.period: one for one in values}, changed=values, moment=moment)


def _write(
    tx: db.Transaction,
    agency: uuid.UUID,
    found: series.Definition,
    *,
    merged: dict[datetime.date, store.Value],
    changed: Sequence[store.Value],
    moment: moments.Moment,
) -> None:
    ordered = [merged[period] for period in sorted(merged)]
    if found.begins is not None and ordered[0].period > found.begins:
        raise errors.invalid("content", f"expected {found.begins:%Y-%m} as the first month: {found.law}")
    for one, following in itertools.pairwise(ordered):
        expected = series.period_after(found.kind, one.period)
        if following.period != expected:
            raise errors.invalid("content", f"expected no gap: {expected:%Y-%m} is missing")
    stored = {one.period for one in store.values(tx, agency, found.code)}
    unstored = [one for one in ordered if one.period not in stored and one not in changed]
    days = series.table(found, [(one.period, one.value_e6) for one in ordered])
    store.put_values(tx, agency, found.code, changed=[*changed, *unstored], days=days, now=moment.now)
    if changed:
        account_store.lock(tx, agency, store.proposed_with(tx, agency, found.code))
        store.touch_proposed(tx, agency, found.code)


_MONTH = re.compile(
    r"(?:01/)?(?P<month>0[1-9]|1[0-2])/(?P<year>\d{4})|(?P<year2>\d{4})-(?P<month2>0[1-9]|1[0-2])(?:-01)?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,6}(?:[.,]\d{1,18})?", re.ASCII)


def _rows(found: series.Definition, content: bytes) -> list[tuple[datetime.date, int]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.invalid("content", "expected UTF-8") from error
    if "\0" in text:
        raise errors.invalid("content", "expected text")
    wrong: list[errors.FieldViolation] = []
    values: dict[datetime.date, int] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=";"), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and not any(character.isdigit() for character in cells[0])):
            continue
        said = _row(found, cells, values)
        if said is not None:
            wrong.append(errors.FieldViolation(f"content[{number}]", said))
            if len(wrong) == MAX_ROWS_NAMED:
                break
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    if not values:
        raise errors.invalid("content", "expected at least one row month;value")
    return sorted(values.items())


def _row(found: series.Definition, cells: list[str], values: dict[datetime.date, int]) -> str | None:
    """Takes a row over; says what was expected where it is wrong."""
    widths = (2, 3) if found.code == "LEGAL_BR" else (2,)
    if len(cells) not in widths:
        return "expected month;value"
    month = _MONTH.fullmatch(cells[0])
    if month is None:
        return "expected a month such as 2026-01 or 01/2026"
    year = int(month["year"] or month["year2"])
    if not 1980 <= year <= 2099:
        return "expected a month from 1980 to 2099"
    period = datetime.date(year, int(month["month"] or month["month2"]), 1)
    if found.kind is series.Kind.ANNUAL_RATE and period.month not in (1, 7):
        return "expected the first month of a semester"
    if period in values:
        return "expected each month once"
    if not all(_NUMBER.fullmatch(cell) for cell in cells[1:]):
        return "expected a number such as 0,53 or -0.11"
    numbers = [Decimal(cell.replace(",", ".")) for cell in cells[1:]]
    if len(numbers) == 2:
        if min(numbers) <= 0:
            return "expected factors above zero"
        value = series.legal_rate_e6(selic_factor=numbers[0], ipca15_factor=numbers[1])
    else:
        scaled = numbers[0].scaleb(6)
        if scaled != int(scaled):
            return "expected at most six decimals"
        value = int(scaled)
    lowest = -50 if found.kind is series.Kind.INDEX else 0
    if not lowest * 1_000_000 <= value <= 100_000_000:
        return f"expected percent from {lowest} to 100"
    values[period] = value
    return None
