"""The lines of many titles in one statement: the same as domain/balances.py gives for one, as columns."""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from agreement_service.domain import balances
from agreement_service.domain import charges as domain
from agreement_service.store import charges, tables
from servicekit import db, money

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
    """How lines came about, and what they have in common: the denominator of those that have none of their own, and the
    day to which those count that have no other (or their first, if that is later)."""

    text: str
    rule: str = ""
    series: str = ""
    terms_id: uuid.UUID | None = None
    denominator: int = 0
    through_day: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Titles, the currency of each, and their lines."""

    title_ids: Sequence[str]
    currencies: Sequence[str]
    parts: Sequence[Part]
    sources: Sequence[Source]


def _rule(rule: domain.Rule) -> str:
    return str(_NUMBER[rule])


_EPOCH = "date '1970-01-01'"
_EPOCH_DAY = datetime.date(1970, 1, 1)
_CHARGES: Mapping[str, Mapping[str, str]] = {
    "CORRECTION": {
        "amounts": "correction",
        "bases": "correction_base",
        "numerators": "correction_numerator",
        "denominators": "correction_denominator",
        "from_days": f"corrected_through - {_EPOCH}",
    },
    "PENALTY": {"amounts": "penalty", "numerators": "penalty_rate", "keys": "penalty_key"},
    "INTEREST": {
        "amounts": "interest",
        "numerators": "interest_numerator",
        "from_days": f"accrued_through - {_EPOCH}",
        "keys": "interest_key",
    },
    "COMMISSION": {"amounts": "commission", "keys": "commission_key"},
    "LATE_PAYMENT": {"amounts": "late_payment"},
    "EXPENSES": {"amounts": "expenses"},
    "FEES": {"amounts": "fees", "bases": "fees_base"},
}
"""Columns of each kind of charge. What follows from a title, or from its terms and the rule (`keys`: number of terms
and of rule), is not asked again for each line."""
_COMPONENT = {"COMMISSION": "COSTS", "LATE_PAYMENT": "COSTS", "EXPENSES": "COSTS"}


def _columns(name: str) -> str:
    """One kind of charge as arrays over the titles that bear it."""
    return ", ".join(
        f"array_agg({what}) FILTER (WHERE {_CHARGES[name]['amounts']} > 0) AS {name.lower()}_{column}"
        for column, what in {"titles": "place", **_CHARGES[name]}.items()
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
_COMMISSION = "2 * titles.open_principal_minor * terms.commission_rate_e4 + 1000000"
_LINES = charges.sql(
    f"""
    WITH {charges.SERIES}, numbered AS MATERIALIZED (
        SELECT charge_terms.id, CAST(row_number() OVER (ORDER BY charge_terms.id) * {_SPAN} AS int) AS number
        FROM charge_terms WHERE charge_terms.agency = :agency
    )
    SELECT array_agg(CAST(id AS text)) AS ids, array_agg(currency) AS currencies,
        array_agg(principal_minor) AS placed, array_agg(open_principal_minor) AS principals,
        array_agg(due_date - {_EPOCH}) AS due_days, array_agg(number) AS numbers,
        bool_or(charged > 0) AS any_charged, {_GONE}, {", ".join(_columns(name) for name in _CHARGES)}
    FROM (
        SELECT titles.id, CAST(row_number() OVER () - 1 AS int) AS place, case_accounts.currency,
            titles.principal_minor, {", ".join(f"titles.{field}" for field in balances.GONE)},
            titles.{_CHARGED.replace(" + ", " + titles.")} AS charged,
            titles.open_principal_minor, titles.due_date, titles.accrued_through,
            coalesce(titles.corrected_through, titles.due_date) AS corrected_through, number,
            correction, correction_base, correction_numerator, correction_denominator,
            penalty, penalty_rate, interest, interest_numerator, commission, late_payment, expenses, fees, fees_base,
            CASE WHEN titles.own_penalty THEN {_rule(domain.Rule.PENALTY_RATE)}
                WHEN penalty_fixed > 0 THEN number + {_rule(domain.Rule.PENALTY_FIXED)}
                ELSE number + {_rule(domain.Rule.PENALTY_RATE)} END AS penalty_key,
            CASE WHEN titles.own_interest THEN {_rule(domain.Rule.INTEREST_30)}
                WHEN rate.code IS NOT NULL THEN number + {_rule(domain.Rule.INTEREST_SERIES)}
                WHEN terms.day_count = 'THIRTY_360' THEN number + {_rule(domain.Rule.INTEREST_30_360)}
                WHEN terms.interest_unit = 'DAY' THEN number + {_rule(domain.Rule.INTEREST_DAILY)}
                WHEN terms.day_count = 'ACTUAL_365' THEN number + {_rule(domain.Rule.INTEREST_ACTUAL_365)}
                ELSE number + {_rule(domain.Rule.INTEREST_30)} END AS interest_key,
            CASE WHEN commission = 0 THEN 0
                WHEN terms.commission_above_minor > 0 AND titles.open_principal_minor > terms.commission_above_minor
                    THEN number + {_rule(domain.Rule.COMMISSION_ABOVE)}
                WHEN {_COMMISSION} < 2000000 * terms.commission_minimum_minor
                    THEN number + {_rule(domain.Rule.COMMISSION_MINIMUM)}
                WHEN {_COMMISSION} >= 2000000 * (terms.commission_maximum_minor + 1)
                    THEN number + {_rule(domain.Rule.COMMISSION_MAXIMUM)}
                ELSE number + {_rule(domain.Rule.COMMISSION)} END AS commission_key
        FROM {charges.ACCRUED}
        LEFT JOIN numbered ON numbered.id = titles.terms_id
        JOIN case_accounts ON case_accounts.agency = titles.agency AND case_accounts.case_id = titles.case_id
        WHERE titles.agency = :agency AND titles.id = ANY(CAST(:ids AS uuid[]))
            AND (CAST(:creditor AS uuid) IS NULL OR case_accounts.creditor_id = CAST(:creditor AS uuid))
        OFFSET 0
    ) AS counted
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
    SELECT terms.id, terms.source, terms.interest_series, terms.correction_series, terms.interest_denominator,
        terms.commission_rate_e4, terms.commission_above_rate_e4, terms.fees_rate_e4,
        rate.denominator AS rate_denominator, rate.last_day AS rate_last_day, index.last_day AS index_last_day
    FROM charge_terms AS terms
    LEFT JOIN series AS rate ON rate.agency = terms.agency AND rate.code = terms.interest_series
    LEFT JOIN series AS index ON index.agency = terms.agency AND index.code = terms.correction_series
    WHERE terms.agency = :agency ORDER BY terms.id
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
    """The lines of these titles (sorted). Where some do not exist, or are not the creditor's, only the others' ids."""
    ids = "{" + ",".join(title_ids) + "}"
    asked = {"agency": agency, "ids": ids, "date": date, "creditor": creditor}
    found = tx.execute(_LINES, asked).mappings().one()
    there = found["ids"] or []
    if len(there) < len(title_ids):
        return Columns(title_ids=there, currencies=(), parts=(), sources=())
    sources = _Sources(tx.execute(_TERMS_OF, {"agency": agency}).all(), date)
    parts = [_plain(range(len(there)), found["placed"], "PRINCIPAL", sources.plain(balances.PLACED))]
    if found["any_charged"]:
        order = sorted(range(len(there)), key=there.__getitem__)
        charged = tx.execute(_POSTED, {"agency": agency, "ids": ids})
        parts += [_posted(row, sources, order) for row in charged]
    parts += [
        _charged(name, found, sources) for name in _CHARGES if found[f"{name.lower()}_titles"] is not None
    ]
    parts += [
        _plain(found[f"{field}_titles"], found[f"{field}_amounts"], component, sources.plain(text))
        for field, (component, text) in balances.GONE.items()
        if found[f"{field}_titles"] is not None
    ]
    return Columns(title_ids=there, currencies=found["currencies"], parts=parts, sources=sources.found)


