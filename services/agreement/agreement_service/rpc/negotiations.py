"""Negotiations read from requests, and shown: terms, rows, simulations."""

import datetime
import uuid

from google.protobuf.message import Message

from agreement_service.domain import accounts, plans, proposals
from agreement_service.rpc import common
from agreement_service.usecases import agreements
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, money, names

MAX_TITLES = 2000


def _amount(message: Message, field: str, path: str, currencies: set[str]) -> int | None:
    """Minor units of an amount, its currency noted; None when it is not given."""
    if not message.HasField(field):
        return None
    amount = money.from_proto(getattr(message, field), path)
    currencies.add(amount.currency)
    return amount.minor


def terms(message: agreement_pb2.PlanTerms) -> tuple[plans.Terms, frozenset[str]]:
    currencies: set[str] = set()
    amounts = {
        f"{field}_minor": _amount(message, field, f"terms.{field}", currencies) or 0
        for field in ("down_payment", "discount", "first_amount", "last_amount", "charges", "fees")
    }
    due_dates = tuple(
        dates.from_proto(date, f"terms.due_dates[{place}]") for place, date in enumerate(message.due_dates)
    )
    rows = tuple(
        plans.EditedRow(
            due_date=dates.from_proto(row.due_date, f"terms.rows[{place}].due_date"),
            amount_minor=_amount(row, "amount", f"terms.rows[{place}].amount", currencies) or 0,
        )
        for place, row in enumerate(message.rows)
    )
    given = [row.due_date for row in rows] or list(due_dates)
    if message.HasField("first_due_date"):
        first_due_date = dates.from_proto(message.first_due_date, "terms.first_due_date")
    elif given:
        first_due_date = given[0]
    else:
        raise errors.invalid("terms.first_due_date", "expected a date")
    terms = plans.Terms(
        instalments=message.instalments,
        first_due_date=first_due_date,
        annual_rate_e4=message.annual_rate_e4,
        down_payment_date=common.date_of(message, "down_payment_date", "terms.down_payment_date"),
        method=_method(message.method),
        period_months=message.period_months,
        period_days=message.period_days,
        business_days=message.business_days,
        due_dates=due_dates,
        rows=rows,
        accretion_rate_e4=message.accretion_rate_e4,
        penalty_rate_e4=message.penalty_rate_e4,
        discount_rate_e4=message.discount_rate_e4,
        first_cheque_number=message.first_cheque_number,
        means=message.means,
        **amounts,
    )
    return terms, frozenset(currencies)


def _method(number: int) -> plans.Method:
    if number == agreement_pb2.PlanTerms.METHOD_UNSPECIFIED:
        return plans.Method.PRICE
    for name, value in agreement_pb2.PlanTerms.Method.items():
        if value == number:
            return plans.Method(name.removeprefix("METHOD_"))
    raise errors.invalid("terms.method", "expected a known method")


Asked = agreement_service_pb2.SimulateAgreementRequest | agreement_service_pb2.ProposeAgreementRequest


def negotiation(request: Asked) -> agreements.Negotiation:
    agreed, of_terms = terms(request.terms)
    currencies = set(of_terms)
    charges: dict[uuid.UUID, proposals.Charges] = {}
    for place, one in enumerate(request.title_charges):
        path = f"title_charges[{place}]"
        title_id = ids.parse(one.title_id, f"{path}.title_id")
        if title_id in charges:
            raise errors.invalid(f"{path}.title_id", "expected each title once")
        charges[title_id] = proposals.Charges(
            penalty_minor=_amount(one, "penalty", f"{path}.penalty", currencies),
            interest_minor=_amount(one, "interest", f"{path}.interest", currencies),
        )
        for field in ("penalty", "interest"):
            if (getattr(charges[title_id], f"{field}_minor") or 0) < 0:
                raise errors.invalid(f"{path}.{field}", "expected zero or more")
    if len(request.title_ids) > MAX_TITLES:
        raise errors.invalid("title_ids", f"expected at most {MAX_TITLES} titles")
    return agreements.Negotiation(
        case_ids=common.case_ids(request.case_ids),
        terms=agreed,
        currencies=frozenset(currencies),
        title_ids=[ids.parse(value, f"title_ids[{place}]") for place, value in enumerate(request.title_ids)],
        other_parties=request.other_parties,
        include_not_due=request.include_not_due,
        use_credits=request.use_credits,
        charges=charges,
    )


def simulate(
    tx: db.Transaction,
    agency: uuid.UUID,
    request: agreement_service_pb2.SimulateAgreementRequest,
    *,
    date: datetime.date,
    today: datetime.date,
) -> agreements.Simulation:
    return agreements.simulate(
        tx=tx,
        agency=agency,
        negotiation=negotiation(request),
        authority=common.authority(),
        date=date,
        today=today,
    )


