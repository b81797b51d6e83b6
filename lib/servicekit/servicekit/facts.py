"""Facts: one protobuf message per topic, `fact_id, occurred_at, business_date, agency, subject, version` +
one oneof.

A *chunk* is a fact whose body (the set field of the oneof) has a column ``case_ids``: every repeated field of
the body is empty or as long as ``case_ids``, except those named ``table_..``, which other columns point into
by index and which every part keeps whole (architecture §6). Everything here works by reflection, so it knows
no domain.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf import message as protobuf

from servicekit import topics

MAX_ROWS = 500
"""Rows of a chunk."""
CHUNK_BYTES = 256 * 1024
"""Size above which ``publish`` cuts a chunk in two."""
MAX_BYTES = 512 * 1024
"""Size above which ``publish`` refuses."""

KEYS = "case_ids"
TABLE_PREFIX = "table_"

M = TypeVar("M", bound=protobuf.Message)
R = TypeVar("R")


Columns = tuple[tuple[str, bool], ...]

_oneofs: dict[str, str] = {}
_bodies: dict[str, Columns] = {}


def _columns(found: protobuf.Message) -> Columns:
    """(name, holds messages) of each column of a chunk's body; empty when the body is no chunk."""
    descriptor = found.DESCRIPTOR
    columns = _bodies.get(descriptor.full_name)
    if columns is None:
        fields = descriptor.fields if any(field.name == KEYS for field in descriptor.fields) else ()
        columns = _bodies[descriptor.full_name] = tuple(
            (field.name, field.message_type is not None)
            for field in fields
            if field.is_repeated and not field.name.startswith(TABLE_PREFIX)
        )
    return columns


def kind(message: protobuf.Message) -> str | None:
    """Name of the set field of the oneof; None where this code does not know the fact (skipped and
    counted).
    """
    descriptor = message.DESCRIPTOR
    oneof = _oneofs.get(descriptor.full_name)
    if oneof is None:
        if not descriptor.oneofs:
            raise ValueError(f"{descriptor.full_name} is no fact: it has no oneof")
        oneof = _oneofs[descriptor.full_name] = descriptor.oneofs[0].name
    which: str | None = message.WhichOneof(oneof)
    return which


def body(message: protobuf.Message) -> Any:
    """The set field of the oneof. Raises ValueError when none is set."""
    which = kind(message)
    if which is None:
        raise ValueError(f"{message.DESCRIPTOR.full_name}: no fact is set")
    return getattr(message, which)


def rows(message: protobuf.Message) -> int:
    """Rows of a chunk; 1 for any other fact."""
    which = kind(message)
    if which is None:
        return 1
    found = getattr(message, which)
    return len(getattr(found, KEYS)) if _columns(found) else 1


def is_chunk(message: protobuf.Message) -> bool:
    """True where the fact's body has a column of case ids."""
    which = kind(message)
    return which is not None and bool(_columns(getattr(message, which)))


def cases(message: protobuf.Message) -> list[uuid.UUID]:
    """What the fact is about, each once, in order: the case ids of a chunk, else ``case_id`` of the body,
    else the subject, else the agency. Facts about one of these are applied in order, and queue behind a
    parked one."""
    which = kind(message)
    found = getattr(message, which) if which else None
    if found is not None:
        if _columns(found):
            return [uuid.UUID(bytes=key) for key in dict.fromkeys(getattr(found, KEYS))]
        if one := getattr(found, "case_id", b""):
            return [uuid.UUID(bytes=one)]
    return [uuid.UUID(bytes=message.subject or message.agency)]  # type: ignore[attr-defined]


def select(message: M, wanted: Sequence[int]) -> M:
    """A copy of a chunk with only the rows of these indexes; same header, same tables.

    Raises ValueError when a column is neither empty nor as long as ``case_ids``.
    """
    which = kind(message)
    if which is None:
        raise ValueError("no fact is set")
    source = getattr(message, which)
    columns = _columns(source)
    if not columns:
        raise ValueError(f"{source.DESCRIPTOR.full_name} is no chunk")
    length = len(getattr(source, KEYS))
    copy = _without_columns(message, which, columns)
    target = getattr(copy, which)
    for name, holds_messages in columns:
        column = getattr(source, name)
        if not column:
            continue
        if len(column) != length:
            raise ValueError(
                f"{source.DESCRIPTOR.full_name}.{name} has {len(column)} values for {length} rows"
            )
        picked = [column[index] for index in wanted]
        if holds_messages:
            destination = getattr(target, name)
            for value in picked:
                destination.add().CopyFrom(value)
        else:
            getattr(target, name).extend(picked)
    return copy


