"""The header of a record batch (magic 2), see aiokafka.record.default_records."""

import struct
from typing import Final, NamedTuple, Self

_LAYOUT: Final = struct.Struct(">qiibIhiqqqhii")
_ATTRIBUTES: Final = struct.Struct(">h")
_ATTRIBUTES_AT: Final = 21
_MAGIC_AT: Final = 16
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME_MASK: Final = 0x08

HEADER_BYTES: Final = _LAYOUT.size


class BatchHeader(NamedTuple):
    """What readers of records need of it. Times are ms since 1970 UTC; `log_append_time_ms` is None where producers set them."""

    base_offset: int
    codec: int
    first_timestamp_ms: int
    log_append_time_ms: int | None
    records: int

    @classmethod
    def of(cls, batch: memoryview) -> Self:
        """The header of these bytes of a batch."""
        base_offset, _, _, _, _, attributes, _, first, last, _, _, _, records = _LAYOUT.unpack_from(batch)
        at = last if attributes & _LOG_APPEND_TIME_MASK else None
        return cls(base_offset, attributes & _CODEC_MASK, first, at, records)


def has_header(batch: memoryview) -> bool:
    """Whether these bytes of a batch begin with such a header; older formats have others."""
    return len(batch) >= HEADER_BYTES and batch[_MAGIC_AT] == 2


def uncompressed(batch: memoryview, plain: bytes) -> bytes:
    """The batch as it is without compression. Its CRC is that of the compressed one."""
    header = bytearray(batch[:HEADER_BYTES])
    (attributes,) = _ATTRIBUTES.unpack_from(header, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(header, _ATTRIBUTES_AT, attributes & ~_CODEC_MASK)
    return bytes(header) + plain
