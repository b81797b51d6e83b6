"""Resource names (AIP-122): `agencies/{agency}/cases/{case}`.

A pattern's variables are UUIDs unless written `{day=text}`: then one segment of letters, digits, `.`, `_`,
`~`, `-`.
"""

import functools
import re
from uuid import UUID

from servicekit import errors, ids

_VARIABLE = re.compile(r"\{([a-z_]+)(=text)?\}")
_TEXT = r"[A-Za-z0-9._~-]{1,128}"


@functools.cache
def _compile(pattern: str) -> tuple[re.Pattern[str], str]:
    expression, template, at = "", "", 0
    for variable in _VARIABLE.finditer(pattern):
        literal = pattern[at : variable.start()]
        expression += (
            re.escape(literal) + f"(?P<{variable[1]}>{_TEXT if variable[2] else ids.CANONICAL.pattern})"
        )
        template += f"{literal}{{{variable[1]}}}"
        at = variable.end()
    return re.compile(expression + re.escape(pattern[at:]), re.ASCII), template + pattern[at:]


def format(pattern: str, **values: UUID | str) -> str:
    """The name of `pattern` with `values`. Raises ValueError when the result would not parse back."""
    expression, template = _compile(pattern)
    name = template.format(**values)
    if expression.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not of the form {pattern}")
    return name


def match(pattern: str, name: str, field: str = "name") -> dict[str, str]:
    """The variables of `name` as text. Raises InvalidRequest naming `field` where it is of another form."""
    found = _compile(pattern)[0].fullmatch(name)
    if found is None:
        raise errors.invalid(field, f"expected a name of the form {_compile(pattern)[1]}")
    return found.groupdict()


def parse(pattern: str, name: str, field: str = "name") -> dict[str, UUID]:
    """The variables of `name`, all of them UUIDs; use `match` for a pattern with `=text`. Raises
    InvalidRequest.
    """
    return {variable: UUID(text) for variable, text in match(pattern, name, field).items()}
