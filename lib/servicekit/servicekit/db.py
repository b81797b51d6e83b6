"""Transactions with a scope, one-round-trip reads, publish (architecture §4, §5, §8).

``with db.begin(engine, agency=agency) as tx:`` is the only way to write. The scope is set for row-level
security in the same round trip as BEGIN; the facts published are inserted in the same round trip as COMMIT,
after every lock.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import uuid
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
import psycopg.sql
import sqlalchemy as sa
import sqlalchemy.exc
from google.protobuf import message as protobuf
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

from servicekit import outbox, telemetry

POOL_SIZE = 4
"""Connections a process for transactions; beside them one for each thread that reads at the same time."""

Engine = sa.Engine
"""For signatures outside store.py, where SQLAlchemy is not imported."""

Params = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

_SCOPE = "SELECT set_config('app.agency', %s, true)"
_PENDING = "recupera_opening"
_NOT_THE_DATA = ("08", "40", "53", "55", "57", "58")
"""SQLSTATE classes of errors that come from the server's state and not from the statement: connection,
rollback (deadlock, serialization), resources, lock not available, operator intervention (shutdown, cancel),
system."""


class _Cursor(psycopg.Cursor[Any]):
    """SQLAlchemy's cursor: the first statement takes what opens the transaction with it in its round trip."""

    def execute(self, *args: Any, **kwargs: Any) -> _Cursor:
        if _PENDING not in self.connection.__dict__:
            super().execute(*args, **kwargs)
            return self
        with self.connection.pipeline():
            _open(self.connection)
            super().execute(*args, **kwargs)
        return self

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        _open_now(self.connection)
        super().executemany(*args, **kwargs)


def _pend(driver: psycopg.Connection[Any], agency: uuid.UUID | None, *, begin: bool) -> None:
    """Note what opens the transaction: BEGIN (or not, for a read) and the scope.

    The driver is in autocommit, so that it sends no BEGIN of its own, which would cost a round trip.
    """
    driver.__dict__[_PENDING] = (begin, "" if agency is None else str(agency))


def _open(driver: psycopg.Connection[Any]) -> None:
    """Queue what was noted."""
    begin, scope = driver.__dict__.pop(_PENDING)
    if begin:
        queue(driver, "BEGIN")
    queue(driver, _SCOPE, (scope,))


def _open_now(driver: psycopg.Connection[Any]) -> None:
    """Send what was noted, before what is not a statement of SQLAlchemy's."""
    if _PENDING in driver.__dict__:
        with driver.pipeline():
            _open(driver)


def queue(
    driver: psycopg.Connection[Any], statement: Any, params: Any = None, *, binary: bool = False
) -> psycopg.Cursor[Any]:
    """Execute beside SQLAlchemy; inside ``driver.pipeline()`` it only queues, and fetching from the cursor
    waits. ``binary`` asks for the result in binary form (bytea without hex).
    """
    return psycopg.Cursor(driver).execute(statement, params, binary=binary)


DEAD_PEER: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A connection is given up after half a minute without a sign of life. A server whose machine or network is gone says
no goodbye, and the kernel alone would wait two hours for one (with a statement on its way: a quarter of an hour)."""


def create_engine(url: str, *, application_name: str, pool_size: int = POOL_SIZE) -> sa.Engine:
    """An engine over psycopg 3 with a fixed pool. ``url`` is ``postgresql://..``; times come back in UTC."""
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        connect_args={
            "application_name": application_name,
            **DEAD_PEER,
            "cursor_factory": _Cursor,
            "options": "-c TimeZone=UTC -c idle_in_transaction_session_timeout=60s -c lock_timeout=30s",
        },
        use_native_hstore=False,
    )
    sa.event.listen(engine, "engine_disposed", _close_readers)
    return engine


