"""One parked record as people look at it: what is known of it, what it says, and its bytes."""

from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from spanfold.cli.output import console, one_line, table
from spanfold.operations.parked import ParkedBytes, ParkedRecord, State

DUMPED_BYTES: Final = 1024
SHOWN_CHARACTERS: Final = 1000
BYTES_A_LINE: Final = 16


def state_of(record: ParkedRecord) -> str:
    """What became of it, and at which offset."""
    if record.settled_offset is not None:
        return f"{record.state} at {record.settled_offset}"
    return record.state if record.last_tried_offset is None else f"parked, tried at {record.last_tried_offset}"


def print_record(parked: ParkedBytes, full: bool) -> None:
    """Why it was parked, what it says, and its bytes; long values are cut unless `full`."""
    screen, record = console(), parked.record
    facts = [
        ("Position", str(record.position)),
        ("State", state_of(record)),
        ("Reason", record.reason),
        ("Detail", one_line(record.detail)),
        ("Log time", record.log_time),
        ("Occurred at", record.occurred_at),
        ("Key", "-" if parked.key is None else one_line(parked.key.decode(errors="backslashreplace"))),
    ]
    screen.print(table(("", ""), facts))
    screen.print()
    if record.state == State.ERASED:
        screen.print("Its trace was erased: key, headers and payload are gone")
        return
    headers = [(_header(name), _header(value)) for name, value in parked.headers or []]
    screen.print(table(("header", "value"), headers))
    screen.print()
    _print_decoded(parked, full)
    _print_bytes(parked.payload, full)
    if record.value_bytes is not None:
        screen.print(f"The value has {record.value_bytes:,} bytes; the log has the rest")


def _header(value: Any) -> str | None:
    return None if value is None else one_line(value)


def _print_decoded(parked: ParkedBytes, full: bool) -> None:
    screen, decoded = console(), parked.decoded
    if decoded.schema_id is not None:
        screen.print(f"Schema {decoded.schema_id}: {decoded.event_type or 'unknown here'}", markup=False)
    if decoded.error:
        screen.print(Text(one_line(decoded.error)))
    if decoded.fields:
        rows = [(name, _cut(one_line(value), full)) for name, value in decoded.fields.items()]
        screen.print(table(("field", "value"), rows))
    screen.print()


def _cut(text: str, full: bool) -> str:
    left = len(text) - SHOWN_CHARACTERS
    return text if full or left <= 0 else f"{text[:SHOWN_CHARACTERS]}… and {left:,} more characters; --full shows them"


def _print_bytes(payload: bytes | None, full: bool) -> None:
    if payload is None:
        console().print("No payload: the record's value is null")
        return
    dumped = payload if full else payload[:DUMPED_BYTES]
    console().print(f"Payload, {len(payload):,} bytes")
    for line in hex_dump(dumped):
        console().print(line, markup=False, soft_wrap=True)
    if len(dumped) < len(payload):
        console().print(f"… and {len(payload) - len(dumped):,} more bytes; --full shows them")


def hex_dump(payload: bytes) -> Iterator[str]:
    """Lines of 16 bytes: the offset, the bytes, and what they are in ASCII."""
    for at in range(0, len(payload), BYTES_A_LINE):
        piece = payload[at : at + BYTES_A_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"{at:08x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{ascii_text}|"
