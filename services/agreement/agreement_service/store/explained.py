"""The lines of many titles in one statement: the same as domain/balances.py gives for one, as columns."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import balances
from agreement_service.domain import charges as domain
from agreement_service.store import charges, tables
from servicekit import db

_RULES = list(domain.Rule)
_NUMBER = {rule: number for number, rule in enumerate(_RULES)}
OWN = 0
"""In place of the number of terms: the title's own."""
_SPAN = len(_RULES)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Lines of one component; every column is as long as `amounts` or empty. `sources` points into Columns.sources."""

    component: str
    titles: Sequence[int]
    amounts: Sequence[int]
    bases: Sequence[int] = ()
    numerators: Sequence[int] = ()
    denominators: Sequence[int] = ()
    from_days: Sequence[int] = ()
    through_days: Sequence[int] = ()
    sources: Sequence[int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How lines came about."""

    text: str
    rule: str = ""
    series: str = ""
    terms_id: uuid.UUID | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Titles in id order, the currency of each, and their lines."""

    title_ids: Sequence[str]
    currencies: Sequence[str]
    parts: Sequence[Part]
    sources: Sequence[Source]


def _rule(rule: domain.Rule) -> str:
    return str(_NUMBER[rule])


_EPOCH = "date '1970-01-01'"
_TERMS = f"coalesce(numbered.number, 0) * {_SPAN}"
_CHARGES = {
    "CORRECTION": ("correction", "correction_base", "correction_numerator", "correction_denominator"),
    "PENALTY": ("penalty", "penalty_base", "penalty_numerator", "penalty_denominator"),
    "INTEREST": ("interest", "principal", "interest_numerator", "interest_denominator"),
    "COMMISSION": ("commission", "commission_base", "commission_numerator", "commission_denominator"),
    "LATE_PAYMENT": ("late_payment", "late_payment", "one", "one"),
    "EXPENSES": ("expenses", "expenses", "one", "one"),
    "FEES": ("fees", "fees_base", "fees_numerator", "rate_unit"),
}
_COMPONENT = {"COMMISSION": "COSTS", "LATE_PAYMENT": "COSTS", "EXPENSES": "COSTS"}
_DATED = {
    "CORRECTION": ("corrected_through", "correction_through"),
    "INTEREST": ("accrued_through", "interest_through"),
    "COMMISSION": ("due_date", ":date"),
    "LATE_PAYMENT": ("due_date", ":date"),
    "EXPENSES": ("due_date", ":date"),
    "FEES": ("due_date", ":date"),
}


def _columns(name: str) -> str:
    """The columns of one kind of charge as arrays of the titles that bear it."""
    amount, base, numerator, denominator = _CHARGES[name]
    parts = {
        "titles": "place",
        "amounts": amount,
        "bases": base,
        "numerators": numerator,
        "denominators": denominator,
        "sources": f"{name.lower()}_source",
    }
    if name in _DATED:
        since, through = _DATED[name]
        parts |= {"from_days": f"{since} - {_EPOCH}", "through_days": f"{through} - {_EPOCH}"}
    whole = {"amounts", "bases", "numerators", "denominators"}
    return ", ".join(
        f"array_agg({f'CAST({what} AS bigint)' if column in whole else what}) FILTER (WHERE {amount} > 0)"
        f" AS {name.lower()}_{column}"
        for column, what in parts.items()
    )


_GONE = ", ".join(
    f"array_agg(place) FILTER (WHERE {field} > 0) AS {field}_titles,"
    f" array_agg(-{field}) FILTER (WHERE {field} > 0) AS {field}_amounts"
    for field in balances.GONE
)
_CHARGED = (
    "charged_correction_minor + charged_penalty_minor + charged_interest_minor + charged_costs_minor"
    " + charged_fees_minor"
)
_LINES = charges.sql(
    f"""
    WITH {charges.SERIES}, numbered AS MATERIALIZED (
        SELECT charge_terms.id, row_number() OVER (ORDER BY charge_terms.id) AS number FROM charge_terms
        WHERE charge_terms.agency = :agency
    ), counted AS MATERIALIZED (
        SELECT titles.id, case_accounts.currency, CAST(row_number() OVER (ORDER BY titles.id) - 1 AS int) AS place,
            titles.principal_minor, {", ".join(f"titles.{field}" for field in balances.GONE)},
            titles.{_CHARGED.replace(" + ", " + titles.")} AS charged, titles.open_principal_minor AS principal,
            titles.due_date, titles.accrued_through, coalesce(titles.corrected_through, titles.due_date)
                AS corrected_through,
            1 AS one, 1000000 AS rate_unit,
            correction, correction_base, correction_numerator, correction_denominator,
            greatest(index.covered, coalesce(titles.corrected_through, titles.due_date)) AS correction_through,
            {_TERMS} + {_rule(domain.Rule.CORRECTION)} AS correction_source,
            penalty, CASE WHEN penalty_fixed > 0 THEN penalty_fixed ELSE titles.open_principal_minor END
                AS penalty_base,
            CASE WHEN penalty_fixed > 0 THEN 1 ELSE penalty_rate END AS penalty_numerator,
            CASE WHEN penalty_fixed > 0 THEN 1 ELSE 1000000 END AS penalty_denominator,
            CASE WHEN titles.own_penalty THEN 0 ELSE {_TERMS} END + CASE WHEN penalty_fixed > 0
                THEN {_rule(domain.Rule.PENALTY_FIXED)} ELSE {_rule(domain.Rule.PENALTY_RATE)} END AS penalty_source,
            interest, interest_numerator, factors.interest_denominator,
            CASE WHEN rate.code IS NOT NULL THEN greatest(rate.covered, titles.accrued_through) ELSE :date END
                AS interest_through,
            CASE WHEN titles.own_interest THEN {_rule(domain.Rule.INTEREST_30)}
                WHEN rate.code IS NOT NULL THEN {_TERMS} + {_rule(domain.Rule.INTEREST_SERIES)}
                WHEN terms.day_count = 'THIRTY_360' THEN {_TERMS} + {_rule(domain.Rule.INTEREST_30_360)}
                WHEN terms.interest_unit = 'DAY' THEN {_TERMS} + {_rule(domain.Rule.INTEREST_DAILY)}
                WHEN terms.day_count = 'ACTUAL_365' THEN {_TERMS} + {_rule(domain.Rule.INTEREST_ACTUAL_365)}
                ELSE {_TERMS} + {_rule(domain.Rule.INTEREST_30)} END AS interest_source,
            commission, late_payment, expenses,
            {_TERMS} + {_rule(domain.Rule.LATE_PAYMENT)} AS late_payment_source,
            {_TERMS} + {_rule(domain.Rule.EXPENSES)} AS expenses_source,
            commission_rule, CASE WHEN commission_fixed THEN commission ELSE titles.open_principal_minor END
                AS commission_base,
            CASE WHEN commission_fixed THEN 1 WHEN commission_rule = {_rule(domain.Rule.COMMISSION_ABOVE)}
                THEN terms.commission_above_rate_e4 ELSE terms.commission_rate_e4 END AS commission_numerator,
            CASE WHEN commission_fixed THEN 1 ELSE 1000000 END AS commission_denominator,
            {_TERMS} + commission_rule AS commission_source,
            fees, fees_base, coalesce(terms.fees_rate_e4, 0) AS fees_numerator,
            {_TERMS} + {_rule(domain.Rule.FEES)} AS fees_source
        FROM {charges.ACCRUED}
        CROSS JOIN LATERAL (
            SELECT CASE WHEN commission = 0 THEN {_rule(domain.Rule.COMMISSION)}
                WHEN terms.commission_above_minor > 0 AND titles.open_principal_minor > terms.commission_above_minor
                    THEN {_rule(domain.Rule.COMMISSION_ABOVE)}
                WHEN {charges.COMMISSION} < terms.commission_minimum_minor
                    THEN {_rule(domain.Rule.COMMISSION_MINIMUM)}
                WHEN {charges.COMMISSION} > terms.commission_maximum_minor
                    THEN {_rule(domain.Rule.COMMISSION_MAXIMUM)}
                ELSE {_rule(domain.Rule.COMMISSION)} END AS commission_rule
        ) AS ruled
        CROSS JOIN LATERAL (
            SELECT commission_rule IN ({_rule(domain.Rule.COMMISSION_MINIMUM)},
                {_rule(domain.Rule.COMMISSION_MAXIMUM)}) AS commission_fixed
        ) AS kinds
        LEFT JOIN numbered ON numbered.id = titles.terms_id
        JOIN case_accounts ON case_accounts.agency = titles.agency AND case_accounts.case_id = titles.case_id
        WHERE titles.agency = :agency AND titles.id = ANY(CAST(:ids AS uuid[]))
            AND (CAST(:creditor AS uuid) IS NULL OR case_accounts.creditor_id = CAST(:creditor AS uuid))
    )
    SELECT array_agg(CAST(id AS text)) AS ids, array_agg(currency) AS currencies,
        array_agg(principal_minor) AS principals, bool_or(charged > 0) AS any_charged, {_GONE},
        {", ".join(_columns(name) for name in _CHARGES)}
    FROM (SELECT * FROM counted ORDER BY place) AS counted
    """  # noqa: S608 -- text of this module
)
_POSTED = tables.sql(
    f"""
    WITH wanted AS MATERIALIZED (
        SELECT titles.case_id, titles.id, row_number() OVER (ORDER BY titles.id) - 1 AS place, {_CHARGED} AS charged
        FROM titles WHERE titles.agency = :agency AND titles.id = ANY(CAST(:ids AS uuid[]))
    ), posted AS MATERIALIZED (
        SELECT wanted.place, postings.component, postings.rule, postings.base_minor, postings.numerator,
            postings.denominator, postings.from_date, postings.through_date, sum(postings.amount_minor) AS amount,
            max(postings.id) AS last
        FROM wanted JOIN postings ON postings.agency = :agency AND postings.case_id = wanted.case_id
            AND postings.title_id = wanted.id AND postings.kind = 'CHARGED'
        WHERE wanted.charged > 0
        GROUP BY wanted.place, postings.component, postings.rule, postings.base_minor, postings.numerator,
            postings.denominator, postings.from_date, postings.through_date
        HAVING sum(postings.amount_minor) <> 0
    )
    SELECT component, rule, array_agg(CAST(place AS int)) AS titles, array_agg(CAST(amount AS bigint)) AS amounts,
        array_agg(base_minor) AS bases, array_agg(numerator) AS numerators, array_agg(denominator) AS denominators,
        array_agg(from_date - {_EPOCH}) AS from_days, array_agg(through_date - {_EPOCH}) AS through_days,
        from_date IS NOT NULL AS dated
    FROM (SELECT * FROM posted ORDER BY place, last) AS posted
    GROUP BY component, rule, from_date IS NOT NULL ORDER BY component, rule, from_date IS NOT NULL
    """  # noqa: S608 -- text of this module
)
_TERMS_OF = tables.sql(
    """
    SELECT id, source, interest_series, correction_series FROM charge_terms WHERE agency = :agency ORDER BY id
    """
)


def lines(
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Sequence[str],
    *,
    date: datetime.date,
    creditor: uuid.UUID | None,
) -> Columns:
    """The lines of these titles (sorted) that exist, and are the creditor's where one is given."""
    ids = "{" + ",".join(title_ids) + "}"
    found = (
        tx.execute(_LINES, {"agency": agency, "ids": ids, "date": date, "creditor": creditor})
        .mappings()
        .one()
    )
    if found["ids"] is None:
        return Columns(title_ids=(), currencies=(), parts=(), sources=())
    sources = _Sources(tx.execute(_TERMS_OF, {"agency": agency}).all())
    count = len(found["ids"])
    parts = [
        Part(
            component="PRINCIPAL",
            titles=range(count),
            amounts=found["principals"],
            sources=[sources.plain(balances.PLACED)] * count,
        )
    ]
    if found["any_charged"]:
        charged = tx.execute(_POSTED, {"agency": agency, "ids": "{" + ",".join(found["ids"]) + "}"})
        parts += [_posted(row, sources) for row in charged]
    for name in _CHARGES:
        prefix = name.lower()
        if found[f"{prefix}_titles"] is None:
            continue
        parts.append(
            Part(
                component=_COMPONENT.get(name, name),
                **{
                    column: found[f"{prefix}_{column}"]
                    for column in ("titles", "amounts", "bases", "numerators", "denominators")
                },
                from_days=found[f"{prefix}_from_days"] if name in _DATED else (),
                through_days=found[f"{prefix}_through_days"] if name in _DATED else (),
                sources=sources.charged(found[f"{prefix}_sources"]),
            )
        )
    for field, (component, text) in balances.GONE.items():
        if found[f"{field}_titles"] is not None:
            titles = found[f"{field}_titles"]
            parts.append(
                Part(
                    component=component,
                    titles=titles,
                    amounts=found[f"{field}_amounts"],
                    sources=[sources.plain(text)] * len(titles),
                )
            )
    return Columns(title_ids=found["ids"], currencies=found["currencies"], parts=parts, sources=sources.found)


