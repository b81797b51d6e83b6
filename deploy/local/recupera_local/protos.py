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

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from recupera_local import paths

_RULES = ("--config", str(paths.PROTOS / "buf.yaml"))
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
        (new / "recupera").mkdir()
        files = sources(protos)
        if files:
            outputs = [f"--{name}_out={new}" for name in ("python", "grpc_python")]
            stubs = [f"--{name}_out=quiet:{new}" for name in ("mypy", "mypy_grpc")]
            _protoc(protos, [*outputs, *stubs, *files])
        _protoc(
            protos,
            [
                f"--descriptor_set_out={new / 'recupera' / 'descriptor.pb'}",
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
        if to.exists() and (
            subprocess.run(breaking(new, to), check=False).returncode or http_changes(new, to)
        ):
            raise ProtocFailed(f"that would break what {to.name} holds: see above, or `make lint`")
        shutil.copyfile(new, to)


def check(*, descriptor: Path = paths.DESCRIPTOR, released: Path = paths.RELEASED) -> None:
    """buf lint, and nothing that was released is broken: by name and number, or by HTTP path. Raises ProtocFailed."""
    if not released.exists():
        raise ProtocFailed(f"there is no {released}: `make release-protos` makes it from today's contracts")
    linted = subprocess.run([_buf(), "lint", f"{descriptor}#format=binpb", *_RULES], check=False).returncode
    broken = subprocess.run(breaking(descriptor, released), check=False).returncode
    changed = http_changes(descriptor, released)
    print("".join(f"{line}\n" for line in changed), end="", file=sys.stderr)
    if linted or broken or changed:
        raise ProtocFailed("the contracts are not in order: see above")


def breaking(new: Path, old: Path) -> list[str]:
    """The command that compares two descriptor sets; it fails where `new` breaks what `old` promised."""
    return [_buf(), "breaking", f"{new}#format=binpb", "--against", f"{old}#format=binpb", *_RULES]


def http_changes(new: Path, old: Path) -> list[str]:
    """What `buf breaking` does not see: methods of `old` that `new` serves at another path, or no longer by HTTP."""
    rules, before = _http_rules(new), _http_rules(old)
    return [
        f"{method}: google.api.http was `{rule}` when it was released and is `{rules.get(method, 'gone')}`"
        for method, rule in before.items()
        if rules.get(method) != rule
    ]


def _http_rules(descriptor: Path) -> dict[str, str]:
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor.read_bytes())
    return {
        f"{file.package}.{service.name}.{method.name}": str(
            method.options.Extensions[annotations_pb2.http]
        ).strip()
        for file in files.file
        for service in file.service
        for method in service.method
        if method.options.HasExtension(annotations_pb2.http)
    }


def _buf() -> str:
    return str(Path(sysconfig.get_paths()["scripts"]) / "buf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate code and the descriptor set from protos/."""
    parser = argparse.ArgumentParser(prog="python -m recupera_local.protos", description=main.__doc__)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="lint the contracts and compare with the released ones"
    )
    instead.add_argument(
        "--release", action="store_true", help="keep today's contracts as protos/released.binpb"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.release:
            release()
        elif chosen.check:
            check()
        else:
            generate()
    except ProtocFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
