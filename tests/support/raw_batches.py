"""Record batches made byte by byte, compressed as they are written: what they hold may be far larger than memory."""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cramjam
import zstandard
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_CHUNK: Final = 1 << 20
_HEADER: Final = struct.Struct(">qiib")
_CHECKED: Final = struct.Struct(">hiqqqhii")


@dataclass(frozen=True)
class Repeated:
    """A byte, so many times."""

    byte: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def chunks(self) -> Iterator[bytes]:
        whole, rest = divmod(self.size, _CHUNK)
        chunk = self.byte * min(self.size, _CHUNK)
        for _ in range(whole):
            yield chunk
        yield self.byte * rest


Bytes = bytes | Repeated | None


@dataclass(frozen=True)
class RawRecord:
    key: Bytes
    value: Bytes
    headers: Sequence[tuple[Bytes, Bytes]] = ()


def varint(number: int) -> bytes:
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def record_chunks(record: RawRecord, offset: int, at_ms: int = 0) -> Iterator[bytes]:
    """The record on the wire, in chunks of bounded size."""
    parts: list[bytes | Repeated] = [
        b"\0",
        varint(at_ms),
        varint(offset),
        *_nullable(record.key),
        *_nullable(record.value),
    ]
    parts.append(varint(len(record.headers)))
    for name, value in record.headers:
        parts += [*_nullable(name), *_nullable(value)]
    yield varint(sum(map(len, parts)))
    for part in parts:
        yield from [part] if isinstance(part, bytes) else part.chunks()


def _nullable(part: Bytes) -> list[bytes | Repeated]:
    return [varint(-1)] if part is None else [varint(len(part)), part]


def _zstd() -> tuple[bytes, Callable[[bytes], bytes], Callable[[], bytes]]:
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    return b"", stream.compress, stream.flush


def _gzip() -> tuple[bytes, Callable[[bytes], bytes], Callable[[], bytes]]:
    stream = zlib.compressobj(9, wbits=31)
    return b"", stream.compress, stream.flush


def _in_blocks(
    size: int, block: Callable[[bytes], bytes], end: bytes
) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    left = bytearray()

    def write(chunk: bytes) -> bytes:
        left.extend(chunk)
        out = []
        while len(left) >= size:
            out.append(block(bytes(left[:size])))
            del left[:size]
        return b"".join(out)

    return write, lambda: (block(bytes(left)) if left else b"") + end


def _snappy() -> tuple[bytes, Callable[[bytes], bytes], Callable[[], bytes]]:
    def block(plain: bytes) -> bytes:
        packed = bytes(cramjam.snappy.compress_raw(plain))
        return struct.pack(">i", len(packed)) + packed

    return (b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1), *_in_blocks(32 * 1024, block, b""))


def _lz4() -> tuple[bytes, Callable[[bytes], bytes], Callable[[], bytes]]:
    def block(plain: bytes) -> bytes:
        packed = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        return struct.pack("<I", len(packed)) + packed

    # version 1, independent blocks of at most 4 MiB; the last byte is the header's checksum (xxh32 of the two before)
    return (bytes.fromhex("04224d18607073"), *_in_blocks(4 << 20, block, bytes(4)))


_COMPRESSORS: Final = {"zstd": _zstd, "gzip": _gzip, "snappy": _snappy, "lz4": _lz4}


def record_batch(records: Iterable[RawRecord], codec: str = "zstd", at_ms: int = 1_763_000_000_000) -> bytes:
    """One batch of them all, which begins at offset 0; the broker gives it its place."""
    number = 0

    def chunks() -> Iterator[bytes]:
        nonlocal number
        for number, record in enumerate(records, 1):
            yield from record_chunks(record, number - 1)

    if codec == "none":
        body = b"".join(chunks())
    else:
        begin, write, finish = _COMPRESSORS[codec]()
        body = b"".join([begin, *map(write, chunks()), finish()])
    checked = _CHECKED.pack(CODECS[codec], number - 1, at_ms, at_ms, -1, -1, -1, number) + body
    # base offset, length from the leader epoch on, leader epoch, magic
    return _HEADER.pack(0, 9 + len(checked), -1, 2) + struct.pack(">I", calc_crc32c(checked)) + checked


async def produce_raw(bootstrap: str, topic: str, partition: int, batch: bytes) -> int:
    """Have the broker append the batch; returns its first offset."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        client.set_topics([topic])
        await client.force_metadata_update()
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(None, -1, 120_000, [(topic, [(partition, batch)])])
        response: Any = await client.send(leader, request)
        ((_, [(_, error, offset, *_)]),) = response.topics
        assert error == 0, f"Kafka refused the batch with error {error}"
        return int(offset)
    finally:
        await client.close()
