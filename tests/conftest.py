"""Fixtures for every test, all on real parts, each started when a test first asks for it.

- `database("case")` -> support.databases.Database: a fresh database with the service's migrations applied, with `.url`
  (service role), `.owner_url` and `.administrator_url`. As many as a test likes, e.g. one per service.
  `database("anything", migrated=False)` is an empty one with the two roles, for tests of servicekit.
- `engine(database)` or `engine("case")` -> SQLAlchemy engine for the service role; closed after the test.
- `broker` -> recupera_local.kafka.Kafka of the run, `.bootstrap` is its address. Never stop this one.
- `topics` -> prefix (str): all topics of deploy/topics.yaml made under a prefix of this test's own, which
  RECUPERA_TOPIC_PREFIX names while the test runs. Children started by the test inherit it.
- `private_postgres`, `private_broker`: servers of this test's own, not started, for tests that kill them.
- `bed` -> recupera_local.testbed.Testbed: what the above come from.
- `whole` -> support.whole.Whole: one whole platform behind its gateway, shared by all tests that ask for it. They are
  in the files of WHOLE, which one xdist worker runs, so that it starts once.

The servers are shared by all xdist workers of a run and end with it (recupera_local/testbed.py).
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy
from xdist.scheduler import loadscope

from recupera_local import kafka, ports, postgres, testbed
from servicekit import db
from support import databases
from support import whole as whole_platform

# The gate tries the same examples each time, on machines of any speed; `--hypothesis-profile=search` tries others.
hypothesis.settings.register_profile(
    "gate", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", hypothesis.settings.get_profile("gate"), derandomize=False)
hypothesis.settings.load_profile("gate")

CONTROLLER = "RECUPERA_TEST_CONTROLLER"
WHOLE = ("tests/e2e/", "tests/contract/test_rpcs.py")


class Scheduling(loadscope.LoadScopeScheduling):  # type: ignore[misc, unused-ignore]
    """Each test goes to the next free worker, those of WHOLE all to one, first.

    Not `xdist_group`: xdist 3.8 hands a group on in an attribute of its tests that pytest 9.2 no longer has.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "whole" if nodeid.startswith(WHOLE) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """With `--dist loadgroup`, as `make test` runs, tests are dealt as Scheduling says."""
    return Scheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """tests/cluster needs a Kubernetes cluster: it runs when it is named, as `make test-cluster` does.

    pytest does not ask for what is named, nor for the folders above it.
    """
    return True if collection_path == Path(__file__).parent / "cluster" else None


def pytest_configure(config: pytest.Config) -> None:
    """Tell the xdist workers, which inherit the environment, whose run this is."""
    if not hasattr(config, "workerinput"):
        os.environ[CONTROLLER] = str(os.getpid())


@pytest.fixture(scope="session")
def bed() -> testbed.Testbed:
    """The servers of this pytest run."""
    return testbed.Testbed.of_run(int(os.environ[CONTROLLER]))


@pytest.fixture
def database(bed: testbed.Testbed) -> Iterator[Callable[..., databases.Database]]:
    """Make fresh databases: `database("case")`."""
    with ExitStack() as made:

        def make(service: str, *, migrated: bool = True) -> databases.Database:
            return made.enter_context(databases.fresh(bed, service, migrated=migrated))

        yield make


@pytest.fixture
def engine(
    database: Callable[..., databases.Database],
) -> Iterator[Callable[[databases.Database | str], sqlalchemy.Engine]]:
    """Make engines for the service role: `engine(database)` or, with a fresh database, `engine("case")`."""
    with ExitStack() as made:

        def make(where: databases.Database | str) -> sqlalchemy.Engine:
            target = database(where) if isinstance(where, str) else where
            created = db.create_engine(target.url, application_name="test")
            made.callback(created.dispose)
            return created

        yield make


@pytest.fixture(scope="session")
def broker(bed: testbed.Testbed) -> kafka.Kafka:
    """The run's Kafka."""
    return bed.broker


@pytest.fixture
def topics(broker: kafka.Kafka, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every topic of topics.yaml, made for this test; gives their prefix."""
    from servicekit import kafka as servicekit_kafka

    prefix = f"test-{secrets.token_hex(4)}."
    monkeypatch.setenv("RECUPERA_TOPIC_PREFIX", prefix)
    servicekit_kafka.create_missing(broker.bootstrap)
    return prefix


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[whole_platform.Whole]:
    """The whole platform of the end-to-end tests."""
    with whole_platform.started(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture
def private_postgres(tmp_path: Path) -> Iterator[postgres.Postgres]:
    """A PostgreSQL of this test's own: `.start()` it, and `.process.kill()` it at will."""
    server = postgres.Postgres(
        folder=tmp_path / "postgres",
        port=ports.free_ports(1)[0],
        log=tmp_path / "postgres.log",
        durable=False,
    )
    yield server
    server.process.kill()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def private_broker(tmp_path: Path) -> Iterator[kafka.Kafka]:
    """A Kafka of this test's own: `.start()` it, and `.process.kill()` it at will."""
    port, controller_port = ports.free_ports(2)
    server = kafka.Kafka(
        folder=tmp_path / "kafka", port=port, controller_port=controller_port, log=tmp_path / "kafka.log"
    )
    yield server
    server.process.kill()
    shutil.rmtree(server.folder, ignore_errors=True)
