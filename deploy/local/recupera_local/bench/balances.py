"""Section `balances`: every line of 100,000 titles of mixed terms, beside the same sum as one hand-written statement.

Ours is what ExplainTitles does in calls of 10,000: ids checked, lines counted and explained, the answer made,
serialised and read again by who asked, who adds up the lines. The baseline is one statement over the same titles that
gives only the sum. Both sums must be equal.
"""

import datetime
import random
import time
from collections.abc import Sequence

import psycopg

from agreement_service import providers
from agreement_service.domain import terms
from agreement_service.rpc import terms as rpc
from agreement_service.usecases import charges, moments, titles
from agreement_service.usecases import terms as term_cases
from recupera.agreement.v1 import terms_service_pb2
from recupera.case.v1 import case_facts_pb2
from recupera_local.bench import figures, money, scenes
from servicekit import dates, db, ids

TITLES = 100_000
CALL = 10_000
ROUNDS = 5
GOAL = 3.0
FIRST_DUE = datetime.date(2025, 1, 2)
DUE_DAYS = 600
DATE = money.TODAY
SERIES = {
    "IPCA": "\n".join(f"{2025 + month // 12}-{month % 12 + 1:02};0.{40 + month}" for month in range(22)),
    "LEGAL_BR": "\n".join(
        f"{2024 + (7 + month) // 12}-{(7 + month) % 12 + 1:02};0.{50 + month}" for month in range(28)
    ),
}
"""Made up: only their number matters."""


class Differs(RuntimeError):
    """Ours and the baseline do not give the same sum."""


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """In turn, five rounds each; the best of each counts: what else the machine does is no part of it."""
    count = TITLES // 10 if scene.quick else TITLES
    with money.database(scene, "balances") as engine:
        # Terms are for a creditor that is known; a title that is not late is no part of either sum.
        money.place(engine, ["K"], titles_of_a_case=1, minor=1, first_due=DATE + datetime.timedelta(days=1))
        _set_terms(engine)
        title_ids = _place(engine, count)
        _analyze(engine)
        scene.say(f"{count:,} titles stand")
        by_hand, ours = [], []
        for _ in range(ROUNDS):
            expected, seconds = _by_hand(engine)
            by_hand.append(seconds)
            found, lines, seconds = _ours(engine, title_ids)
            ours.append(seconds)
            if found != expected:
                raise Differs(f"ours {found}, by hand {expected}")
        scene.say(f"{lines:,} lines: {min(ours):.2f} s; the sum by hand: {min(by_hand):.2f} s")
    return [
        figures.Figure(
            name=f"explained: {count:,} titles, every line",
            unit="s",
            ours=min(ours),
            baseline=min(by_hand),
            goal=GOAL,
        )
    ]


def _set_terms(engine: db.Engine) -> None:
    contents = [
        (
            "BRL",
            True,
            "",
            {"penalty_rate_e4": 20_000, "interest_series": "LEGAL_BR", "correction_series": "IPCA"},
        ),
        (
            "BRL",
            False,
            "",
            {"penalty_rate_e4": 100_000, "interest_rate_e4": 330, "interest_unit": terms.Unit.DAY},
        ),
        (
            "BRL",
            True,
            "CARD",
            {
                "penalty_rate_e4": 20_000,
                "interest_rate_e4": 120_000,
                "interest_unit": terms.Unit.YEAR,
                "day_count": terms.DayCount.ACTUAL_365,
                "expenses_minor": 990,
                "fees_rate_e4": 100_000,
            },
        ),
        (
            "EUR",
            True,
            "",
            {
                "interest_rate_e4": 80_000,
                "surcharge_e4": 30_000,
                "interest_unit": terms.Unit.YEAR,
                "day_count": terms.DayCount.THIRTY_360,
                "recovery_commission": True,
            },
        ),
    ]
    with db.begin(engine, agency=money.AGENCY) as tx:
        moment = moments.read(tx, money.AGENCY)
        for code, text in SERIES.items():
            term_cases.import_series(
                tx=tx,
                agency=money.AGENCY,
                code=code,
                content=text.encode(),
                source="made up",
                replace=False,
                moment=moment,
            )
        for currency, consumer, product, content in contents:
            term_cases.put(
                tx=tx,
                agency=money.AGENCY,
                scope=terms.Scope(
                    creditor_id=money.CREDITOR_ID,
                    product=product,
                    currency=currency,
                    consumer=consumer,
                    valid_from=datetime.date(2020, 1, 1),
                ),
                content=terms.Terms(source="bench", **content),  # type: ignore[arg-type] # of many types
                set_by="bench",
                moment=moment,
            )


