"""Terms of charges, published series, explained titles."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid

import grpc

from agreement_service.domain import accounts, series, terms
from agreement_service.rpc import common
from agreement_service.store import explained
from agreement_service.store import terms as term_store
from agreement_service.usecases import charges as charge_cases
from agreement_service.usecases import moments
from agreement_service.usecases import terms as term_cases
from recupera.agreement.v1 import agreement_pb2, terms_pb2, terms_service_pb2, terms_service_pb2_grpc
from servicekit import dates, db, errors, ids, money, names, pagination, rpc

SERIES = "agencies/{agency}/series/{series=text}"
_AMOUNTS = (
    "penalty_rate_e4",
    "penalty_minor",
    "interest_rate_e4",
    "surcharge_e4",
    "interest_series",
    "correction_series",
    "late_payment_minor",
    "expenses_minor",
    "fees_rate_e4",
    "grace_days",
    "source",
)


class TermsServicer(common.Methods, terms_service_pb2_grpc.TermsServiceServicer):
    """Terms, series, lines, edits of titles."""

    def SetChargeTerms(
        self, request: terms_service_pb2.SetChargeTermsRequest, context: grpc.ServicerContext
    ) -> terms_pb2.ChargeTerms:
        """Add dated terms."""
        agency = common.agency_of(request.parent, "parent")
        scope, content = _scope(request.charge_terms), _content(request.charge_terms)

        def run(tx: db.Transaction) -> terms_pb2.ChargeTerms:
            record = term_cases.put(
                tx=tx,
                agency=agency,
                scope=scope,
                content=content,
                set_by=common.subject(),
                moment=moments.read(tx, agency),
            )
            return _terms(agency, record)

        return self.once(agency, request, terms_pb2.ChargeTerms, run)

    def GetChargeTerms(
        self, request: terms_service_pb2.GetChargeTermsRequest, context: grpc.ServicerContext
    ) -> terms_pb2.ChargeTerms:
        """One row of terms."""
        agency, key = common.named(common.CHARGE_TERMS, request.name, "charge_terms")
        with db.begin(self.engine, agency=agency) as tx:
            record = term_store.get(tx, agency, [key]).get(key)
        if record is None:
            raise errors.ResourceNotFound("no such terms", charge_terms=key)
        return _terms(agency, record)

    def ListChargeTerms(
        self, request: terms_service_pb2.ListChargeTermsRequest, context: grpc.ServicerContext
    ) -> terms_service_pb2.ListChargeTermsResponse:
        """Rows of terms."""
        agency = common.agency_of(request.parent, "parent")
        creditor_id = ids.parse(request.creditor_id, "creditor_id") if request.creditor_id else None
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            rows = term_store.page(
                tx,
                agency,
                creditor_id=creditor_id,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return terms_service_pb2.ListChargeTermsResponse(
            charge_terms=[_terms(agency, row) for row in kept], next_page_token=token
        )

    def ImportSeries(
        self, request: terms_service_pb2.ImportSeriesRequest, context: grpc.ServicerContext
    ) -> terms_pb2.Series:
        """Take published values from a file."""
        agency, code = _series_name(request.name)

        def run(tx: db.Transaction) -> terms_pb2.Series:
            term_cases.import_series(
                tx=tx,
                agency=agency,
                code=code,
                content=request.content,
                source=request.source,
                replace=request.replace,
                moment=moments.read(tx, agency),
            )
            return _series(tx, agency, code)

        return self.once(agency, request, terms_pb2.Series, run)

    def GetSeries(
        self, request: terms_service_pb2.GetSeriesRequest, context: grpc.ServicerContext
    ) -> terms_pb2.Series:
        """A series with its values."""
        agency, code = _series_name(request.name)
        term_cases.definition(code)
        with db.begin(self.engine, agency=agency) as tx:
            return _series(tx, agency, code)

    def ExplainTitles(
        self, request: terms_service_pb2.ExplainTitlesRequest, context: grpc.ServicerContext
    ) -> terms_service_pb2.ExplainTitlesResponse:
        """Lines of many titles, as columns."""
        agency = common.agency_of(request.parent, "parent")
        asked = title_ids(request)
        with db.begin(self.engine, agency=agency) as tx:
            date = common.date_of(request, "date") or moments.read(tx, agency).business_date
            found = charge_cases.explain_many(
                tx=tx, agency=agency, title_ids=asked, date=date, creditor=rpc.caller().creditor
            )
        return explained_titles(agency, found, date)

    def ExplainTitle(
        self, request: terms_service_pb2.ExplainTitleRequest, context: grpc.ServicerContext
    ) -> terms_pb2.TitleBalance:
        """One title's lines and terms."""
        agency, title_id = common.named(common.TITLE, request.name, "title")
        with db.begin(self.engine, agency=agency) as tx:
            date = common.date_of(request, "date") or moments.read(tx, agency).business_date
            found = charge_cases.explain_one(
                tx=tx, agency=agency, title_id=title_id, date=date, creditor=rpc.caller().creditor
            )
        return _balance(agency, found)

    def EditTitleTerms(
        self, request: terms_service_pb2.EditTitleTermsRequest, context: grpc.ServicerContext
    ) -> terms_service_pb2.EditTitleTermsResponse:
        """Give titles rates of their own."""
        agency = common.agency_of(request.parent, "parent")
        title_ids = [ids.parse(text, f"title_ids[{place}]") for place, text in enumerate(request.title_ids)]
        reason = common.reason(request.reason)
        penalty = request.penalty_rate_e4 if request.HasField("penalty_rate_e4") else None
        monthly = request.monthly_interest_rate_e4 if request.HasField("monthly_interest_rate_e4") else None

        def run(tx: db.Transaction) -> terms_service_pb2.EditTitleTermsResponse:
            found = charge_cases.edit_terms(
                tx=tx,
                agency=agency,
                title_ids=title_ids,
                penalty_rate_e4=penalty,
                monthly_rate_e4=monthly,
                reason=reason,
                changed_by=common.subject(),
                authority=common.authority(),
                moment=moments.read(tx, agency),
            )
            return terms_service_pb2.EditTitleTermsResponse(titles=[_balance(agency, one) for one in found])

        return self.once(agency, request, terms_service_pb2.EditTitleTermsResponse, run)

    def AddExpense(
        self, request: terms_service_pb2.AddExpenseRequest, context: grpc.ServicerContext
    ) -> terms_pb2.TitleBalance:
        """Charge an expense or a fee."""
        agency, title_id = common.named(common.TITLE, request.name, "title")
        component, amount = _component(request.component), money.from_proto(request.amount, "amount")
        reason = common.reason(request.reason)

        def run(tx: db.Transaction) -> terms_pb2.TitleBalance:
            found = charge_cases.add_expense(
                tx=tx,
                agency=agency,
                title_id=title_id,
                component=component,
                amount_minor=amount.minor,
                currency=amount.currency,
                reason=reason,
                changed_by=common.subject(),
                authority=common.authority(),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _balance(agency, found)

        return self.once(agency, request, terms_pb2.TitleBalance, run)

    def WaiveCharges(
        self, request: terms_service_pb2.WaiveChargesRequest, context: grpc.ServicerContext
    ) -> terms_pb2.TitleBalance:
        """Forgive charges of a title."""
        agency, title_id = common.named(common.TITLE, request.name, "title")
        component = _component(request.component)
        amount = money.from_proto(request.amount, "amount") if request.HasField("amount") else None
        reason = common.reason(request.reason)

        def run(tx: db.Transaction) -> terms_pb2.TitleBalance:
            found = charge_cases.waive_charges(
                tx=tx,
                agency=agency,
                title_id=title_id,
                component=component,
                amount_minor=amount.minor if amount else None,
                currency=amount.currency if amount else "",
                reason=reason,
                changed_by=common.subject(),
                authority=common.authority(),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return _balance(agency, found)

        return self.once(agency, request, terms_pb2.TitleBalance, run)


def title_ids(request: terms_service_pb2.ExplainTitlesRequest) -> list[str]:
    """The ids of a request, each in canonical spelling. Raises InvalidRequest naming the first that is not."""
    found = list(request.title_ids)
    spelled = ids.CANONICAL.fullmatch
    for place, text in enumerate(found):
        if spelled(text) is None:
            ids.parse(text, f"title_ids[{place}]")
    return found


def explained_titles(
    agency: uuid.UUID, found: explained.Columns, date: datetime.date
) -> terms_service_pb2.ExplainTitlesResponse:
    """The answer of ExplainTitles."""
    table = list(dict.fromkeys(found.currencies))
    index = {currency: place for place, currency in enumerate(table)}
    return terms_service_pb2.ExplainTitlesResponse(
        title_ids=found.title_ids,
        currency_index=[index[currency] for currency in found.currencies],
        table_currencies=table,
        lines=[_lines(part) for part in found.parts],
        table_sources=[_source(agency, one) for one in found.sources],
        date=dates.to_proto(date),
    )


def _series_name(name: str) -> tuple[uuid.UUID, str]:
    found = names.match(SERIES, name, "name")
    return uuid.UUID(found["agency"]), found["series"]


def _component(value: int) -> accounts.Component:
    known: dict[int, str] = {number: name for name, number in agreement_pb2.BalanceLine.Component.items()}
    name = known.get(value, "").removeprefix("COMPONENT_")
    if name not in accounts.Component.__members__:
        raise errors.invalid("component", f"expected one of {', '.join(accounts.CHARGES)}")
    return accounts.Component(name)


def _scope(message: terms_pb2.ChargeTerms) -> terms.Scope:
    valid_from = common.date_of(message, "valid_from", "charge_terms.valid_from")
    if valid_from is None:
        raise errors.invalid("charge_terms.valid_from", "expected the first due date that they are for")
    creditor, title = message.creditor_id, message.title_id
    return terms.Scope(
        creditor_id=ids.parse(creditor, "charge_terms.creditor_id") if creditor else None,
        product=message.product,
        title_id=ids.parse(title, "charge_terms.title_id") if title else None,
        currency=message.currency,
        consumer=message.consumer,
        valid_from=valid_from,
    )


def _content(message: terms_pb2.ChargeTerms) -> terms.Terms:
    units = {number: name for name, number in terms_pb2.ChargeTerms.InterestUnit.items()}
    counts = {number: name for name, number in terms_pb2.ChargeTerms.DayCount.items()}
    unit = units.get(message.interest_unit, "").removeprefix("INTEREST_UNIT_")
    count = counts.get(message.day_count, "").removeprefix("DAY_COUNT_")
    if not message.interest_rate_e4 and not message.surcharge_e4:
        unit = terms.Unit.MONTH if unit == "UNSPECIFIED" else unit
        count = terms.DayCount.THIRTY_DAY_MONTH if count == "UNSPECIFIED" else count
    wrong = []
    if unit not in terms.Unit.__members__:
        wrong.append(errors.FieldViolation("charge_terms.interest_unit", "expected DAY, MONTH or YEAR"))
    if count not in terms.DayCount.__members__:
        wrong.append(
            errors.FieldViolation(
                "charge_terms.day_count", f"expected one of {', '.join(terms.DayCount.__members__)}"
            )
        )
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    return terms.Terms(
        **{name: getattr(message, name) for name in _AMOUNTS},
        interest_unit=terms.Unit(unit),
        day_count=terms.DayCount(count),
        recovery_commission=message.recovery_commission,
    )


def _terms(agency: uuid.UUID, record: term_store.Record) -> terms_pb2.ChargeTerms:
    scope, content = record.scope, record.terms
    return terms_pb2.ChargeTerms(
        name=names.format(common.CHARGE_TERMS, agency=agency, charge_terms=record.id),
        creditor_id=str(scope.creditor_id) if scope.creditor_id else "",
        product=scope.product,
        title_id=str(scope.title_id) if scope.title_id else "",
        currency=scope.currency,
        consumer=scope.consumer,
        valid_from=dates.to_proto(scope.valid_from),
        revision=record.revision,
        interest_unit=terms_pb2.ChargeTerms.InterestUnit.Value(
            f"INTEREST_UNIT_{content.interest_unit.value}"
        ),
        day_count=terms_pb2.ChargeTerms.DayCount.Value(f"DAY_COUNT_{content.day_count.value}"),
        recovery_commission=content.recovery_commission,
        set_by=record.set_by,
        create_time=dates.to_timestamp(record.created_at),
        **{name: getattr(content, name) for name in _AMOUNTS},
    )


def _series(tx: db.Transaction, agency: uuid.UUID, code: str) -> terms_pb2.Series:
    known = series.SERIES[code]
    days = term_store.series_tables(tx, agency, [code]).get(code)
    return terms_pb2.Series(
        name=f"agencies/{agency}/series/{code}",
        kind=terms_pb2.Series.Kind.Value(f"KIND_{known.kind.value}"),
        currency=known.currency,
        law=known.law,
        first_day=dates.to_proto(days.first_day) if days else None,
        last_day=dates.to_proto(days.last_day) if days else None,
        values=[
            terms_pb2.SeriesValue(period=dates.to_proto(one.period), value_e6=one.value_e6, source=one.source)
            for one in term_store.values(tx, agency, code)
        ],
    )


def _lines(part: explained.Part) -> terms_pb2.LineColumns:
    return terms_pb2.LineColumns(
        component=common.component(part.component),
        title_index=part.titles,
        amount_minor=part.amounts,
        base_minor=part.bases,
        numerator=part.numerators,
        denominator=part.denominators,
        from_day=part.from_days,
        through_day=part.through_days,
        source_index=part.sources,
    )


def _source(agency: uuid.UUID, one: explained.Source) -> terms_pb2.LineSource:
    return terms_pb2.LineSource(
        source=one.text,
        rule=one.rule,
        series=one.series,
        terms=names.format(common.CHARGE_TERMS, agency=agency, charge_terms=one.terms_id)
        if one.terms_id
        else "",
        denominator=one.denominator,
        through_day=one.through_day,
    )


def _balance(agency: uuid.UUID, found: charge_cases.Balance) -> terms_pb2.TitleBalance:
    title = found.title
    return terms_pb2.TitleBalance(
        balance=common.explained(agency, found.explained, found.currency),
        penalty_rate_e4=title.penalty_rate_e4 if title.own_penalty else None,
        monthly_interest_rate_e4=title.monthly_rate_e4 if title.own_interest else None,
        terms=names.format(common.CHARGE_TERMS, agency=agency, charge_terms=title.terms_id)
        if title.terms_id
        else "",
        open=common.money_of(found.explained.total_minor, found.currency),
    )
