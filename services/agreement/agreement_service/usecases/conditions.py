"""Payment conditions, offers made from them, agreement categories (S3-01, S4-02..05, S4-16; W-14)."""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Sequence

from agreement_service.domain import accounts, approvals, conditions, creditors, limits, plans, proposals
from agreement_service.store import accounts as account_store
from agreement_service.store import conditions as store
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import agreements, existing, moments
from servicekit import db, errors, ids, money

FIELDS = frozenset(
    field.name for field in dataclasses.fields(conditions.Condition) if field.name not in ("id", "version")
)
FIXED = frozenset({"creditor_id", "currency"})
MAX_TITLE = 100


class ConditionExists(errors.ServiceError):
    """The creditor has a condition of that description and currency."""

    status = errors.Status.ALREADY_EXISTS


class DefaultConditionExists(errors.ServiceError):
    """The creditor has another default condition of the currency: take its default away first (S4-05)."""

    status = errors.Status.FAILED_PRECONDITION


class ConditionInUse(errors.ServiceError):
    """Agreements were made from the condition: make it inactive instead."""

    status = errors.Status.FAILED_PRECONDITION


class ConditionDoesNotFit(errors.ServiceError):
    """The condition is inactive, or not for this creditor, currency or delay (S4-02)."""

    status = errors.Status.FAILED_PRECONDITION


class CategoryExists(errors.ServiceError):
    """There is a category of that title."""

    status = errors.Status.ALREADY_EXISTS


class CategoryInactive(errors.ServiceError):
    """The category is not given to new agreements."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An option with its amounts; minor units of the simulation's currency."""

    condition: conditions.Condition
    option: conditions.Option
    entry_minor: int
    negotiation: agreements.Negotiation
    simulation: agreements.Simulation

    @property
    def hints(self) -> Sequence[approvals.ApprovalNeeded]:
        """What would need approval if it was proposed as it is."""
        return self.simulation.needed


def create(
    *, tx: db.Transaction, agency: uuid.UUID, new: conditions.Condition, moment: moments.Moment
) -> uuid.UUID:
    """Store a condition; its id. Raises ResourceNotFound, InvalidRequest naming each wrong field, ConditionExists,
    DefaultConditionExists."""
    if new.creditor_id is not None:
        existing.creditor(tx, agency, new.creditor_id)
    new = dataclasses.replace(new, id=ids.new())
    store.guard(tx, agency)
    _check(tx, agency, new)
    store.add(tx, agency, new, now=moment.now)
    return new.id


def update(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    condition_id: uuid.UUID,
    new: conditions.Condition,
    only: Collection[str],
    version: int | None,
) -> None:
    """Set the fields named in `only` (none: all but creditor and currency, which stay). Proposals made from it stay.

    Raises as `create`, ResourceNotFound, VersionMismatch.
    """
    store.guard(tx, agency)
    found = _known(tx, agency, condition_id)
    if version is not None and version != found.version:
        raise errors.VersionMismatch("the condition changed since it was read", etag=found.version)
    if wrong := sorted(set(only) - (FIELDS - FIXED)):
        raise errors.invalid("update_mask", f"expected fields that can change, found {wrong[0]}")
    changes = {name: getattr(new, name) for name in set(only) or FIELDS - FIXED}
    merged = dataclasses.replace(found, **changes)
    _check(tx, agency, merged)
    store.update(tx, agency, merged)


def delete(*, tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID, version: int | None) -> None:
    """Take a condition away. Raises ResourceNotFound, VersionMismatch, ConditionInUse."""
    store.guard(tx, agency)
    found = _known(tx, agency, condition_id)
    if version is not None and version != found.version:
        raise errors.VersionMismatch("the condition changed since it was read", etag=found.version)
    if store.used(tx, agency, condition_id):
        raise ConditionInUse("agreements were made from the condition", condition=condition_id)
    store.delete(tx, agency, condition_id)


