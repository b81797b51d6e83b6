"""Agreements of type B: new titles take the place of the originals (S3-11, S3-12, S5-02, S5-04; CC BR 360, CC PT 857).

At acceptance the originals' charges are posted and what is forgiven waived, as in every agreement; then what is left of
them leaves circulation without cash (NOVATED) and one new title an instalment takes its place:

    sum of what left the originals = sum of the new titles' principals        (over all components, minor units)

The new titles are bound to the agreement with no charges of their own, so instalment k is paid on title k. When the
agreement ends, either the originals come back less what was paid, oldest first and in the legal order inside a title,
or the new titles stay as ordinary ones: `end` decides by how it ended and by the creditor's setting. With an acquirer
(card, financing; S5-15) the new titles are owed by him: the debtor owes nothing more, nothing accrues on them, and only
a payment that names one of them pays it.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agreement_service.domain import accounts, creditors, plans
from servicekit import errors

MAX_ACQUIRER = 60
MOVING = tuple(
    field.name
    for field in dataclasses.fields(accounts.Title)
    if field.name.startswith(("open_", "charged_"))
    or field.name
    in ("received_minor", "waived_minor", "withdrawn_minor", "written_off_minor", "novated_minor")
)
"""What moves on a title: nothing of it on a new one but its open principal."""


class TitlesChangedSinceTheEnd(errors.ServiceError):
    """Titles of a broken agreement were settled otherwise since: it cannot be brought back, propose again."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """Kind of a proposal and what goes with it."""

    kind: accounts.AgreementKind = accounts.AgreementKind.PLAN
    tolerance_date: datetime.date | None = None
    acquirer: str = ""
    contact_person_id: uuid.UUID | None = None
    responsible: str = ""

    def check(self, *, today: datetime.date) -> list[errors.FieldViolation]:
        """What is wrong with it; a tolerance date of today or before is refused (W-07)."""
        wrong = []
        if self.kind is accounts.AgreementKind.UNCHANGED:
            if self.tolerance_date is None or self.tolerance_date <= today:
                first = today + datetime.timedelta(days=1)
                wrong.append(errors.FieldViolation("nature.tolerance_date", f"expected {first} or later"))
        elif self.tolerance_date is not None:
            wrong.append(errors.FieldViolation("nature.tolerance_date", "expected with KIND_UNCHANGED only"))
        if self.acquirer:
            if self.kind is not accounts.AgreementKind.NOVATION:
                wrong.append(errors.FieldViolation("nature.acquirer", "expected with KIND_NOVATION only"))
            if len(self.acquirer) > MAX_ACQUIRER or not self.acquirer.isprintable():
                wrong.append(
                    errors.FieldViolation(
                        "nature.acquirer", f"expected at most {MAX_ACQUIRER} printable characters"
                    )
                )
        return wrong

    def check_terms(self, terms: plans.Terms) -> list[errors.FieldViolation]:
        """What is wrong with terms that go with it."""
        wrong = []
        if self.kind is accounts.AgreementKind.UNCHANGED and self.tolerance_date is not None:
            if terms != unchanged(self.tolerance_date):
                wrong.append(errors.FieldViolation("terms", "expected none with KIND_UNCHANGED"))
        elif self.acquirer:
            for field in ("annual_rate_e4", "down_payment_minor"):
                if getattr(terms, field):
                    name = field.removesuffix("_minor")
                    wrong.append(errors.FieldViolation(f"terms.{name}", "expected none with an acquirer"))
        return wrong


def unchanged(tolerance_date: datetime.date) -> plans.Terms:
    """Terms of an agreement of type A: everything on the tolerance date."""
    return plans.Terms(instalments=1, first_due_date=tolerance_date)


PLAN = Nature()


def references(*, prefix: str, contract: str, number: int, instalments: Sequence[int]) -> dict[int, str]:
    """References of a novation's titles by instalment: prefix, contract, the agreement's number in its case, number.

    REN-CT/77-1/03: they sort as the instalments do, and no other title of the creditor is called so.
    """
    width = len(str(max(instalments)))
    return {k: f"{prefix}-{contract}-{number}/{k:0{width}d}" for k in instalments}


def oldest(account: accounts.Account) -> accounts.Title:
    """The oldest of the agreed titles: the new ones have its terms of late charges."""
    agreed = {item.title_id for item in account.agreed}
    return next(one for one in account.titles if one.title_id in agreed)


def new_titles(
    *,
    account: accounts.Account,
    agreement: accounts.Agreement,
    named: Mapping[int, str],
    title_ids: Mapping[int, uuid.UUID],
) -> list[accounts.Title]:
    """One title an instalment in the agreement's lead case; terms of late charges as those of the oldest original."""
    parent = oldest(account)
    zero: dict[str, Any] = {name: 0 for name in MOVING if name != "open_principal_minor"}
    return [
        dataclasses.replace(
            parent,
            **zero,
            open_principal_minor=instalment.capital_minor,
            principal_minor=instalment.capital_minor,
            title_id=title_ids[instalment.number],
            case_id=agreement.case_id,
            reference=named[instalment.number],
            due_date=instalment.due_date,
            payable_until=instalment.payable_until,
            accrued_through=instalment.due_date,
            corrected_through=None,
            once_charged=False,
            agreement_id=None,
            origin_agreement_id=agreement.agreement_id,
            acquirer=agreement.acquirer,
            state=accounts.TitleState.OPEN,
            version=1,
        )
        for instalment in account.instalments
    ]


