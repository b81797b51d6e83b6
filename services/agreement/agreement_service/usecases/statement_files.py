"""A creditor's closed statement as a file: what each column says, in the Portuguese of the currency's country.

It names the creditor's own references (creditor, contract, title), never a person: no names, documents, accounts.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence

from agreement_service.domain import remittance
from agreement_service.providers import documents, exports
from agreement_service.store import remittance as store

PDF_LINES = 500
"""Lines a PDF shows; the other formats have all."""
TEMPLATE = "statement"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    title: str
    summary: str
    groups: str
    lines: str
    instalment: str
    tax: str
    components: dict[str, str]
    success_fee: str
    rest: str
    states: dict[str, str]


_BR = _Words(
    title="Prestação de contas",
    summary="Resumo",
    groups="Por atraso e componente",
    lines="Lançamentos",
    instalment="Parcela",
    tax="ISS",
    components={
        "PRINCIPAL": "Principal",
        "CORRECTION": "Correção monetária",
        "PENALTY": "Multa",
        "INTEREST": "Juros",
        "COSTS": "Despesas",
        "FEES": "Honorários",
        "PLAN_INTEREST": "Juros do parcelamento",
    },
    success_fee="Comissão de êxito",
    rest="São mostrados os primeiros {shown} de {all} lançamentos. Os arquivos CSV e XLSX trazem todos.",
    states={"CLOSED": "Fechada", "APPROVED": "Aprovada", "PAID": "Paga"},
)
_PT = _Words(
    title="Prestação de contas",
    summary="Resumo",
    groups="Por atraso e componente",
    lines="Movimentos",
    instalment="Prestação",
    tax="IVA",
    components={
        "PRINCIPAL": "Capital",
        "CORRECTION": "Atualização",
        "PENALTY": "Cláusula penal",
        "INTEREST": "Juros de mora",
        "COSTS": "Despesas",
        "FEES": "Honorários",
        "PLAN_INTEREST": "Juros do plano",
    },
    success_fee="Comissão de sucesso",
    rest="São mostrados os primeiros {shown} de {all} movimentos. Os ficheiros CSV e XLSX trazem todos.",
    states={"CLOSED": "Fechada", "APPROVED": "Aprovada", "PAID": "Paga"},
)


def _words(currency: str) -> _Words:
    return _PT if currency == "EUR" else _BR


def csv(statement: store.Statement, lines: Iterable[store.Line]) -> Iterator[bytes]:
    """All lines, the success fees behind the settlements, in pieces of at most 1 MiB."""
    return exports.csv(_sheet(statement, lines))


def xlsx(statement: store.Statement, lines: Iterable[store.Line]) -> Iterator[bytes]:
    """A sheet with the totals and one with all lines, in pieces of at most 1 MiB."""
    words = _words(statement.currency)
    assert statement.closed_at is not None
    summary = exports.Sheet(
        name=words.summary,
        columns=[exports.Column(words.title, 34), exports.Column(statement.currency, 24)],
        rows=_summary(statement),
    )
    return exports.xlsx(
        [summary, _sheet(statement, lines)],
        title=words.title,
        created=statement.closed_at,
    )


def pdf(statement: store.Statement, groups: Sequence[store.Group], lines: Sequence[store.Line]) -> bytes:
    """Totals, sums by age, component and rate, and the first lines (`lines`, at most PDF_LINES)."""
    return documents.pdf(TEMPLATE, page(statement, groups, lines))


def page(
    statement: store.Statement, groups: Sequence[store.Group], lines: Sequence[store.Line]
) -> dict[str, object]:
    """What the template statement.typ shows: texts only."""
    words, currency = _words(statement.currency), statement.currency

    def sum_of(label: str, minor: int, *, strong: bool = False) -> dict[str, object]:
        return {"label": label, "value": exports.amount(minor, currency), "strong": strong}

    def number(minor: int) -> str:
        return exports.number(minor, currency)

    sums = [sum_of("Valor recebido", statement.gross_minor), sum_of("Comissão", -statement.commission_minor)]
    if statement.success_fee_minor:
        sums.append(sum_of(words.success_fee, -statement.success_fee_minor))
    if statement.tax_added_minor:
        sums.append(sum_of(f"{words.tax} sobre a comissão", -statement.tax_added_minor))
    if statement.tax_retained_minor:
        sums.append(sum_of(f"{words.tax} retido pelo credor", statement.tax_retained_minor))
    if statement.carried_in_minor:
        sums.append(sum_of("Saldo anterior", statement.carried_in_minor))
    sums.append(sum_of("Líquido", statement.net_minor, strong=True))
    if statement.carried_out_minor:
        sums.append(sum_of("Saldo a transportar", statement.carried_out_minor))
    sums.append(
        sum_of(
            "Valor a repassar" if currency == "BRL" else "Valor a entregar",
            statement.remitted_minor,
            strong=True,
        )
    )
    return {
        "lang": exports.locale(currency)[:2],
        "region": exports.locale(currency)[3:],
        "title": words.title,
        "facts": [[label, value] for label, value in _facts(statement) if label != "Número"],
        "sums": sums,
        "number": f"N.º {statement.number}",
        "groups": {
            "title": words.groups,
            "head": ["Dias de atraso", "Componente", "Taxa", "Quantidade", "Recebido", "Comissão", words.tax],
            "rows": [
                [
                    f"{group.from_day} a {group.to_day - 1}" if group.to_day else f"{group.from_day} ou mais",
                    words.components[group.component],
                    exports.percent(group.rate_e4, currency),
                    str(group.settlements),
                    number(group.amount_minor),
                    number(group.commission_minor),
                    number(group.tax_added_minor + group.tax_retained_minor),
                ]
                for group in groups
            ],
        },
        "lines": {
            "title": words.lines,
            "head": [
                "Pagamento", "Contrato", "Título", words.instalment, "Componente", "Atraso", "Recebido", "Taxa",
                "Comissão", words.tax,
            ],
            "rows": [
                [
                    "" if line.value_date is None else exports.date(line.value_date),
                    line.contract_reference,
                    line.title_reference,
                    _instalment(line),
                    _component(line, words),
                    "" if line.posting_id is None else str(line.days_past_due),
                    number(line.amount_minor) if line.posting_id is not None else "",
                    exports.percent(line.rate_e4, currency),
                    number(line.percentage_minor + line.fixed_minor),
                    number(line.tax_added_minor + line.tax_retained_minor),
                ]
                for line in lines
            ],
            "rest": words.rest.format(shown=len(lines), all=statement.settlements)
            if statement.settlements > len(lines)
            else "",
        },
    }  # fmt: skip


def _sheet(statement: store.Statement, lines: Iterable[store.Line]) -> exports.Sheet:
    words = _words(statement.currency)
    columns = [
        exports.Column("Tipo", 18),
        exports.Column("Contrato", 22),
        exports.Column("Título", 22),
        exports.Column(words.instalment, 9),
        exports.Column("Componente", 21),
        exports.Column("Data do pagamento", 12),
        exports.Column("Data do lançamento" if words is _BR else "Data do movimento", 12),
        exports.Column("Dias de atraso", 9),
        exports.Column(f"Valor recebido ({statement.currency})", 15),
        exports.Column("Taxa de comissão (%)", 11),
        exports.Column("Comissão", 13),
        exports.Column("Valor fixo", 11),
        exports.Column(f"{words.tax} a somar", 12),
        exports.Column(f"{words.tax} retido", 12),
        exports.Column("Líquido", 15),
    ]
    total: exports.Row = [
        "Total", "", "", "", "", "", "", "", exports.Minor(statement.gross_minor), "", "", "",
        exports.Minor(statement.tax_added_minor), exports.Minor(statement.tax_retained_minor),
        exports.Minor(statement.net_minor - statement.carried_in_minor),
    ]  # fmt: skip
    return exports.Sheet(
        name=words.lines, columns=columns, rows=(_row(line, words) for line in lines), total=total
    )


def _row(line: store.Line, words: _Words) -> exports.Row:
    fee = line.posting_id is None
    received = 0 if fee else line.amount_minor
    kind = words.success_fee if fee else "Recebimento" if received > 0 else "Estorno"
    taken = line.percentage_minor + line.fixed_minor + line.tax_added_minor - line.tax_retained_minor
    return [
        kind,
        line.contract_reference,
        line.title_reference,
        _instalment(line),
        "" if fee else words.components[line.component],
        line.value_date,
        line.business_date,
        None if fee else line.days_past_due,
        None if fee else exports.Minor(line.amount_minor),
        exports.Percent(line.rate_e4),
        exports.Minor(line.percentage_minor),
        exports.Minor(line.fixed_minor),
        exports.Minor(line.tax_added_minor),
        exports.Minor(line.tax_retained_minor),
        exports.Minor(received - taken),
    ]


def _instalment(line: store.Line) -> str:
    """Its number; the down payment has none."""
    return "" if line.instalment_number is None else str(line.instalment_number or "Entrada")


def _component(line: store.Line, words: _Words) -> str:
    return words.success_fee if line.posting_id is None else words.components[line.component]


def _facts(statement: store.Statement) -> list[tuple[str, str]]:
    words = _words(statement.currency)
    assert statement.period_start is not None
    found = [
        ("Credor", statement.creditor_reference),
        ("Período", f"{exports.date(statement.period_start)} a {exports.date(_last_day(statement))}"),
        ("Número", str(statement.number)),
        ("Situação" if words is _BR else "Estado", words.states[statement.state.value]),
    ]
    if statement.contract_reference:
        found.insert(1, ("Contrato", statement.contract_reference))
    if statement.state is remittance.StatementState.PAID and statement.pay_date is not None:
        found.append(("Pagamento", f"{exports.date(statement.pay_date)}, {statement.bank_reference}"))
    return found


def _summary(statement: store.Statement) -> list[exports.Row]:
    words = _words(statement.currency)
    return [
        *([label, value] for label, value in _facts(statement)),
        [words.lines, statement.settlements],
        ["Valor recebido", exports.Minor(statement.gross_minor)],
        ["Comissão", exports.Minor(-statement.commission_minor)],
        [words.success_fee, exports.Minor(-statement.success_fee_minor)],
        [f"{words.tax} sobre a comissão", exports.Minor(-statement.tax_added_minor)],
        [f"{words.tax} retido pelo credor", exports.Minor(statement.tax_retained_minor)],
        ["Saldo anterior", exports.Minor(statement.carried_in_minor)],
        ["Líquido", exports.Minor(statement.net_minor)],
        ["Saldo a transportar", exports.Minor(statement.carried_out_minor)],
        ["Valor a repassar" if words is _BR else "Valor a entregar", exports.Minor(statement.remitted_minor)],
    ]


def _last_day(statement: store.Statement) -> datetime.date:
    assert statement.period_end is not None
    return statement.period_end - datetime.timedelta(days=1)
