"""A gRPC service for tests of servicekit, from echo.proto beside it, and keys and settings to run it with.

`python -m support.echo` serves it as a process of its own, with the RECUPERA_* variables of `environ`.
"""

import atexit
import importlib
import importlib.resources
import logging
import shutil
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import grpc
from grpc_tools import protoc

from servicekit import auth, client, db, errors, rpc, settings

HERE = Path(__file__).parent
SERVICE = "echo.v1.EchoService"
SECRET = "Joana Prado 123.456.789-09"  # stands for personal data in the text of an exception

_generated = Path(tempfile.mkdtemp(prefix="echo-"))
atexit.register(shutil.rmtree, _generated, ignore_errors=True)
protoc.main(
    [
        "protoc",
        f"-I{HERE}",
        f"-I{HERE.parents[1] / 'protos'}",
        f"-I{sysconfig.get_paths()['purelib']}",
        f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        f"--python_out={_generated}",
        f"--grpc_python_out={_generated}",
        "echo.proto",
    ]
)
sys.path.insert(0, str(_generated))
pb2: Any = importlib.import_module("echo_pb2")
pb2_grpc: Any = importlib.import_module("echo_pb2_grpc")


class ThingAlreadyClosed(errors.ServiceError):
    """The thing is closed."""

    status = errors.Status.FAILED_PRECONDITION


class EchoServicer(pb2_grpc.EchoServiceServicer):  # type: ignore[misc]
    """Does what `text` says; otherwise gives back what came, and who called."""

    def __init__(self, other: client.Channel | None = None) -> None:
        self.other = other
        self.started = threading.Semaphore(0)
        self.release = threading.Event()
        self.finished = threading.Semaphore(0)

    def GetThing(self, request: Any, context: grpc.ServicerContext) -> Any:
        """`<error>`, `wait` (until released), `who`, `method`, `remote:<text>`, or an echo."""
        match request.text:
            case "who":
                who = rpc.caller()
                return pb2.Thing(
                    name=who.subject, text=f"{who.agency} {who.creditor} {who.service} {sorted(who.scopes)}"
                )
            case "method":
                return pb2.Thing(name=rpc.method())
            case "wait":
                self.started.release()
                self.release.wait(30)
                self.finished.release()
            case text if text.startswith("wait:"):  # in a process of its own: files say what happens
                Path(text.removeprefix("wait:") + ".started").touch()
                while not Path(text.removeprefix("wait:")).exists():
                    self.release.wait(0.01)
            case text if text.startswith("remote:"):
                assert self.other is not None
                remote = pb2_grpc.EchoServiceStub(self.other.grpc)
                inner = pb2.GetThingRequest(name=request.name, text=text.removeprefix("remote:"))
                return self.other.call(remote.GetThing, inner, agency=rpc.caller().agency, timeout=5)
            case text:
                self.fail(text)
        return pb2.Thing(name=request.name, text=request.text)

    def fail(self, text: str) -> None:
        """Raise what `text` names."""
        match text:
            case "crash":
                raise RuntimeError(SECRET)
            case "missing":
                raise errors.ResourceNotFound("no such thing", thing="17")
            case "closed":
                raise ThingAlreadyClosed("the thing is closed", state="CLOSED")
            case "fields":
                raise errors.InvalidRequest(
                    fields=[
                        errors.FieldViolation("terms[0].rate", "expected 0 to 100"),
                        errors.FieldViolation("name", "x"),
                    ]
                )
            case "thousand fields":
                raise errors.InvalidRequest(
                    "ç" * 5_000,
                    fields=[errors.FieldViolation(f"rows[{at}]", "é" * 1_000) for at in range(1_000)],
                )
            case "database":
                nowhere = db.create_engine("postgresql://u:p@127.0.0.1:1/nothing", application_name="test")
                with db.begin(nowhere, agency=None):
                    pass

    def ListThings(self, request: Any, context: grpc.ServicerContext) -> Any:
        """An echo."""
        return pb2.ListThingsResponse(next_page_token=request.parent)

    def UpdateThing(self, request: Any, context: grpc.ServicerContext) -> Any:
        """An echo."""
        return request.thing

    def ResetThings(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Nothing."""
        return pb2.ListThingsResponse()

    def ReserveThing(self, request: Any, context: grpc.ServicerContext) -> Any:
        """An echo."""
        return pb2.Thing(name=request.name)

    def UploadThing(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """The size of all chunks together."""
        self.started.release()
        try:
            return pb2.Thing(size=sum(len(request.chunk) for request in requests))
        finally:
            self.finished.release()

    def DownloadThing(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Three things; with a text `wait` only after release, with an error's name the error after two."""
        yield pb2.Thing(size=0)
        yield pb2.Thing(size=1)
        if request.text == "wait":
            self.started.release()
            while context.is_active() and not self.release.is_set():
                self.release.wait(0.01)
            self.finished.release()
        self.fail(request.text)
        yield pb2.Thing(size=2, text=rpc.caller().subject)

    def Talk(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """The size of each chunk."""
        for request in requests:
            yield pb2.Thing(size=len(request.chunk))


class Keys:
    """A JWKS with the issuer's key and those of some services, in files under `folder`."""

    def __init__(self, folder: Path, services: Sequence[str] = ("echo", "other")) -> None:
        self.folder = folder
        self.issuer = auth.generate_key()
        self.services = {name: auth.generate_key(auth.SERVICE_ISSUER + name) for name in services}
        self.jwks_file = folder / "jwks.json"
        self.publish()
        for name, key in self.services.items():
            auth.write_key(self.key_file(name), key)

    def publish(self) -> None:
        """Write the JWKS again."""
        auth.write_jwks(self.jwks_file, [self.issuer, *self.services.values()])

    def key_file(self, service: str) -> Path:
        """Where a service's private key is."""
        return self.folder / f"{service}.key.json"

    def signer(self, service: str = "other") -> auth.Signer:
        """The signer of a service."""
        return auth.Signer(service, self.key_file(service))

    def token(self, agency: UUID, scopes: Sequence[str] = ("echo.read", "echo.write"), **claims: Any) -> str:
        """A token of a person."""
        return auth.issue(self.issuer, subject="users/7", agency=agency, scopes=scopes, **claims)

    def environ(self, **more: str) -> dict[str, str]:
        """The variables of the echo service: a free port, no drain delay."""
        return {
            "RECUPERA_DATABASE_URL_ECHO": "postgresql://nobody@127.0.0.1:1/nothing",
            "RECUPERA_KAFKA": "127.0.0.1:1",
            "RECUPERA_RPC_PORT": "0",
            "RECUPERA_DRAIN_DELAY": "0",
            "RECUPERA_JWKS_FILE": str(self.jwks_file),
            "RECUPERA_SERVICE_KEY_FILE": str(self.key_file("echo")),
            **more,
        }


class EchoSettings(settings.ServiceSettings):
    """Settings of the echo service."""

    service: ClassVar[str] = "echo"


def main() -> None:
    """Serve until SIGTERM."""
    servicer = EchoServicer()
    rpc.serve(
        settings=settings.load(EchoSettings),
        service="echo",
        add_servicers=lambda server: pb2_grpc.add_EchoServiceServicer_to_server(servicer, server),
        descriptors=[SERVICE],
        ready=lambda: True,
    )
    logging.getLogger("support.echo").info("left serve")


if __name__ == "__main__":
    main()
