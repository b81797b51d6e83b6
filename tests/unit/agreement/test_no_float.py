"""Money never meets a float: what code that counts money may not say, what its columns are (docs/conventions.md)."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

import agreement_service
from agreement_service import store
from servicekit import money

SERVICE = Path(inspect.getfile(agreement_service)).parent
PARTS = ("domain", "usecases", "store", "rpc")
INTEGER_MATH = {"ceil", "comb", "floor", "gcd", "isqrt", "lcm", "prod"}
"""Of `math`: whole numbers in, whole numbers out."""
FLOAT_SQL = re.compile(r"\b(double precision|float[48]?|real)\b", re.IGNORECASE)
DIVISIONS = {
    ("domain/cobv.py", "Decimal(base_minor) * percent_e2 * days / (Decimal(10000) * period)"): "Decimals",
    ("domain/remittance.py", "Decimal(amount_minor) * rate_e4 / money.RATE_UNIT"): "a Decimal by an integer",
    ("domain/series.py", "selic_factor / ipca15_factor"): "Decimals, of 50 digits",
    ("usecases/clocks.py", "decimal.Decimal(changed.speed_thousandths) / 1000"): "a clock's speed, a Decimal",
    (
        "usecases/minutes.py",
        "resources.files('agreement_service') / 'templates' / f'minute.{language}.txt'",
    ): "a path",
    ("usecases/minutes.py", "resources.files('agreement_service') / 'templates'"): "a path",
}
"""Where `/` may stand, and why it gives no float."""


def modules():
    """Every module that counts money: its name and its text."""
    for part in PARTS:
        for path in sorted((SERVICE / part).rglob("*.py")):
            yield path.relative_to(SERVICE).as_posix(), path.read_text()
    yield "servicekit/money.py", Path(inspect.getfile(money)).read_text()


def floats(text):
    """(line, what) that makes or may make a float; a division as its expression."""
    found = []
    tree = ast.parse(text)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex()):
                found.append((node.lineno, f"literal {node.value}"))
            case ast.Constant(value=str(value)) if id(node) not in documented and FLOAT_SQL.search(value):
                found.append((node.lineno, f"SQL {FLOAT_SQL.search(value)[0]}"))
            case (
                ast.Name(id="float" | "complex") | ast.Attribute(attr="Float" | "REAL" | "Double" | "truediv")
            ):
                found.append((node.lineno, ast.unparse(node)))
            case ast.ImportFrom(module="math" | "operator" | "statistics" | "random"):
                found.append((node.lineno, ast.unparse(node)))
            case ast.Attribute(value=ast.Name(id="math")) if node.attr not in INTEGER_MATH:
                found.append((node.lineno, ast.unparse(node)))
            case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp(op=ast.USub())):
                found.append((node.lineno, ast.unparse(node)))
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                found.append((node.lineno, ast.unparse(node)))
    return found


def test_the_code_of_money_makes_no_float():
    names = [name for name, _ in modules()]
    assert {name.split("/")[0] for name in names} == {*PARTS, "servicekit"}
    assert len(names) > 100
    found = {(name, what): line for name, text in modules() for line, what in floats(text)}
    wrong = [
        f"{name}:{line}: {what}" for (name, what), line in found.items() if (name, what) not in DIVISIONS
    ]
    assert not wrong, "\n".join(wrong)
    gone = set(DIVISIONS) - set(found)
    assert not gone, f"not in the code any more: {gone}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rate = 0.02", "literal 0.02"),
        ("rate = 1e2", "literal 100.0"),
        ("def share(minor: int) -> int:\n    return round(minor / 3)", "minor / 3"),
        ("total /= 2", "total /= 2"),
        ("rate = float(text)", "float"),
        ("def rate() -> float: ...", "float"),
        ("import math\nx = math.sqrt(2)", "math.sqrt"),
        ("from math import sqrt", "from math import sqrt"),
        ("cent = 10 ** -2", "10 ** (-2)"),
        ("column = sa.Column('rate', sa.Float())", "sa.Float"),
        ("query = 'SELECT CAST(x AS double precision)'", "SQL double precision"),
        ("query = f'SELECT {x}::float8'", "SQL float8"),
    ],
)
def test_a_float_is_found(text, what):
    assert what in [found for _, found in floats(text)]


def test_what_makes_no_float_is_not_found():
    text = '"""Never a float."""\nminor = (2 * 7 + 3) // 6\nunit = math.lcm(4, 6)\nrate = Decimal("0.5") * 10 ** 2'
    assert floats(text) == []


def amounts():
    """Columns of amounts: (table, column, type of one value)."""
    for table in store.METADATA.tables.values():
        for column in table.columns:
            if column.name.endswith("_minor"):
                kind = column.type.item_type if isinstance(column.type, sa.ARRAY) else column.type
                yield table.name, column.name, kind


def test_every_column_of_an_amount_is_a_bigint():
    found = list(amounts())
    assert {"titles", "postings", "payments", "instalments", "agreements", "statements"} <= {
        one[0] for one in found
    }
    wrong = [(table, name, str(kind)) for table, name, kind in found if not isinstance(kind, sa.BigInteger)]
    assert not wrong, wrong


def test_no_column_is_a_float():
    columns = [column for table in store.METADATA.tables.values() for column in table.columns]
    assert not [str(column) for column in columns if isinstance(column.type, sa.Float)]
