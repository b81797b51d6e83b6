"""Good rows cut into slices: those of one debtor in one partition, at most `domain.SLICE_ROWS` rows, as Arrow IPC."""

from __future__ import annotations

import dataclasses
import io
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import polars as pl

from import_service import domain

COMPRESSION: Literal["lz4"] = "lz4"
"""Of the Arrow buffers: readers undo it by themselves; a third of the bytes to store and send."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """`arrow`: an Arrow IPC stream of `rows` rows, all of `partition`."""

    partition: int
    rows: int
    arrow: bytes


def partition_of(agency: uuid.UUID, key: str, partitions: int) -> int:
    """crc32(agency bytes, key) mod partitions (architecture.md §6)."""
    return zlib.crc32(key.encode(), zlib.crc32(agency.bytes)) % partitions


class Cutter:
    """Collects good rows by partition and gives slices as they fill; what waits is kept as compressed Arrow."""

    def __init__(self, *, agency: uuid.UUID, partitions: int, kind: domain.Kind) -> None:
        self._seed = zlib.crc32(agency.bytes)
        self._partitions = partitions
        self._kind = kind
        self._waiting: list[list[bytes]] = [[] for _ in range(partitions)]
        self._rows = [0] * partitions

    def add(self, frame: pl.DataFrame) -> Iterator[Slice]:
        """Take rows; slices that are full come out."""
        if frame.is_empty():
            return
        seed, partitions = self._seed, self._partitions
        keys = self._keys(frame)
        placed = frame.with_columns(
            pl.Series(
                "partition", [zlib.crc32(key.encode(), seed) % partitions for key in keys], dtype=pl.UInt32
            )
        )
        for (partition,), part in placed.partition_by("partition", as_dict=True, include_key=False).items():
            index = int(partition)
            self._waiting[index].append(_pack(part))
            self._rows[index] += part.height
            while self._rows[index] >= domain.SLICE_ROWS:
                yield self._cut(index)

    def rest(self) -> Iterator[Slice]:
        """The slices that are left when the file is read."""
        for index in range(self._partitions):
            if self._rows[index]:
                yield self._cut(index)

    def _keys(self, frame: pl.DataFrame) -> Iterable[str]:
        if self._kind is domain.Kind.PORTFOLIO:
            return frame["debtor_document"]
        return frame.select(
            pl.concat_str(
                "creditor_reference",
                pl.coalesce("title_reference", "contract_reference", "txid", "our_number", pl.lit("")),
                separator="\x1f",
            ).alias("key")
        )["key"]

    def _cut(self, index: int) -> Slice:
        frame = unpack(self._waiting[index])
        head, tail = frame.head(domain.SLICE_ROWS), frame.slice(domain.SLICE_ROWS)
        self._waiting[index] = [_pack(tail)] if tail.height else []
        self._rows[index] = tail.height
        return Slice(partition=index, rows=head.height, arrow=_pack(head))


def _pack(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.rechunk().write_ipc_stream(out, compression=COMPRESSION)
    return out.getvalue()


def unpack(packed: Sequence[bytes]) -> pl.DataFrame:
    """The rows of Arrow IPC streams of the same columns, in order."""
    return pl.concat([pl.read_ipc_stream(io.BytesIO(one)) for one in packed], rechunk=True)


def amounts_of(arrow: bytes, rows: Sequence[int]) -> dict[str, int]:
    """Minor units by currency of these rows of a slice."""
    frame = unpack([arrow])
    name = "principal_minor" if "principal_minor" in frame.columns else "amount_minor"
    chosen = frame.filter(pl.col("row").is_in(list(rows)))
    return dict(chosen.group_by("currency").agg(pl.col(name).sum()).iter_rows())
