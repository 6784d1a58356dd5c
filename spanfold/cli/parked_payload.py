"""What a parked record carried: as far as it can be decoded, and byte by byte."""

import math
from collections.abc import Iterator
from typing import Any, Final

from spanfold.language.errors import PoisonRecord
from spanfold.language.ids import id_text
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import FRAME_BYTES, MAGIC, Codec

BYTES_A_LINE: Final = 16


def decoded(payload: bytes | None) -> dict[str, Any]:
    """`schema_id` and `event_type` of the schema, `fields` as Avro has them (times in µs since 1970 UTC); None where it
    can't be told, and then `error` says why.
    """
    known: dict[str, Any] = {**_schema(payload), "fields": None, "error": None}
    try:
        known["event_type"], fields = Codec().decode(payload)
    except PoisonRecord as poison:
        return {**known, "error": str(poison)}
    return {**known, "fields": {name: _shown(name, value) for name, value in fields.items()}}


def _schema(payload: bytes | None) -> dict[str, Any]:
    """What the frame says, if there is one."""
    if payload is None or len(payload) < FRAME_BYTES or payload[0] != MAGIC:
        return {"schema_id": None, "event_type": None}
    schema_id = int.from_bytes(payload[1:FRAME_BYTES], "big")
    entry = committed().by_id(schema_id)
    return {"schema_id": schema_id, "event_type": entry.event_type if entry else None}


def _shown(name: str, value: Any) -> Any:
    """The value for JSON: the id as a UUID, numbers that JSON lacks as the texts NaN, Infinity and -Infinity."""
    match value:
        case bytes():
            return id_text(value) if name == "event_id" else value.hex()
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        case dict():
            return {key: _shown("", item) for key, item in value.items()}
        case list():
            return [_shown("", item) for item in value]
        case _:
            return value


def hex_dump(payload: bytes) -> Iterator[str]:
    """Lines of 16 bytes: the offset, the bytes, and what they are in ASCII."""
    for at in range(0, len(payload), BYTES_A_LINE):
        piece = payload[at : at + BYTES_A_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"{at:08x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{ascii_text}|"