def _place(engine: db.Engine, count: int) -> list[str]:
    """A third of the titles with rates of their own, the others under terms; a title a case. Their ids in order."""
    draw = random.Random(4)
    found = []
    for start in range(0, count, CALL):
        fact = case_facts_pb2.TitlesPlaced()
        fact.table_terms.add(penalty_rate_e4=20_000, monthly_interest_rate_e4=10_000)
        fact.table_terms.add(no_penalty=True, no_monthly_interest=True)
        for number in range(start, start + CALL):
            title_id = ids.new()
            currency = "EUR" if number % 5 == 4 else "BRL"
            fact.table_contracts.add(
                creditor_id=money.CREDITOR_ID.bytes,
                creditor_reference=money.CREDITOR,
                contract_reference=f"K-{number}",
                currency=currency,
                product=draw.choice(("", "CARD")),
                natural_person=currency == "EUR" or draw.random() < 0.8,
            )
            fact.case_ids.append(ids.new().bytes)
            fact.title_ids.append(title_id.bytes)
            fact.debtor_ids.append(ids.new().bytes)
            fact.title_references.append(f"T-{number}")
            fact.principal_minor.append(draw.randrange(100, 10_000_000))
            fact.due_days.append(dates.epoch_days(FIRST_DUE) + draw.randrange(DUE_DAYS))
            fact.contract_index.append(number - start)
            fact.terms_index.append(0 if number % 3 == 0 else 1)
            found.append(str(title_id))
        with db.begin(engine, agency=money.AGENCY) as tx:
            titles.expect(tx=tx, agency=money.AGENCY)
            titles.place(
                tx=tx,
                agency=money.AGENCY,
                placed=[fact],
                moment=moments.read(tx, money.AGENCY),
                bank=providers.OfflineBank(),
            )
    return found


def _ours(engine: db.Engine, title_ids: Sequence[str]) -> tuple[int, int, float]:
    """Sum of the lines, their number, seconds."""
    total = lines = 0
    started = time.perf_counter()
    for start in range(0, len(title_ids), CALL):
        chosen = title_ids[start : start + CALL]
        request = terms_service_pb2.ExplainTitlesRequest(title_ids=chosen).SerializeToString()
        asked = rpc.title_ids(terms_service_pb2.ExplainTitlesRequest.FromString(request))
        with db.begin(engine, agency=money.AGENCY) as tx:
            found = charges.explain_many(tx=tx, agency=money.AGENCY, title_ids=asked, date=DATE)
        answer = rpc.explained_titles(money.AGENCY, found, DATE).SerializeToString()
        for part in terms_service_pb2.ExplainTitlesResponse.FromString(answer).lines:
            total += sum(part.amount_minor)
            lines += len(part.amount_minor)
    return total, lines, time.perf_counter() - started