def _without_columns(message: M, which: str, columns: Columns) -> M:
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name == which:
            target = getattr(copy, which)
            target.SetInParent()
            names = {name for name, _ in columns}
            for inner, content in value.ListFields():
                if inner.name in names:
                    continue
                _copy(target, inner, content)
        else:
            _copy(copy, field, value)
    return copy


def _copy(target: Any, field: Any, value: Any) -> None:
    if field.is_repeated:
        getattr(target, field.name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def split(message: M) -> list[M]:
    """One-row copies of a chunk, in order; ``[message]`` for any other fact."""
    if not is_chunk(message):
        return [message]
    return [select(message, [index]) for index in range(rows(message))]


def by_case(message: M) -> list[tuple[uuid.UUID, M]]:
    """One part for each case, in order of first mention, the rows of a case together.

    ``[(case, message)]`` for a fact about one case.
    """
    if not is_chunk(message):
        return [(cases(message)[0], message)]
    places: dict[bytes, list[int]] = {}
    for index, key in enumerate(getattr(body(message), KEYS)):
        places.setdefault(key, []).append(index)
    if len(places) == 1:
        return [(uuid.UUID(bytes=key), message) for key in places]
    return [(uuid.UUID(bytes=key), select(message, wanted)) for key, wanted in places.items()]


def only(message: M, keep: Callable[[uuid.UUID], bool]) -> M | None:
    """The chunk without the rows of cases that ``keep`` refuses; None when no row is left."""
    found = getattr(body(message), KEYS)
    wanted = [index for index, key in enumerate(found) if keep(uuid.UUID(bytes=key))]
    if not wanted:
        return None
    return message if len(wanted) == len(found) else select(message, wanted)


def halves(message: M) -> tuple[M, M] | None:
    """The chunk cut in two; None where it has less than two rows or is no chunk."""
    count = rows(message)
    if count < 2:
        return None
    middle = count // 2
    return select(message, range(middle)), select(message, range(middle, count))


def chunks(items: Iterable[R], max_rows: int = MAX_ROWS) -> Iterator[list[R]]:
    """Lists of at most ``max_rows`` items, in order."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, max_rows)):
        yield chunk


def by_partition(
    items: Iterable[R], *, case_id: Callable[[R], uuid.UUID], partitions: int, max_rows: int = MAX_ROWS
) -> Iterator[tuple[int, list[R]]]:
    """What chunks are made of: ``(partition, rows)`` with at most ``max_rows`` rows of cases of that
    partition.

    Rows keep their order within a partition; partitions come in order. ``partitions`` is the topic's number.
    """
    groups: dict[int, list[R]] = {}
    for item in items:
        groups.setdefault(topics.partition_of(case_id(item), partitions), []).append(item)
    for partition in sorted(groups):
        for chunk in chunks(groups[partition], max_rows):
            yield partition, chunk


@functools.cache
def message_class(full_name: str) -> type[protobuf.Message]:
    """The generated class of a message by its full name; imports ``recupera.case.v1.case_facts_pb2`` where
    needed.

    Modules are found by convention: ``<package>.<domain>_facts_pb2``, the domain being the second name of the
    package.
    """
    import importlib

    from google.protobuf import symbol_database

    found: type[protobuf.Message]
    try:
        found = symbol_database.Default().GetSymbol(full_name)
    except KeyError:
        package = full_name.rpartition(".")[0]
        importlib.import_module(f"{package}.{package.split('.')[1]}_facts_pb2")
        found = symbol_database.Default().GetSymbol(full_name)
    return found


def cloud_event(
    *, fact_id: uuid.UUID, kind: str, source: str, time: str, traceparent: str
) -> list[tuple[str, bytes]]:
    """The headers of a record: CloudEvents (binary mode of the Kafka binding) and ``traceparent``."""
    headers = [
        ("ce_id", str(fact_id).encode()),
        ("ce_type", kind.encode()),
        ("ce_source", source.encode()),
        ("ce_time", time.encode()),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def header(headers: Iterable[tuple[str, bytes]], name: str) -> str:
    """A header's text; empty when it is not there."""
    for key, value in headers:
        if key == name:
            return value.decode("utf-8", "replace")
    return ""


def origin(headers: Iterable[tuple[str, bytes]]) -> Mapping[str, str]:
    """All headers as text."""
    return {key: value.decode("utf-8", "replace") for key, value in headers}