def is_unavailable(error: BaseException) -> bool:
    """True where the database (not the data) is why a statement failed: the same work may succeed later."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if error.connection_invalidated:
            return True
        return error.orig is not None and is_unavailable(error.orig)
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return True
    if isinstance(error, psycopg.OperationalError):
        return error.sqlstate is None or error.sqlstate[:2] in _NOT_THE_DATA
    if isinstance(error, psycopg.errors.InFailedSqlTransaction):
        return False
    return isinstance(error, psycopg.InterfaceError)


class Transaction:
    """One transaction of one agency (or of none, for tables without a policy)."""

    def __init__(self, connection: sa.Connection, agency: uuid.UUID | None) -> None:
        self.connection = connection
        self.agency = agency
        self._pending: list[outbox.Row] = []
        self._counts: list[tuple[telemetry.AnyCounter, int, Mapping[str, str]]] = []
        self._traceparent = ""
        self.published = 0
        """Facts of this transaction, known once it is committed."""

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """psycopg's connection, for what SQLAlchemy cannot do: pipelines and COPY. The scope is set on it."""
        driver = driver_connection(self.connection)
        _open_now(driver)
        return driver

    def execute(self, statement: sa.Executable, params: Params = None) -> sa.CursorResult[Any]:
        """Run one statement. A sequence of mappings runs it for each (executemany)."""
        return self.connection.execute(statement, params)

    def publish(
        self, message: protobuf.Message, *, case_id: uuid.UUID | None = None, partition: int | None = None
    ) -> None:
        """Publish a fact when this transaction commits; its topic is the one that carries the message's type.

        ``fact_id`` and ``agency`` are filled where empty (the message itself is not changed). The partition
        is the case's (``case_id``), or ``partition``, or that of the fact's own case or subject. A chunk
        needs ``partition`` and is cut where it is above 256 KiB. Lock the anchors of the cases first
        (``lock_anchors``). Raises ``outbox.FactTooLarge`` (512 KiB), ``outbox.WrongAgency``, ValueError.
        """
        self._traceparent = self._traceparent or telemetry.traceparent()
        self._pending += outbox.rows(
            message, agency=self.agency, case_id=case_id, partition=partition, traceparent=self._traceparent
        )

    def count(self, counter: telemetry.AnyCounter, number: int = 1, **attributes: str) -> None:
        """Add to a counter once this transaction is committed, and never when it is not."""
        if number:
            self._counts.append((counter, number, attributes))

    def copy(self, table: str, columns: Sequence[str], data: bytes | Iterable[bytes]) -> int:
        """``COPY table (columns) FROM STDIN (FORMAT csv)`` into a temporary table (COPY is refused under
        row-level security). NULL is an unquoted empty value. Returns the number of rows."""
        names = psycopg.sql.SQL(", ").join(psycopg.sql.Identifier(column) for column in columns)
        statement = psycopg.sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
            psycopg.sql.Identifier(*table.split(".")), names
        )
        with _as_sqlalchemy(), self.driver.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for block in (data,) if isinstance(data, bytes) else data:
                    copy.write(block)
            return cursor.rowcount

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part that can fail alone: on an exception its rows and its published facts are undone, and it is
        raised.
        """
        mark, counted = len(self._pending), len(self._counts)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self._pending[mark:]
            del self._counts[counted:]
            raise

    def check_constraints(self) -> None:
        """Raise now what deferred constraints would raise at COMMIT; they stay deferred."""
        driver = self.driver
        with _as_sqlalchemy(), driver.pipeline():
            queue(driver, "SAVEPOINT check_constraints")
            queue(driver, "SET CONSTRAINTS ALL IMMEDIATE")
            queue(driver, "ROLLBACK TO SAVEPOINT check_constraints")
            queue(driver, "RELEASE SAVEPOINT check_constraints")

    def _commit(self, transaction: sa.RootTransaction) -> None:
        driver = driver_connection(self.connection)
        if self._pending:
            pending, self._pending = self._pending, []
            self.published = len(pending)
            with driver.pipeline():
                if _PENDING in driver.__dict__:
                    _open(driver)
                outbox.insert(driver, pending)
                queue(driver, "COMMIT")
        transaction.commit()  # the driver sends COMMIT unless that was done
        for counter, number, attributes in self._counts:
            counter.add(number, attributes)


def driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    """psycopg's connection under a SQLAlchemy connection."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextlib.contextmanager
def begin(
    engine: sa.Engine,
    *,
    agency: uuid.UUID | None,
    opening: Callable[[psycopg.Connection[Any]], None] | None = None,
) -> Generator[Transaction]:
    """A transaction of one agency: committed when the block is left, rolled back on an exception.

    BEGIN and the scope travel with the first statement, or with those that ``opening`` queues (with
    ``queue``).
    """
    with connect(_autocommit(engine)) as connection, connection.begin() as transaction:
        driver = driver_connection(connection)
        tx = Transaction(connection, agency)
        _pend(driver, agency, begin=True)
        try:
            if opening is not None:
                with driver.pipeline():
                    _open(driver)
                    opening(driver)
            yield tx
            tx._commit(transaction)
        finally:
            driver.__dict__.pop(_PENDING, None)