_SUM = """
SELECT sum(principal + correction + penalty + interest + commission + expenses
    + CASE WHEN fees_rate > 0 THEN floor((principal + correction + penalty + interest) * fees_rate / 1000000 + 0.5)
        ELSE 0 END)
FROM (
    SELECT title.open_principal_minor::numeric AS principal, coalesce(terms.fees_rate_e4, 0) AS fees_rate,
        coalesce(terms.expenses_minor, 0) AS expenses,
        CASE WHEN terms.correction_series = 'IPCA' THEN greatest(0, floor(title.open_principal_minor
            * (SELECT cumulative FROM series_days WHERE agency = title.agency AND code = 'IPCA' AND first_day <=
                least(%(date)s::date, (SELECT last_day FROM series WHERE code = 'IPCA'))
                ORDER BY first_day DESC LIMIT 1)
            / (SELECT cumulative FROM series_days WHERE agency = title.agency AND code = 'IPCA'
                AND first_day <= title.due_date ORDER BY first_day DESC LIMIT 1) + 0.5) - title.open_principal_minor)
            ELSE 0 END AS correction,
        floor(title.open_principal_minor::numeric * CASE WHEN title.own_penalty THEN title.penalty_rate_e4
            ELSE terms.penalty_rate_e4 END / 1000000 + 0.5) AS penalty,
        CASE WHEN title.own_interest
            THEN floor(title.open_principal_minor::numeric * title.monthly_rate_e4
                * (%(date)s::date - title.accrued_through) / 30000000 + 0.5)
        WHEN terms.interest_series = 'LEGAL_BR' THEN floor(title.open_principal_minor::numeric
            * ((SELECT cumulative + per_day * (least(%(date)s::date, last_day) - series_days.first_day + 1)
                FROM series_days JOIN series USING (agency, code)
                WHERE agency = title.agency AND code = 'LEGAL_BR'
                    AND series_days.first_day <= least(%(date)s::date, last_day)
                ORDER BY series_days.first_day DESC LIMIT 1)
            - (SELECT cumulative + per_day * (title.accrued_through - first_day + 1) FROM series_days
                WHERE agency = title.agency AND code = 'LEGAL_BR' AND first_day <= title.accrued_through
                ORDER BY first_day DESC LIMIT 1)) / (SELECT denominator FROM series WHERE code = 'LEGAL_BR') + 0.5)
        WHEN terms.day_count = 'THIRTY_360' THEN floor(title.open_principal_minor::numeric * terms.interest_factor
            * (date_part('year', %(date)s::date)::int * 360 + date_part('month', %(date)s::date)::int * 30
                + least(date_part('day', %(date)s::date)::int, 30)
                - date_part('year', title.accrued_through)::int * 360
                - date_part('month', title.accrued_through)::int * 30
                - least(date_part('day', title.accrued_through)::int, 30)) / terms.interest_denominator + 0.5)
        ELSE floor(title.open_principal_minor::numeric * terms.interest_factor
            * (%(date)s::date - title.accrued_through) / terms.interest_denominator + 0.5) END AS interest,
        CASE WHEN terms.commission_rate_e4 > 0 THEN CASE WHEN title.open_principal_minor > terms.commission_above_minor
            THEN floor(title.open_principal_minor::numeric * terms.commission_above_rate_e4 / 1000000 + 0.5)
            ELSE least(terms.commission_maximum_minor, greatest(terms.commission_minimum_minor,
                floor(title.open_principal_minor::numeric * terms.commission_rate_e4 / 1000000 + 0.5))) END
            ELSE 0 END AS commission
    FROM titles AS title LEFT JOIN charge_terms AS terms ON terms.agency = title.agency AND terms.id = title.terms_id
    WHERE title.agency = %(agency)s AND %(date)s::date > title.payable_until
) AS counted
"""


def _analyze(engine: db.Engine) -> None:
    """Statistics, as autovacuum keeps them; the service's own role may not."""
    url = engine.url.set(drivername="postgresql", username="recupera_agreement_owner")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("ANALYZE")


def _by_hand(engine: db.Engine) -> tuple[int, float]:
    """Sum and seconds."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.agency', %s, true)", [str(money.AGENCY)])
        started = time.perf_counter()
        found = connection.execute(_SUM, {"date": DATE, "agency": money.AGENCY}).fetchone()
        assert found is not None
        return int(found[0]), time.perf_counter() - started