def _plain(titles: Sequence[int], amounts: Sequence[int], component: str, source: int) -> Part:
    return Part(component=component, titles=titles, amounts=amounts, sources=[source] * len(titles))


def _charged(name: str, found: sa.RowMapping, sources: "_Sources") -> Part:
    prefix = name.lower()
    columns = {column: found[f"{prefix}_{column}"] for column in _CHARGES[name]}
    titles, amounts = found[f"{prefix}_titles"], columns["amounts"]
    keys = columns.get("keys")
    if keys is None:
        rule, numbers = _NUMBER[domain.Rule(name)], found["numbers"]
        keys = [numbers[title] + rule for title in titles]
    known = {key: sources.key(key) for key in set(keys)}
    told = [known[key] for key in keys]
    bases = columns.get("bases")
    if bases is None:
        principals = found["principals"]
        bases = [
            amount if one.fixed else principals[title]
            for one, title, amount in zip(told, titles, amounts, strict=True)
        ]
    numerators = columns.get("numerators")
    if numerators is None or name == "PENALTY":
        numerators = [one.numerator or rate for one, rate in zip(told, numerators or amounts, strict=True)]
    since: Sequence[int] = ()
    if name != "PENALTY":
        due_days = found["due_days"]
        since = columns.get("from_days") or [due_days[title] for title in titles]
    return Part(
        component=_COMPONENT.get(name, name),
        titles=titles,
        amounts=amounts,
        bases=bases,
        numerators=numerators,
        denominators=columns.get("denominators", ()),
        from_days=since,
        sources=[one.source for one in told],
    )


