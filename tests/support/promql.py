"""What a PromQL expression asks for and what it answers with, by a real parser."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser as pp


def parse(expression: str) -> pp.Expr:
    """The tree. Raises ValueError."""
    return pp.parse(expression)


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """Each series that is asked for: name, and value by label (of any kind of match)."""
    return [
        (one.name or "", {m.name: m.value for m in one.matchers.matchers})
        for one in nodes(parse(expression))
        if isinstance(one, pp.VectorSelector)
    ]


def nodes(tree: pp.Expr) -> Iterator[pp.Expr]:
    """Every node of the tree."""
    found: list[pp.Expr] = []

    def note(node: pp.Expr) -> bool:
        found.append(node)
        return True

    pp.walk(tree, note)
    return iter(found)


def labels(tree: pp.Expr, of: Callable[[str], frozenset[str]]) -> frozenset[str]:
    """Labels that the answer's series may have; `of` has those of a metric.

    Raises ValueError where the expression groups or matches by a label that is not there.
    """
    inner = functools.partial(labels, of=of)
    match tree:
        case pp.VectorSelector():
            known = of(tree.name or "")
            _there({m.name for m in tree.matchers.matchers}, known, tree)
            return known
        case pp.MatrixSelector():
            return inner(tree.vector_selector)
        case pp.AggregateExpr():
            known = inner(tree.expr)
            if str(tree.op) in ("topk", "bottomk"):
                return known
            named = frozenset(tree.modifier.labels) if tree.modifier else frozenset()
            _there(named, known, tree)
            if tree.modifier and tree.modifier.type == pp.AggModifierType.Without:
                return known - named
            return named
        case pp.BinaryExpr():
            left, right = inner(tree.lhs), inner(tree.rhs)
            if str(tree.op) == "or":
                return left | right
            if _is_scalar(tree.lhs) or _is_scalar(tree.rhs):
                return left | right
            matching = tree.modifier.matching if tree.modifier else None
            if matching is not None:
                _there(matching.labels, left, tree)
                _there(matching.labels, right, tree)
            elif left != right:
                raise ValueError(f"{sorted(left)} and {sorted(right)} never match in {tree}")
            return left
        case pp.Call():
            return _called(tree, inner)
        case pp.ParenExpr() | pp.UnaryExpr() | pp.SubqueryExpr():
            return inner(tree.expr)
        case _:
            return frozenset()


def _is_scalar(tree: pp.Expr) -> bool:
    match tree:
        case pp.NumberLiteral():
            return True
        case pp.ParenExpr() | pp.UnaryExpr():
            return _is_scalar(tree.expr)
        case pp.BinaryExpr():
            return _is_scalar(tree.lhs) and _is_scalar(tree.rhs)
        case pp.Call():
            return tree.func.name in ("scalar", "time")
    return False


def _called(tree: pp.Call, inner: Callable[[pp.Expr], frozenset[str]]) -> frozenset[str]:
    known = frozenset[str]()
    for argument in tree.args:
        known |= inner(argument)
    if tree.func.name == "label_replace":
        target, source = tree.args[1].val, tree.args[3].val
        _there({source} - {""}, known, tree)
        return known | {target}
    if tree.func.name == "histogram_quantile":
        _there({"le"}, known, tree)
        return known - {"le"}
    if tree.func.name in ("scalar", "vector", "time"):
        return frozenset()
    return known


def _there(asked: Any, known: frozenset[str], tree: pp.Expr) -> None:
    if missing := set(asked) - known:
        raise ValueError(f"{sorted(missing)} are no labels of {tree}")


def placeholders(text: str) -> set[str]:
    """Labels that a legend or title shows: {{label}}."""
    return set(re.findall(r"{{\s*(\w+)\s*}}", text))
