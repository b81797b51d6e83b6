"""Ids: UUIDv7 made by the owner of the thing (architecture.md §5). On the wire text in names, 16 bytes in
facts.
"""

import re
from uuid import UUID

import uuid_utils.compat

from servicekit import errors

CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def new() -> UUID:
    """A new UUIDv7; later ones of this process sort after earlier ones."""
    return uuid_utils.compat.uuid7()


def parse(text: str, field: str) -> UUID:
    """Read the one canonical form (lower case, hyphens). Raises InvalidRequest naming `field`."""
    if CANONICAL.fullmatch(text) is None:
        raise errors.invalid(field, "expected a UUID in lower case with hyphens")
    return UUID(text)


def from_bytes(value: bytes, field: str) -> UUID:
    """Read 16 bytes. Raises InvalidRequest naming `field`."""
    if len(value) != 16:
        raise errors.invalid(field, "expected a UUID of 16 bytes")
    return UUID(bytes=value)
