"""Kafka's codecs as streams: a batch of a few KB may hold gigabytes, and nobody knows before they are decompressed.

gzip and zstd are decompressed piece by piece. lz4 and snappy come in blocks of their own, whose size is bounded: lz4's by the
frame's header, snappy's by the format, which makes 64 bytes of three at best.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Final

import cramjam
from aiokafka.codec import _detect_xerial_stream
from aiokafka.errors import CorruptRecordException

PIECE_BYTES: Final = 256 * 1024

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
"""Codecs, as a batch's attributes name them; 0 is none."""

_XERIAL_HEADER_BYTES: Final = 16
_SNAPPY_EXPANSION: Final = 22

_LZ4_MAGIC: Final = 0x184D2204
_LZ4_BLOCK_BYTES: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_LZ4_STORED: Final = 0x8000_0000


def pieces(codec: int, data: memoryview) -> Iterator[bytes]:
    """What the compressed bytes hold, in pieces of a few MiB at most. CorruptRecordException when they can't be decompressed."""
    try:
        yield from _CODECS[codec](data)
    except KeyError:
        raise CorruptRecordException(f"unknown compression codec {codec}") from None
    except _ERRORS as error:
        raise CorruptRecordException(f"a batch can't be decompressed: {error!r}") from error


def at_most(codec: int, data: memoryview, limit: int) -> bytes | None:
    """All that the compressed bytes hold; None when that is more than `limit`. CorruptRecordException, see pieces."""
    if codec == ZSTD:
        plain = next(_zstd(data, limit + 1), b"")
        return plain if len(plain) <= limit else None
    parts, size = [], 0
    for part in pieces(codec, data):
        parts.append(part)
        size += len(part)
        if size > limit:
            return None
    return b"".join(parts)


def _zstd(data: memoryview, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    import zstandard  # here: most processes meet lz4 alone

    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    try:
        while piece := reader.read(piece_bytes):
            yield piece
    except zstandard.ZstdError as error:
        raise CorruptRecordException(f"a batch can't be decompressed: {error}") from error


def _gzip(data: memoryview) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=BytesIO(data)) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


def _snappy(data: memoryview) -> Iterator[bytes]:
    if not _detect_xerial_stream(data):
        yield _snappy_block(data)
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        yield _snappy_block(data[at : at + length])
        at += length


def _snappy_block(block: memoryview) -> bytes:
    # the block says how large it will be, and that much memory would be taken
    if cramjam.snappy.decompress_raw_len(block) > _SNAPPY_EXPANSION * len(block):
        raise CorruptRecordException("a snappy block claims more bytes than it can hold")
    return bytes(cramjam.snappy.decompress_raw(block))


def _lz4(data: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        magic, flags, descriptor = struct.unpack_from("<IBB", data, at)
        if magic != _LZ4_MAGIC or descriptor >> 4 not in _LZ4_BLOCK_BYTES:
            raise CorruptRecordException("not an lz4 frame")
        has_size, has_dictionary = flags & 0x08, flags & 0x01
        at += 7 + (8 if has_size else 0) + (4 if has_dictionary else 0)
        block = bytearray(_LZ4_BLOCK_BYTES[descriptor >> 4])
        checksum_bytes = 4 if flags & 0x10 else 0
        while (length := struct.unpack_from("<I", data, at)[0]) != 0:
            at += 4
            stored = data[at : at + (length & ~_LZ4_STORED)]
            yield bytes(stored) if length & _LZ4_STORED else _lz4_block(stored, block)
            at += len(stored) + checksum_bytes
        at += 4 + (4 if flags & 0x04 else 0)


def _lz4_block(compressed: memoryview, block: bytearray) -> bytes:
    size = cramjam.lz4.decompress_block_into(compressed, block, output_len=len(block))
    return bytes(memoryview(block)[:size])


_CODECS: Final[dict[int, Callable[[memoryview], Iterator[bytes]]]] = {
    GZIP: _gzip,
    SNAPPY: _snappy,
    LZ4: _lz4,
    ZSTD: _zstd,
    0: lambda data: iter([bytes(data)]),
}

_ERRORS: Final = (
    cramjam.DecompressionError,
    zlib.error,
    OSError,
    EOFError,
    struct.error,
    ValueError,
)