def novate(account: accounts.Account, *, new: Sequence[accounts.Title], date: datetime.date) -> None:
    """After the account accepted a novation and took the `new` titles up: the originals leave circulation, `new` take
    their place.

    With an acquirer nothing is bound and the agreement is fulfilled: its instalments are his titles now.
    """
    agreement = account.agreement
    assert agreement is not None
    gone = 0
    for item in account.agreed:
        title = account.title(item.title_id)
        entries = title.close(accounts.Kind.NOVATED)
        gone += sum(entry.amount_minor for entry in entries)
        title.agreement_id = None
        title.settle_state()
        _record(account, entries, date)
    assert gone == sum(one.principal_minor for one in new), "the plan's capital is what is agreed"
    account.originals = account.agreed
    if agreement.acquirer:
        account.agreed = []
        agreement.state = accounts.AgreementState.FULFILLED
        for instalment in account.instalments:
            instalment.state = accounts.InstalmentState.RENEGOTIATED
        return
    account.agreed = [
        accounts.AgreedTitle(
            title_id=one.title_id,
            case_id=one.case_id,
            title_version=one.version,
            principal_minor=one.principal_minor,
        )
        for one in new
    ]
    for one in new:
        one.agreement_id = agreement.agreement_id
        one.settle_state()


def end(
    account: accounts.Account, *, state: accounts.AgreementState, date: datetime.date
) -> list[accounts.Entry]:
    """End the agreement in force of an account as `state`, by its kind; the entries that did it, for `reinstate`.

    A broken novation stays where the creditor wants it to (S5-04); expired or cancelled it never does.
    """
    agreement = account.agreement
    assert agreement is not None
    before = len(account.postings)
    keeps = (
        state is accounts.AgreementState.BROKEN
        and agreement.breach_policy is creditors.BreachPolicy.KEEP_NOVATION
    )
    if account.originals and not keeps:
        give_back(account, account.originals, agreement_id=agreement.agreement_id, date=date)
        account.agreed = account.originals
        for item in account.originals:
            account.title(item.title_id).agreement_id = agreement.agreement_id
    account.end(state=state, date=date)
    return [posting.entry for posting in account.postings[before:]]


def restored(agreement: accounts.Agreement) -> bool:
    """Whether an agreement was a novation whose originals came back when it ended."""
    if agreement.kind is not accounts.AgreementKind.NOVATION or agreement.acquirer:
        return False
    if agreement.state is accounts.AgreementState.BROKEN:
        return agreement.breach_policy is creditors.BreachPolicy.RESTORE_ORIGINALS
    return agreement.state in (accounts.AgreementState.CANCELLED, accounts.AgreementState.EXPIRED)