def offers(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    authority: limits.Authority,
    date: datetime.date | None,
    today: datetime.date,
) -> list[Offer]:
    """What the cases may be offered today, charges counted to `date` (None: the last day of a proposal made today).

    Default conditions first, then by description; options by number. What the creditor's settings do not allow, or
    cannot be divided, is left out. Raises as `agreements.simulate` does for the cases.
    """
    debt = _debt(tx, agency, case_ids, today)
    date = date or today + datetime.timedelta(days=debt.settings.validity_days)
    found = []
    fitting = [
        stored.condition
        for stored in store.page(tx, agency, creditor_id=debt.account.creditor_id, active_only=True)
        if debt.fits(stored.condition)
    ]
    for condition in sorted(fitting, key=lambda one: (not one.is_default, one.description, one.id)):
        for option in condition.options:
            try:
                found.append(
                    _offer(
                        tx,
                        agency,
                        debt=debt,
                        condition=condition,
                        option=option,
                        authority=authority,
                        date=date,
                        today=today,
                        entry_minor=None,
                    )
                )
            except (
                proposals.OutsideCreditorSettings,
                plans.DiscountTooLarge,
                plans.DownPaymentTooLarge,
                plans.InstalmentTooSmall,
            ):
                continue
    return found


def negotiation(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    condition_id: uuid.UUID,
    option_number: int,
    entry: money.Money | None,
    validity_days: int,
    authority: limits.Authority,
    today: datetime.date,
) -> agreements.Negotiation:
    """What an option stands for, to be proposed for `validity_days` (0: the creditor's): all open titles of the cases,
    which are locked, and the entry given or the least.

    Raises ResourceNotFound, ConditionDoesNotFit, EntryNotOfTheOption, EntryTooSmall, and as `agreements.simulate`.
    """
    condition = _known(tx, agency, condition_id)
    option = condition.option(option_number)
    if option is None:
        raise errors.ResourceNotFound("no such option", condition=condition_id, option=option_number)
    account_store.lock(tx, agency, case_ids)
    debt = _debt(tx, agency, case_ids, today)
    if not debt.fits(condition):
        raise ConditionDoesNotFit(
            "the condition is not for this debt",
            condition=condition_id,
            active=condition.active,
            delay_days=debt.delay,
            allowed_min=condition.delay_from,
            allowed_max="any" if condition.delay_to is None else condition.delay_to,
        )
    if entry is not None and entry.currency != condition.currency:
        raise agreements.CurrencyNotOfTheCases(
            "the cases are in another currency", currency=condition.currency
        )
    return _offer(
        tx,
        agency,
        debt=debt,
        condition=condition,
        option=option,
        authority=authority,
        date=today + datetime.timedelta(days=validity_days or debt.settings.validity_days),
        today=today,
        entry_minor=None if entry is None else entry.minor,
    ).negotiation


def mark(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    category_id: uuid.UUID | None,
    condition_id: uuid.UUID | None,
    option_number: int | None,
) -> None:
    """Say what a proposal was made from and its category. Raises ResourceNotFound, CategoryInactive."""
    if category_id is not None:
        found = store.categories(tx, agency, category_id=category_id)
        if not found:
            raise errors.ResourceNotFound("no such category", category=category_id)
        if not found[0].active:
            raise CategoryInactive("the category is not active", category=category_id)
    if category_id is not None or condition_id is not None:
        store.add_origin(
            tx,
            agency,
            store.Origin(
                agreement_id=agreement_id,
                category_id=category_id,
                condition_id=condition_id,
                option_number=option_number,
            ),
        )


def create_category(
    *, tx: db.Transaction, agency: uuid.UUID, title: str, active: bool, moment: moments.Moment
) -> uuid.UUID:
    """Store a category; its id. Raises InvalidRequest, CategoryExists."""
    _check_title(title)
    category_id = ids.new()
    if not store.add_category(tx, agency, category_id, title=title, active=active, now=moment.now):
        raise CategoryExists("there is a category of that title")
    return category_id


