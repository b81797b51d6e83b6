"""What a person is told when the platform cannot start: what is wrong, and what to do."""

import os
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from recupera_local import kafka, paths, platform, ports

Usage = namedtuple("Usage", "total used free")
CHECK = paths.REPO / "deploy" / "local" / "check_tools.sh"


def made(folder: Path) -> platform.Platform:
    """A platform that is not started."""
    return platform.Platform(state_dir=folder, ports=ports.free())


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5_000_000))
    with pytest.raises(platform.DiskFull, match="only 5 MB are free") as refused:
        made(tmp_path).start()
    assert str(tmp_path) in str(refused.value)
    assert "RECUPERA_LOCAL_DIR" in str(refused.value)


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(kafka.JavaMissing, match="apt install openjdk-17-jre-headless"):
        kafka.Kafka(folder=tmp_path, port=1, controller_port=2, log=tmp_path / "log").prepare()


def test_no_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "KAFKA_LIBS", tmp_path)
    with pytest.raises(kafka.JarsMissing, match="make setup"):
        kafka.Kafka(folder=tmp_path, port=1, controller_port=2, log=tmp_path / "log").prepare()


def test_unknown_process(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no process 'case\.workers'"):
        made(tmp_path).kill("case.workers")


# ---- make setup --------------------------------------------------------------------------------------------------


def tools(folder: Path, **programs: str) -> Path:
    """A folder for PATH with only these programs (the body of each in sh), and what the check itself needs."""
    folder.mkdir()
    for needed in ("bash", "sed", "head", "df", "awk", "sh", "env"):
        found = shutil.which(needed)
        assert found
        (folder / needed).symlink_to(found)
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def check(path: Path, python: str = "python3") -> tuple[int, str]:
    """The check's exit code and what it says."""
    answer = subprocess.run(
        [str(CHECK)], env={"PATH": str(path), "PYTHON": python}, capture_output=True, text=True, check=False
    )
    return answer.returncode, answer.stderr


GOOD = {
    "python3": "exit 0",
    "java": "echo 'openjdk version \"17.0.15\"' >&2",
    "mvn": "exit 0",
    "git": "exit 0",
}


def test_all_tools_are_there(tmp_path: Path) -> None:
    assert check(tools(tmp_path / "bin", **GOOD)) == (0, "")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("python3", "no 'python3' found"),
        ("java", "no 'java' found"),
        ("mvn", "no 'mvn' found"),
        ("git", "no 'git' found"),
    ],
)
def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, missing: str, said: str) -> None:
    code, text = check(
        tools(tmp_path / "bin", **{name: body for name, body in GOOD.items() if name != missing})
    )
    assert code == 1
    assert said in text
    assert "apt install" in text


def test_an_old_java_and_an_old_python_are_named(tmp_path: Path) -> None:
    old = {
        "java": "echo 'openjdk version \"11.0.2\"' >&2",
        "python3": '[ "$1" = --version ] && echo Python 3.9; exit 1',
    }
    code, text = check(tools(tmp_path / "bin", **(GOOD | old)))
    assert code == 1
    assert "'java' is version 11, Kafka needs 17" in text
    assert "'python3' is Python 3.9, 3.11 or newer is needed" in text


def test_the_check_passes_here() -> None:
    answer = subprocess.run([str(CHECK)], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
