"""The shape holds by machine: each rule of architecture.md §4 is broken on a copy, and lint refuses the copy."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recupera_local import paths, ports

SCRIPTS = Path(sys.executable).parent
PACKAGES = {
    "servicekit": Path("lib/servicekit"),
    "recupera_gateway": Path("deploy/gateway"),
    "recupera_local": Path("deploy/local"),
    **{f"{service}_service": Path("services") / service for service in ports.SERVICES},
}


@dataclass(frozen=True)
class Copy:
    """A copy of the code that lint looks at."""

    root: Path

    def module(self, name: str) -> Path:
        """The file of a module, whether it is one file or a package."""
        parts = name.split(".")
        base = self.root / PACKAGES[parts[0]] / Path(*parts)
        return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")

    def lint_imports(self, *contracts: str) -> subprocess.CompletedProcess[str]:
        """Run import-linter on the copy; by id, only these contracts."""
        chosen = [part for contract in contracts for part in ("--contract", contract)]
        return subprocess.run(
            [str(SCRIPTS / "lint-imports"), "--cache-dir", str(self.root / "cache"), *chosen],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(self.root / folder) for folder in PACKAGES.values()),
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The code as it is."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copy(paths.REPO / "pyproject.toml", root)
    for package, folder in PACKAGES.items():
        shutil.copytree(
            paths.REPO / folder / package,
            root / folder / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    return Copy(root)


@pytest.fixture
def copy(pristine: Copy) -> Iterator[Copy]:
    """The copy, put right again after the test."""
    before = {path: path.read_text() for path in pristine.root.rglob("*.py")}
    yield pristine
    for path in set(pristine.root.rglob("*.py")) - set(before):
        path.unlink()
    for path, text in before.items():
        if path.read_text() != text:
            path.write_text(text)


def test_the_code_as_it_is_keeps_every_rule(pristine: Copy) -> None:
    answer = pristine.lint_imports()
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("services", "agreement_service.usecases", "import case_service.domain"),
        ("services", "case_service.providers", "from notify_service import store"),
        ("sql", "case_service.usecases", "import sqlalchemy"),
        ("sql", "notify_service.rpc", "from sqlalchemy import select"),
        ("sql", "dialer_service.worker", "import psycopg"),
        ("grpc", "agreement_service.usecases", "import grpc"),
        ("grpc", "import_service.providers", "from grpc import StatusCode"),
        ("messaging", "dialer_service.usecases", "import nameko"),
        ("messaging", "notify_service.rpc", "import eventlet"),
        ("messaging", "case_service.store", "import kafka"),
        ("layers", "case_service.store", "import case_service.usecases"),
        ("layers", "agreement_service.domain", "import agreement_service.store"),
        ("layers", "dialer_service.usecases", "from dialer_service import rpc"),
        ("layers", "notify_service.rpc", "import notify_service.worker"),
        ("layers", "import_service.store", "import import_service.providers"),
        ("layers", "case_service.domain", "import case_service.settings"),
        ("domain", "agreement_service.domain", "from servicekit import db"),
        ("domain", "case_service.domain", "from recupera.case.v1 import case_pb2"),
        ("serve", "case_service.rpc", "from servicekit import host"),
        ("serve", "dialer_service.usecases", "import servicekit.host"),
        ("worker", "dialer_service.worker", "import servicekit.rpc"),
        ("servicekit", "servicekit.money", "import case_service.domain"),
        ("servicekit-sql", "servicekit.money", "import sqlalchemy"),
        ("servicekit-grpc", "servicekit.errors", "import grpc"),
        ("servicekit-messaging", "servicekit.db", "import eventlet"),
        ("local", "import_service.usecases", "import recupera_local.paths"),
    ],
)
def test_lint_refuses_an_import(copy: Copy, contract: str, module: str, line: str) -> None:
    file = copy.module(module)
    file.write_text((file.read_text() if file.exists() else "") + f"\n{line}\n")
    answer = copy.lint_imports(contract)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "BROKEN" in answer.stdout
    assert module in answer.stdout


def test_lint_refuses_a_module_of_another_name(copy: Copy) -> None:
    (copy.root / PACKAGES["case_service"] / "case_service" / "helpers.py").write_text(
        '"""Everything else."""\n'
    )
    answer = copy.lint_imports("layers")
    assert answer.returncode == 1
    assert "helpers" in answer.stdout


@pytest.mark.parametrize(
    "line",
    [
        "now = datetime.datetime.now(datetime.UTC)",
        "today = datetime.date.today()",
        "now = time.time()",
    ],
)
def test_lint_refuses_a_clock(copy: Copy, line: str) -> None:
    file = copy.root / PACKAGES["case_service"] / "case_service" / "domain" / "clocked.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'"""A rule."""\n\nimport datetime\nimport time\n\nused = (datetime, time)\n{line}\n')
    answer = subprocess.run(
        [str(SCRIPTS / "ruff"), "check", "--no-cache", "--select", "TID251", str(file)],
        cwd=copy.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout
    assert "time is an argument" in answer.stdout


def test_checksums_are_computed_in_c() -> None:
    """Without it Kafka's records are summed in Python: 3 MB/s instead of 161 (platform.md)."""
    assert importlib.import_module("crc32c").crc32c(b"123456789") == 0xE3069283
    assert importlib.import_module("kafka.record.util").crc32c_c is not None


def test_nothing_is_monkey_patched() -> None:
    code = [path for folder in ("lib", "services") for path in (paths.REPO / folder).rglob("*.py")]
    assert code
    assert not [path for path in code if "monkey_patch" in path.read_text()]


@pytest.mark.parametrize("service", ports.SERVICES)
@pytest.mark.parametrize(
    ("module", "never"), [("rpc", ["eventlet", "nameko"]), ("worker", ["servicekit.rpc", "grpc._server"])]
)
def test_what_a_process_loads(service: str, module: str, never: list[str]) -> None:
    program = (
        f"import sys, {service}_service.{module}; print([name for name in {never!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"