@contextlib.contextmanager
def connect(engine: sa.Engine) -> Generator[sa.Connection]:
    """A connection of the pool; thrown away when it was found broken. Errors are SQLAlchemy's, whoever met
    them.
    """
    with engine.connect() as connection:
        try:
            with _as_sqlalchemy():
                yield connection
        except sqlalchemy.exc.DBAPIError as error:
            if is_unavailable(error) and not connection.invalidated:
                driver = connection.connection.driver_connection
                if driver is None or driver.closed:
                    connection.invalidate(error)
            raise


@contextlib.contextmanager
def _as_sqlalchemy() -> Generator[None]:
    """What is done beside SQLAlchemy raises the same errors as what is done through it."""
    try:
        yield
    except psycopg.Error as error:
        raise sqlalchemy.exc.DBAPIError.instance(None, None, error, psycopg.Error) from error


def read(
    engine: sa.Engine,
    *,
    agency: uuid.UUID | None,
    statement: sa.Executable,
    params: Mapping[str, Any] | None = None,
) -> list[sa.Row[Any]]:
    """One query of one agency in one round trip (architecture §8): scope and statement travel together.

    It only reads: after a restart of the database it is asked a second time on a new connection.

    Build the statement once, with ``bindparam``: one that comes again is compiled once and then goes past
    SQLAlchemy to the driver (a third of the cost). One built for the call is run by SQLAlchemy, with its cache.
    For a list of values use ``column == sa.any_(sa.bindparam(..))``.
    """
    if (known := _known(engine, statement)) is not None:
        return known.run(engine, agency, params)
    with connect(_autocommit(engine)) as connection:
        driver = driver_connection(connection)
        # autocommit inside a pipeline: everything up to the sync is one implicit transaction, so the setting
        # is local to it and there is neither BEGIN nor COMMIT to wait for
        _pend(driver, agency, begin=False)
        try:
            return list(connection.execute(statement, params).all())
        finally:
            driver.__dict__.pop(_PENDING, None)


class _Compiled:
    """A statement as text for the driver, with SQLAlchemy's conversions of parameters and columns."""

    def __init__(self, compiled: Any, dialect: Any) -> None:
        self._text: str = compiled.string
        self._params: Callable[[Any], dict[str, Any]] = compiled.construct_params
        self._convert: Mapping[str, Callable[[Any], Any]] = compiled._bind_processors
        columns = compiled._result_columns or ()
        self._dialect = dialect
        self._types = [column.type for column in columns]
        self._processors: list[Callable[[Any], Any] | None] | None = None
        self._metadata = (
            SimpleResultMetaData(
                [column.keyname for column in columns], extra=[column.objects for column in columns]
            )
            if columns
            else None
        )

    @classmethod
    def of(cls, engine: sa.Engine, statement: Any) -> _Compiled | None:
        """None where the text depends on the parameters (an expanding IN)."""
        compiled = statement.compile(dialect=engine.dialect)
        if compiled.post_compile_params or compiled.literal_execute_params:
            return None
        return cls(compiled, engine.dialect)

    def run(
        self, engine: sa.Engine, agency: uuid.UUID | None, params: Mapping[str, Any] | None
    ) -> list[sa.Row[Any]]:
        values = self._params(params)
        for name, convert in self._convert.items():
            values[name] = convert(values[name])
        waited = bool(_readers.get(engine))
        try:
            return self._run(engine, agency, values)
        except sqlalchemy.exc.DBAPIError as error:
            if not (waited and error.connection_invalidated):
                raise
            # the database was started again since the last read: all that waited are closed, ask once more
            return self._run(engine, agency, values)

    def _run(
        self, engine: sa.Engine, agency: uuid.UUID | None, values: Mapping[str, Any]
    ) -> list[sa.Row[Any]]:
        driver = _reader(engine)
        try:
            with driver.pipeline():
                queue(driver, _SCOPE, ("" if agency is None else str(agency),))
                cursor = queue(driver, self._text, values)
            rows = cursor.fetchall()
            if self._processors is None:  # a numeric column's goes by what the driver says it is
                self._processors = [
                    kind._cached_result_processor(self._dialect, column.type_code)
                    for kind, column in zip(self._types, cursor.description or (), strict=False)
                ]
            metadata = self._metadata
            if metadata is None:
                metadata = self._metadata = SimpleResultMetaData(
                    [column.name for column in cursor.description or ()]
                )
        except psycopg.Error as error:
            if driver.closed:
                _close_readers(engine)  # those that wait broke with it
            raise sqlalchemy.exc.DBAPIError.instance(
                self._text, None, error, psycopg.Error, connection_invalidated=driver.closed
            ) from error
        finally:
            if driver.pgconn.transaction_status == _IDLE:
                _readers[engine].append(driver)
            else:
                driver.close()
        if any(self._processors):
            rows = [
                tuple(
                    value if process is None else process(value)
                    for process, value in zip(self._processors, row, strict=True)
                )
                for row in rows
            ]
        result: list[sa.Row[Any]] = list(IteratorResult(metadata, iter(rows)).all())  # type: ignore[arg-type]
        return result