def give_back(
    account: accounts.Account,
    originals: Sequence[accounts.AgreedTitle],
    *,
    agreement_id: uuid.UUID,
    date: datetime.date,
) -> None:
    """Move what is open of a novation's titles back to the originals: what was paid settles the oldest first, in the
    legal order inside a title (CC BR 354, CC PT 785). Again, when a payment of it is taken back later."""
    new = [one for one in account.titles if one.origin_agreement_id == agreement_id]
    ordered = sorted(
        originals,
        key=lambda item: (account.title(item.title_id).due_date, account.title(item.title_id).reference),
    )
    parts = [(item, component, amount) for item in ordered for component, amount in gone(item).items()]
    total = sum(amount for _, _, amount in parts)
    before = total - sum(one.novated_minor for one in new)
    entries = [
        entry
        for one in new
        for entry in one.close(
            accounts.Kind.NOVATED, {accounts.Component.PRINCIPAL: one.open_principal_minor}
        )
    ]
    after = total - sum(one.novated_minor for one in new)
    place = 0
    for item, component, amount in parts:
        stayed, stays = (min(amount, max(0, mark - place)) for mark in (before, after))
        place += amount
        if stayed > stays:
            title = account.title(item.title_id)
            entries.append(title.entry(component, accounts.Kind.NOVATED, stays - stayed))
            title.post(entries[-1])
    for title in account.titles:
        title.settle_state()
    account.postings += [accounts.Posting(entry, date, None, agreement_id) for entry in entries]


def gone(item: accounts.AgreedTitle) -> dict[accounts.Component, int]:
    """What of an original left circulation, by component in the legal order: as agreed, less what was forgiven."""
    added, waived = item.added(), item.waived()
    amounts = {
        component: getattr(item, f"{component.lower()}_minor")
        + added.get(component, 0)
        - waived.get(component, 0)
        for component in accounts.WATERFALL
    }
    return {component: amount for component, amount in amounts.items() if amount}


def reinstate(
    account: accounts.Account,
    *,
    ended: Sequence[accounts.Entry],
    payments: Sequence[accounts.Payment],
    grace_date: datetime.date,
    business_date: datetime.date,
) -> list[accounts.Payment]:
    """Bring a broken agreement back: undo its end, then apply the payments made since as if it had gone on.

    `account` has the agreement, its instalments and agreed titles, as `end` left them; `ended` is what `end` gave;
    `payments` are all of the epoch that began with the end. Nothing breaks it again through `grace_date`. Returns the
    payments that changed. Raises TitlesChangedSinceTheEnd when a title was written off, withdrawn or otherwise settled.
    """
    agreement = account.agreement
    assert agreement is not None
    assert agreement.state is accounts.AgreementState.BROKEN
    agreement.state, agreement.end_date, agreement.grace_date = (
        accounts.AgreementState.ACTIVE,
        None,
        grace_date,
    )
    undone = [entry.contra() for entry in reversed(ended)]
    account.post(undone)
    _record(account, undone, business_date)
    for item in account.originals:
        account.title(item.title_id).agreement_id = None
    for item in account.agreed:
        account.title(item.title_id).agreement_id = agreement.agreement_id
    for instalment in account.instalments:
        if instalment.open_minor:
            instalment.state = accounts.InstalmentState.SCHEDULED
    changed = account.settle(later=payments, business_date=business_date)
    wrong = [
        one.title_id
        for one in account.titles
        if min(one.open_of(component) for component in accounts.WATERFALL) < 0
    ]
    if wrong:
        raise TitlesChangedSinceTheEnd(
            "titles of the agreement were settled otherwise since it ended", titles=len(wrong), title=wrong[0]
        )
    return changed


def _record(account: accounts.Account, entries: Sequence[accounts.Entry], date: datetime.date) -> None:
    assert account.agreement is not None
    account.postings += [
        accounts.Posting(entry, date, None, account.agreement.agreement_id) for entry in entries
    ]
