"""Pages by key (AIP-158): the token holds the sort key of the last row given, and a hash of the filter it
belongs to.

The token is opaque, not secret and not signed: what it holds only ever becomes a value compared with a
column, under the caller's own scope. `key` gives the types of the sort key, so that a forged token is an
InvalidRequest.
"""

import base64
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from servicekit import errors

Row = TypeVar("Row")

_MAX_TOKEN = 2_048


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """`size` rows after the row whose sort key is `after` (None: the first page)."""

    size: int
    after: tuple[Any, ...] | None
    fingerprint: str = dataclasses.field(repr=False)

    @property
    def limit(self) -> int:
        """Rows to ask for: one more than `size`, which tells whether another page follows."""
        return self.size + 1

    def token(self, *key: Any) -> str:
        """The token of the page that starts after the row with this sort key (str, int, bool, None, UUID,
        date, datetime, Decimal).
        """
        text = json.dumps([self.fingerprint, [_encode(value) for value in key]], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def cut(self, rows: Sequence[Row], key: Callable[[Row], tuple[Any, ...]]) -> tuple[Sequence[Row], str]:
        """Rows found with `limit` -> (at most `size` rows, next_page_token or "")."""
        if len(rows) <= self.size:
            return rows, ""
        kept = rows[: self.size]
        return kept, self.token(*key(kept[-1]))


def read(
    request: Message, default: int = 50, maximum: int = 1000, *, key: Sequence[type] | None = None
) -> Page:
    """The page that a List request asks for by `page_size` and `page_token`.

    page_size 0 means `default`; more than `maximum` is cut to it; negative is InvalidRequest. A token that is
    damaged, of another filter, order or parent, or whose key is not of the types `key`, is InvalidRequest.
    """
    size: int = getattr(request, "page_size")  # noqa: B009
    token: str = getattr(request, "page_token")  # noqa: B009
    if size < 0:
        raise errors.invalid("page_size", f"expected 0 to {maximum}")
    fingerprint = _fingerprint(request)
    after = _decode_token(token, fingerprint, key) if token else None
    return Page(min(size, maximum) or default, after, fingerprint)


def _fingerprint(request: Message) -> str:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("page_size")
    copy.ClearField("page_token")
    digest = hashlib.sha256(
        request.DESCRIPTOR.full_name.encode() + b"\0" + copy.SerializeToString(deterministic=True)
    )
    return base64.urlsafe_b64encode(digest.digest()[:9]).decode()


def _decode_token(token: str, fingerprint: str, key: Sequence[type] | None) -> tuple[Any, ...]:
    try:
        if len(token) > _MAX_TOKEN:
            raise ValueError("too long")
        stated, values = json.loads(
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        )
        after = tuple(_decode(value) for value in values)
    except (ValueError, TypeError, OverflowError, RecursionError, InvalidOperation):
        raise errors.invalid(
            "page_token", "expected the next_page_token of an earlier answer, unchanged"
        ) from None
    if stated != fingerprint:
        raise errors.invalid(
            "page_token", "the token is of another query: send the same filter, order and parent"
        )
    if key is not None and (
        len(after) != len(key)
        or any(value is not None and type(value) is not kind for value, kind in zip(after, key, strict=True))
    ):
        raise errors.invalid("page_token", "expected the next_page_token of an earlier answer, unchanged")
    return after


def _encode(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case UUID():
            return {"u": value.hex}
        case datetime.datetime():
            return {"t": value.astimezone(datetime.UTC).isoformat()}
        case datetime.date():
            return {"d": value.isoformat()}
        case Decimal():
            return {"n": str(value)}
    raise TypeError(f"{type(value).__name__} cannot be part of a page token")


def _decode(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            if "\0" in value:
                raise ValueError("a text of the database holds no NUL")
            value.encode()  # a lone surrogate is a ValueError here, not later
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case {"u": str(text)}:
            return UUID(text)
        case {"t": str(text)}:
            instant = datetime.datetime.fromisoformat(text)
            return instant.astimezone(datetime.UTC)
        case {"d": str(text)}:
            return datetime.date.fromisoformat(text)
        case {"n": str(text)}:
            return Decimal(text)
    raise ValueError("not part of a page token")
