"""`make protos`: the Python modules, type stubs and descriptor set of every contract in protos/.

protos/gen gets `recupera/<domain>/v1/*_pb2.py`, `*_pb2.pyi`, `*_pb2_grpc.py`, `*_pb2_grpc.pyi` and `descriptor.pb`:
all files with their imports and source info (comments), and google/rpc/status.proto and error_details.proto,
without which Envoy cannot write the body of an error as JSON. Files that did not change keep their time, so that
caches stay good and a running process never sees half a file.
"""

import argparse
import fcntl
import importlib.resources
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from grpc_tools import protoc

from recupera_local import paths

ERROR_PROTOS = ("google/rpc/status.proto", "google/rpc/error_details.proto")


class ProtocFailed(Exception):
    """protoc refused the contracts; it has written why, with file and line, on stderr."""


def include_paths(protos: Path = paths.PROTOS) -> list[Path]:
    """Ours, then googleapis-common-protos (google/api, google/rpc, google/type), then protoc's own."""
    return [
        protos,
        Path(sysconfig.get_paths()["purelib"]),
        Path(str(importlib.resources.files("grpc_tools") / "_proto")),
    ]


def sources(protos: Path = paths.PROTOS) -> list[str]:
    """Our proto files, relative to `protos`, sorted."""
    return sorted(str(path.relative_to(protos)) for path in (protos / "recupera").rglob("*.proto"))


def generate(*, protos: Path = paths.PROTOS, out: Path = paths.GENERATED) -> None:
    """Write `out` from `protos`; raises ProtocFailed and leaves `out` as it was when a file does not compile."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=out, prefix=".new-") as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = Path(scratch)
        files = sources(protos)
        if files:
            outputs = [f"--{name}_out={new}" for name in ("python", "grpc_python")]
            stubs = [f"--{name}_out=quiet:{new}" for name in ("mypy", "mypy_grpc")]
            _protoc(protos, [*outputs, *stubs, *files])
        _protoc(
            protos,
            [
                f"--descriptor_set_out={new / 'descriptor.pb'}",
                "--include_imports",
                "--include_source_info",
                *files,
                *ERROR_PROTOS,
            ],
        )
        _sync(new, out)


def _protoc(protos: Path, arguments: Sequence[str]) -> None:
    scripts = Path(sysconfig.get_paths()["scripts"])
    command = [
        "protoc",
        *(f"--proto_path={path}" for path in include_paths(protos)),
        *(f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
        *arguments,
    ]
    if protoc.main(command) != 0:
        raise ProtocFailed("protoc refused a file of protos/: see above")


def _sync(new: Path, out: Path) -> None:
    """Make `out` equal to `new`, touching only files that differ."""
    wanted = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    for relative in wanted:
        target = out / relative
        if target.exists() and target.read_bytes() == (new / relative).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (new / relative).replace(target)
    for stale in (
        path
        for path in (out / "recupera").rglob("*_pb2*")
        if path.is_file() and "__pycache__" not in path.parts
    ):
        if stale.relative_to(out) not in wanted:
            stale.unlink()
    for folder in sorted((path for path in (out / "recupera").rglob("*") if path.is_dir()), reverse=True):
        if not any(path.is_file() and path.parent.name != "__pycache__" for path in folder.rglob("*")):
            shutil.rmtree(folder)


def release(*, protos: Path = paths.PROTOS, to: Path = paths.RELEASED) -> None:
    """Keep the contracts as they are now as the ones that later changes must not break (`buf breaking` in `make
    lint`, and the HTTP paths in tests/contract). Raises ProtocFailed when they break the ones kept before.
    """
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch) / "new.binpb"
        _protoc(protos, [f"--descriptor_set_out={new}", "--include_imports", *sources(protos)])
        if to.exists() and subprocess.run(breaking(new, to), check=False).returncode != 0:
            raise ProtocFailed(f"that would break what {to.name} holds: see above")
        shutil.copyfile(new, to)


def breaking(new: Path, old: Path) -> list[str]:
    """The command that compares two descriptor sets; exit code 100 where `new` breaks what `old` promised."""
    buf = str(Path(sysconfig.get_paths()["scripts"]) / "buf")
    rules = ["--config", str(paths.PROTOS / "buf.yaml")]
    return [buf, "breaking", f"{new}#format=binpb", "--against", f"{old}#format=binpb", *rules]


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate code and the descriptor set from protos/."""
    parser = argparse.ArgumentParser(prog="python -m recupera_local.protos", description=main.__doc__)
    parser.add_argument(
        "--release", action="store_true", help="keep today's contracts as protos/released.binpb instead"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.release:
            release()
        else:
            generate()
    except ProtocFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
