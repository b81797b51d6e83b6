"""Code from the contracts: what is written, what is left alone, and what is refused."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from recupera_local import protos

THING = 'syntax = "proto3";\npackage recupera.thing.v1;\n// A thing.\nmessage Thing { string name = 1; }\n'


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """A folder of contracts with one file."""
    folder = tmp_path / "protos" / "recupera" / "thing" / "v1"
    folder.mkdir(parents=True)
    (folder / "thing.proto").write_text(THING)
    return tmp_path / "protos"


def test_code_stubs_and_descriptor_set_are_written(contracts: Path, tmp_path: Path) -> None:
    out = tmp_path / "gen"
    protos.generate(protos=contracts, out=out)
    names = {path.name for path in (out / "recupera" / "thing" / "v1").iterdir()}
    assert names == {"thing_pb2.py", "thing_pb2.pyi", "thing_pb2_grpc.py", "thing_pb2_grpc.pyi"}
    described = descriptor_pb2.FileDescriptorSet.FromString((out / "recupera" / "descriptor.pb").read_bytes())
    files = {file.name: file for file in described.file}
    assert {"recupera/thing/v1/thing.proto", *protos.ERROR_PROTOS, "google/protobuf/any.proto"} <= set(files)
    comments = files["recupera/thing/v1/thing.proto"].source_code_info.location
    assert any(location.leading_comments == " A thing.\n" for location in comments)


def test_what_did_not_change_keeps_its_time_and_what_is_gone_goes(contracts: Path, tmp_path: Path) -> None:
    out = tmp_path / "gen"
    other = contracts / "recupera" / "other" / "v1" / "other.proto"
    other.parent.mkdir(parents=True)
    other.write_text(THING.replace("thing", "other"))
    protos.generate(protos=contracts, out=out)
    kept = out / "recupera" / "thing" / "v1" / "thing_pb2.py"
    before = kept.stat().st_mtime_ns
    other.unlink()
    protos.generate(protos=contracts, out=out)
    assert kept.stat().st_mtime_ns == before
    assert not (out / "recupera" / "other").exists()


def test_a_bad_file_is_refused_and_what_was_there_stays(contracts: Path, tmp_path: Path) -> None:
    out = tmp_path / "gen"
    protos.generate(protos=contracts, out=out)
    before = (out / "recupera" / "descriptor.pb").read_bytes()
    (contracts / "recupera" / "thing" / "v1" / "thing.proto").write_text(THING + "nonsense")
    with pytest.raises(protos.ProtocFailed):
        protos.generate(protos=contracts, out=out)
    assert (out / "recupera" / "descriptor.pb").read_bytes() == before


def test_a_release_is_not_replaced_by_one_that_breaks_it(contracts: Path, tmp_path: Path) -> None:
    released = tmp_path / "released.binpb"
    protos.release(protos=contracts, to=released)
    before = released.read_bytes()
    file = contracts / "recupera" / "thing" / "v1" / "thing.proto"
    file.write_text(THING.replace("string name = 1", "int64 name = 1"))
    with pytest.raises(protos.ProtocFailed, match="break"):
        protos.release(protos=contracts, to=released)
    assert released.read_bytes() == before
    file.write_text(THING.replace("string name = 1;", "string name = 1; string more = 2;"))
    protos.release(protos=contracts, to=released)
    assert released.read_bytes() != before


SERVICE = """syntax = "proto3";
package recupera.thing.v1;
import "google/api/annotations.proto";
// Things.
service ThingService {
  // One.
  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option (google.api.http) = {get: "/v1/{name=things/*}"};
  }
}
message GetThingRequest { string name = 1; }
message GetThingResponse { string name = 1; }
"""


def test_a_changed_path_is_refused(
    contracts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = contracts / "recupera" / "thing" / "v1" / "thing_service.proto"
    file.write_text(SERVICE)
    out, released = tmp_path / "gen", tmp_path / "released.binpb"
    protos.release(protos=contracts, to=released)
    protos.generate(protos=contracts, out=out)
    protos.check(descriptor=out / "recupera" / "descriptor.pb", released=released)
    file.write_text(SERVICE.replace("things/*", "objects/*"))
    protos.generate(protos=contracts, out=out)
    with pytest.raises(protos.ProtocFailed, match="not in order"):
        protos.check(descriptor=out / "recupera" / "descriptor.pb", released=released)
    assert "recupera.thing.v1.ThingService.GetThing" in capfd.readouterr().err


def test_bad_style_is_refused(contracts: Path, tmp_path: Path) -> None:
    out, released = tmp_path / "gen", tmp_path / "released.binpb"
    protos.release(protos=contracts, to=released)
    file = contracts / "recupera" / "thing" / "v1" / "thing.proto"
    file.write_text(THING.replace("}", " string BadName = 2; }"))
    protos.generate(protos=contracts, out=out)
    with pytest.raises(protos.ProtocFailed, match="not in order"):
        protos.check(descriptor=out / "recupera" / "descriptor.pb", released=released)