def simulation(
    agency: uuid.UUID, found: agreements.Simulation
) -> agreement_service_pb2.SimulateAgreementResponse:
    priced, currency = found.priced, found.currency
    added = priced.added
    return agreement_service_pb2.SimulateAgreementResponse(
        debt=common.money_of(priced.debt_minor, currency),
        total=common.money_of(priced.total_minor, currency),
        plan_interest=common.money_of(priced.plan_interest_minor, currency),
        rows=rows(found),
        balances=[common.explained(agency, subject, currency) for subject in found.subjects],
        added=agreement_pb2.AddedCharges(
            accretion=common.money_of(added.accretion_minor, currency),
            penalty=common.money_of(added.penalty_minor, currency),
            charges=common.money_of(added.charges_minor, currency),
            fees=common.money_of(added.fees_minor, currency),
            edited=common.money_of(priced.edited_minor, currency),
        ),
        discount=common.money_of(priced.discount_minor, currency),
        discount_of_principal=common.money_of(priced.forgiven_principal_minor, currency),
        forgiven_e4=priced.forgiven_e4,
        titles=[shown_title(agency, item, currency) for item in priced.agreed],
        needed_approvals=[
            agreement_service_pb2.NeededApproval(rule=one.rule, limit=one.limit, asked=one.asked)
            for one in found.needed
        ],
        date=dates.to_proto(priced.date),
        minimum_down_payment=common.money_of(found.minimum_down_payment_minor, currency),
        available_credit=common.money_of(found.available_credit_minor, currency),
        used_credit=common.money_of(found.used_credit_minor, currency),
    )


def rows(found: agreements.Simulation) -> list[agreement_pb2.PlanRow]:
    return [_row(row, found.currency, found.terms) for row in found.priced.rows]


def shown_title(agency: uuid.UUID, item: accounts.AgreedTitle, currency: str) -> agreement_pb2.AgreedTitle:
    charges = (
        item.correction_minor + item.penalty_minor + item.interest_minor + item.costs_minor + item.fees_minor
    )
    return agreement_pb2.AgreedTitle(
        title=names.format(common.TITLE, agency=agency, title=item.title_id),
        principal=common.money_of(item.principal_minor, currency),
        charges=common.money_of(charges, currency),
        added=common.money_of(sum(item.added().values()), currency),
        forgiven=common.money_of(sum(item.waived().values()), currency),
    )


def _row(row: plans.Row, currency: str, terms: plans.Terms) -> agreement_pb2.PlanRow:
    return agreement_pb2.PlanRow(
        number=row.number,
        due_date=dates.to_proto(row.due_date),
        amount=common.money_of(row.amount_minor, currency),
        capital=common.money_of(row.capital_minor, currency),
        interest=common.money_of(row.interest_minor, currency),
        opening_balance=common.money_of(row.opening_minor, currency),
        closing_balance=common.money_of(row.closing_minor, currency),
        once=common.money_of(row.once_minor, currency),
        cheque_number=cheque_number(row.number, terms),
    )


def cheque_number(number: int, terms: plans.Terms) -> int:
    """S5-12: the first instalment's number is given, the next ones follow; a down payment has none."""
    return terms.first_cheque_number + number - 1 if terms.first_cheque_number and number else 0


def shown_terms(terms: plans.Terms, currency: str) -> agreement_pb2.PlanTerms:
    shown = agreement_pb2.PlanTerms(
        down_payment=common.money_of(terms.down_payment_minor, currency),
        instalments=terms.instalments,
        first_due_date=dates.to_proto(terms.first_due_date),
        annual_rate_e4=terms.annual_rate_e4,
        discount=common.money_of(terms.discount_minor, currency),
        method=agreement_pb2.PlanTerms.Method.Value(f"METHOD_{terms.method.value}"),
        period_months=terms.period_months,
        period_days=terms.period_days,
        business_days=terms.business_days,
        due_dates=[dates.to_proto(date) for date in terms.due_dates],
        rows=[
            agreement_pb2.PlanTerms.EditedRow(
                due_date=dates.to_proto(row.due_date), amount=common.money_of(row.amount_minor, currency)
            )
            for row in terms.rows
        ],
        accretion_rate_e4=terms.accretion_rate_e4,
        penalty_rate_e4=terms.penalty_rate_e4,
        discount_rate_e4=terms.discount_rate_e4,
        first_cheque_number=terms.first_cheque_number,
        means=terms.means,
    )
    if terms.down_payment_date is not None:
        shown.down_payment_date.CopyFrom(dates.to_proto(terms.down_payment_date))
    for field in ("first_amount", "last_amount", "charges", "fees"):
        if minor := getattr(terms, f"{field}_minor"):
            getattr(shown, field).CopyFrom(common.money_of(minor, currency))
    return shown