_IDLE = psycopg.pq.TransactionStatus.IDLE
_readers: weakref.WeakKeyDictionary[sa.Engine, collections.deque[psycopg.Connection[Any]]] = (
    weakref.WeakKeyDictionary()
)
"""Connections in autocommit that wait for the next read. Taking one from SQLAlchemy's pool, switching it to
autocommit and back, and resetting it cost as much as the read itself. There are as many as threads that ever
read at the same time.
"""


def _reader(engine: sa.Engine) -> psycopg.Connection[Any]:
    """A connection in autocommit, of nobody else: one that waits, or a new one, made as the engine's are."""
    waiting = _readers.setdefault(engine, collections.deque())
    try:
        return waiting.pop()
    except IndexError:
        pooled = engine.raw_connection()
    driver = pooled.driver_connection
    assert isinstance(driver, psycopg.Connection)
    pooled.detach()
    driver.autocommit = True
    return driver


def _close_readers(engine: sa.Engine) -> None:
    waiting = _readers.get(engine, ())
    while waiting:
        waiting.pop().close()


_Seen = dict[int, tuple[weakref.ref[Any], _Compiled | bool | None]]
_seen: _Seen = {}
"""Statements by id: False when seen once, then what they were compiled to (None: cannot be)."""


def _known(engine: sa.Engine, statement: sa.Executable) -> _Compiled | None:
    key = id(statement)
    entry = _seen.get(key)
    if entry is None or entry[0]() is not statement:
        # the dictionary goes with it: when the process ends, names of modules are gone before the last statements
        _seen[key] = (weakref.ref(statement, functools.partial(_forget, _seen, key)), False)
        return None
    compiled = entry[1]
    if isinstance(compiled, bool):
        compiled = _Compiled.of(engine, statement)
        _seen[key] = (entry[0], compiled)
    return compiled


def _forget(seen: _Seen, key: int, gone: weakref.ref[Any]) -> None:
    entry = seen.get(key)
    if entry is not None and entry[0] is gone:
        del seen[key]


@functools.lru_cache(maxsize=64)
def _autocommit(engine: sa.Engine) -> sa.Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def lock_anchors(
    tx: Transaction, table: str, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, column: str = "case_id"
) -> set[uuid.UUID]:
    """Lock the anchor rows of these cases, in id order, until the transaction ends. Returns the ids that
    exist.

    Before publishing for a case its anchor is locked: outbox ids, given after the lock, are then in the order
    in which the case changed (architecture §5). ``column`` is the table's case id: ``case_id``, or ``id`` in
    the table ``cases``.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return set()
    rows = tx.execute(_lock(table, column), {"agency": agency, "ids": wanted})
    return {row[0] for row in rows}


@functools.cache
def _lock(table: str, column: str) -> sa.Executable:
    anchor = sa.table(table, sa.column("agency", sa.Uuid), sa.column(column, sa.Uuid))
    key = anchor.c[column]
    return (
        sa.select(key)
        .where(
            # in a sub-query, as in the policy: a value that the statistics have not seen misleads the planner
            anchor.c.agency == sa.select(sa.cast(sa.bindparam("agency"), sa.Uuid)).scalar_subquery(),
            key == sa.any_(sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid))),
        )
        .order_by(key)
        .with_for_update()
    )


def policy_sql(table: str) -> str:
    """DDL of the row-level security of a table with a column ``agency uuid`` (architecture §5), for a
    migration.

    The service's role is not the owner, so the policy binds it; the owner (migrations, SECURITY DEFINER) sees
    all rows.
    """
    scope = "agency = (SELECT nullif(current_setting('app.agency', true), '')::uuid)"
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY agency_scope ON {table} USING ({scope}) WITH CHECK ({scope})"
    )