class _Told(NamedTuple):
    """What a number of terms and of rule says of its lines. `numerator` 0: each line has its own."""

    source: int
    fixed: bool
    numerator: int


_FIXED = frozenset(
    {
        domain.Rule.PENALTY_FIXED,
        domain.Rule.COMMISSION_MINIMUM,
        domain.Rule.COMMISSION_MAXIMUM,
        domain.Rule.LATE_PAYMENT,
        domain.Rule.EXPENSES,
    }
)


_INTEREST = frozenset(rule for rule in domain.Rule if rule.startswith("INTEREST_"))
_RATES = {
    domain.Rule.COMMISSION: "commission_rate_e4",
    domain.Rule.COMMISSION_ABOVE: "commission_above_rate_e4",
    domain.Rule.FEES: "fees_rate_e4",
}


class _Sources:
    """Sources by what tells them apart, in the order in which they were met."""

    def __init__(self, terms: Sequence[sa.Row[Any]], date: datetime.date) -> None:
        self.found: list[Source] = []
        self._terms = terms
        self._date = date
        self._plain: dict[str, int] = {}
        self._keys: dict[int, _Told] = {}

    def plain(self, text: str, rule: str = "") -> int:
        """A line that is no charge counted now."""
        if text not in self._plain:
            self._plain[text] = len(self.found)
            self.found.append(Source(text=text, rule=rule))
        return self._plain[text]

    def key(self, key: int) -> _Told:
        """A charge by number of terms and of rule."""
        if key not in self._keys:
            self._keys[key] = self._tell(*divmod(key, _SPAN))
        return self._keys[key]

    def _tell(self, number: int, rule_number: int) -> _Told:
        rule = _RULES[rule_number]
        terms = self._terms[number - 1] if number != OWN else None
        through, numerator, denominator, code = self._date, 0, money.RATE_UNIT, ""
        if rule in _FIXED:
            numerator = denominator = 1
        elif terms is None:
            if rule is domain.Rule.INTEREST_30:
                denominator = money.RATE_UNIT * domain.MONTH_DAYS
        elif rule is domain.Rule.INTEREST_SERIES:
            code, denominator, through = (
                terms.interest_series,
                terms.rate_denominator,
                min(through, terms.rate_last_day),
            )
        elif rule is domain.Rule.CORRECTION:
            code, through = terms.correction_series, min(through, terms.index_last_day)
        elif rule in _INTEREST:
            denominator = terms.interest_denominator
        elif rule in _RATES:
            numerator = getattr(terms, _RATES[rule])
        self.found.append(
            Source(
                text=balances.source_of(
                    rule, terms=balances.OWN_TERMS if terms is None else terms.source, code=code
                ),
                rule=rule.value,
                series=code,
                terms_id=None if terms is None else terms.id,
                denominator=denominator,
                through_day=(through - _EPOCH_DAY).days,
            )
        )
        return _Told(len(self.found) - 1, rule in _FIXED, numerator)


def _posted(row: sa.Row[Any], sources: _Sources, order: Sequence[int]) -> Part:
    text = balances.posted_source(row.rule)
    return Part(
        component=row.component,
        titles=[order[place] for place in row.titles],
        amounts=row.amounts,
        bases=row.bases if row.rule else (),
        numerators=row.numerators if row.rule else (),
        denominators=row.denominators if row.rule else (),
        from_days=row.from_days if row.dated else (),
        through_days=row.through_days if row.dated else (),
        sources=[sources.plain(text, row.rule)] * len(row.titles),
    )
