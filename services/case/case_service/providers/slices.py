"""Slices of portfolio files, fetched from the import service and turned into the CSV that COPY takes."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from typing import Protocol

import polars as pl

from recupera.imports.v1 import imports_service_pb2, imports_service_pb2_grpc
from servicekit import client, names

TIMEOUT = 60.0
"""Seconds for one slice."""


class Slices(Protocol):
    """Where slices come from."""

    def fetch(self, agency: uuid.UUID, *, batch_id: uuid.UUID, slice_: int, columns: Sequence[str]) -> bytes:
        """The slice's rows as CSV without header, columns in this order, null as nothing. Raises
        RemoteUnavailable.
        """
        ...


class RemoteSlices:
    """Slices at the import service."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = imports_service_pb2_grpc.ImportServiceStub(channel.grpc)

    def fetch(self, agency: uuid.UUID, *, batch_id: uuid.UUID, slice_: int, columns: Sequence[str]) -> bytes:
        """FetchSlice, then ``csv``."""
        request = imports_service_pb2.FetchSliceRequest(
            name=names.format("agencies/{agency}/batches/{batch}", agency=agency, batch=batch_id),
            slice=slice_,
        )
        parts = self._channel.stream(self._stub.FetchSlice, request, agency=agency, timeout=TIMEOUT)
        return csv(b"".join(part.arrow_ipc for part in parts), columns)


def csv(arrow_ipc: bytes, columns: Sequence[str]) -> bytes:
    """Arrow IPC stream -> CSV for ``COPY .. FORMAT csv``: null is nothing, an empty text is quoted."""
    frame = pl.read_ipc_stream(io.BytesIO(arrow_ipc)).select(columns)
    out = io.BytesIO()
    frame.write_csv(out, include_header=False, quote_style="necessary", null_value="")
    return out.getvalue()