class _Sources:
    """Sources by what tells them apart, in the order in which they were met."""

    def __init__(self, terms: Sequence[sa.Row[Any]]) -> None:
        self.found: list[Source] = []
        self._terms = terms
        self._plain: dict[str, int] = {}
        self._charged: dict[int, int] = {}

    def plain(self, text: str, rule: str = "") -> int:
        """A line that is no charge counted now."""
        if text not in self._plain:
            self._plain[text] = len(self.found)
            self.found.append(Source(text=text, rule=rule))
        return self._plain[text]

    def charged(self, keys: Sequence[int]) -> list[int]:
        """Charges by number of terms and of rule."""
        for key in set(keys) - self._charged.keys():
            self._charged[key] = len(self.found)
            self.found.append(self._source(*divmod(int(key), _SPAN)))
        known = self._charged
        return [known[key] for key in keys]

    def _source(self, number: int, rule_number: int) -> Source:
        rule = _RULES[rule_number]
        if number == OWN:
            return Source(text=balances.source_of(rule, terms=balances.OWN_TERMS), rule=rule.value)
        terms = self._terms[number - 1]
        code = {
            domain.Rule.INTEREST_SERIES: terms.interest_series,
            domain.Rule.CORRECTION: terms.correction_series,
        }.get(rule, "")
        text = balances.source_of(rule, terms=terms.source, code=code)
        return Source(text=text, rule=rule.value, series=code, terms_id=terms.id)


def _posted(row: sa.Row[Any], sources: _Sources) -> Part:
    text = balances.posted_source(row.rule)
    return Part(
        component=row.component,
        titles=row.titles,
        amounts=row.amounts,
        bases=row.bases if row.rule else (),
        numerators=row.numerators if row.rule else (),
        denominators=row.denominators if row.rule else (),
        from_days=row.from_days if row.dated else (),
        through_days=row.through_days if row.dated else (),
        sources=[sources.plain(text, row.rule)] * len(row.titles),
    )