def update_category(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    category_id: uuid.UUID,
    title: str | None,
    active: bool | None,
    version: int | None,
) -> None:
    """Set title and activity; None leaves one. Raises ResourceNotFound, InvalidRequest, VersionMismatch,
    CategoryExists."""
    found = next(iter(store.categories(tx, agency, category_id=category_id)), None)
    if found is None:
        raise errors.ResourceNotFound("no such category", category=category_id)
    if version is not None and version != found.version:
        raise errors.VersionMismatch("the category changed since it was read", etag=found.version)
    if title is not None:
        _check_title(title)
    new = dataclasses.replace(
        found,
        title=found.title if title is None else title,
        active=found.active if active is None else active,
    )
    if not store.set_category(tx, agency, new):
        there = store.categories(tx, agency, category_id=category_id)[0]
        if there.version != found.version:
            raise errors.VersionMismatch("the category is being changed by somebody else", etag=there.version)
        raise CategoryExists("there is another category of that title")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Debt:
    """The open titles of some cases of one creditor and currency."""

    case_ids: Sequence[uuid.UUID]
    account: account_store.CaseAccount
    settings: creditors.CreditorSettings
    titles: Sequence[accounts.Title]
    delay: int

    def fits(self, condition: conditions.Condition) -> bool:
        return condition.fits(
            creditor_id=self.account.creditor_id, currency=self.account.currency, delay=self.delay
        )


def _debt(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID], today: datetime.date
) -> _Debt:
    cases = account_store.cases(tx, agency, case_ids)
    if not case_ids or len(cases) != len(set(case_ids)):
        raise errors.ResourceNotFound("no such case", missing=len(set(case_ids)) - len(cases))
    account = cases[case_ids[0]]
    titles = proposals.choose(
        account_store.titles(tx, agency, cases), title_ids=(), include_not_due=True, business_date=None
    )
    return _Debt(
        case_ids=case_ids,
        account=account,
        settings=creditor_store.settings(tx, agency, account.creditor_id),
        titles=titles,
        delay=conditions.delay(titles, today=today),
    )


def _offer(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    debt: _Debt,
    condition: conditions.Condition,
    option: conditions.Option,
    authority: limits.Authority,
    date: datetime.date,
    today: datetime.date,
    entry_minor: int | None,
) -> Offer:
    edits = conditions.charges(condition, option, debt.titles, date=date)
    whole = proposals.price(
        titles=debt.titles,
        terms=conditions.terms(condition, option, today=today),
        date=date,
        charges=edits,
    )
    entry = conditions.entry(
        option,
        total_minor=whole.total_minor,
        creditor_minimum_minor=debt.settings.minimum_down_payment.of(whole.total_minor),
        given_minor=entry_minor,
    )
    wanted = agreements.Negotiation(
        case_ids=debt.case_ids,
        terms=conditions.terms(condition, option, today=today, entry_minor=entry),
        currencies=frozenset({condition.currency}),
        charges=edits,
    )
    return Offer(
        condition=condition,
        option=option,
        entry_minor=entry,
        negotiation=wanted,
        simulation=agreements.simulate(
            tx=tx,
            agency=agency,
            negotiation=wanted,
            authority=authority,
            date=date,
            today=today,
        ),
    )


def _known(tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID) -> conditions.Condition:
    found = store.get(tx, agency, condition_id)
    if found is None:
        raise errors.ResourceNotFound("no such payment condition", condition=condition_id)
    return found.condition


def _check(tx: db.Transaction, agency: uuid.UUID, one: conditions.Condition) -> None:
    if wrong := one.check():
        raise errors.InvalidRequest(
            fields=[errors.FieldViolation(f"condition.{found.field}", found.description) for found in wrong]
        )
    descriptions, defaults = store.same(tx, agency, one)
    if descriptions:
        raise ConditionExists("the creditor has a condition of that description")
    if one.is_default and defaults:
        raise DefaultConditionExists("the creditor has another default condition of the currency")


def _check_title(title: str) -> None:
    if not 1 <= len(title) <= MAX_TITLE or not title.isprintable():
        raise errors.invalid("category.title", f"expected 1 to {MAX_TITLE} printable characters")
