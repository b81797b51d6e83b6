"""Every column is declared business, incidental or a reference (tests/support/digest.py)."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from support import digest


def test_every_column_says_what_it_is(engine: Callable[[str], sa.Engine]) -> None:
    assert digest.undeclared("import", engine("import")) == []
