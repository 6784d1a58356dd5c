"""The verdict that a record gets from its key, headers, log time and position alone.

A verdict is for ever: these rules are part of the log's meaning and never change (docs/adr/0003). They are tried in this
order, the first that applies decides; what none rejects, the journal accepts unless it has seen the event before:

malformed   no usable key (1…512 bytes of UTF-8 without NUL), headers beyond 64 KiB of names and values together or more than
            256 of them, or a header that is missing or not of its form
misrouted   the key does not hash to this partition (murmur2, as Java's clients do)
erased      TraceErased lies before it in this partition, accepted and under the same key (docs/adr/0014)
expired     older than the topic's window when it reached the log
future      more than the allowed days ahead of the log's time
duplicate   the journal holds its event id already (same partition, same event day)

On a conditional topic nothing is too old or too new; there the last two are

duplicate   the event id has had a verdict before, whatever it was: the first one is final
conflict    it expects another version than its aggregate has
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from spanfold.language.partitioning import partitions_of
from spanfold.language.records import (
    EVENT_ID,
    EVENT_TYPE,
    EXPECTED_VERSION,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    OCCURRED_AT,
)
from spanfold.language.topics import US_PER_DAY, TopicKind
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.cut import CutHeaders, CutKey, RecordHeaders, cut_key, within_limits


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    MALFORMED = "malformed"
    MISROUTED = "misrouted"
    EXPIRED = "expired"
    FUTURE = "future"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the record at `index` of its batch is not accepted."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch with what its headers say, column by column; rejected records hold placeholders there.

    `event_ids` are 16 bytes each, `occurred_at` µs since 1970 UTC. `rejections` is keyed by index into the batch.
    `expected_versions` are those of conditional topics; None appends to whatever version there is.
    """

    batch: Batch
    aggregate_ids: Sequence[str]
    event_ids: Sequence[bytes]
    event_types: Sequence[str]
    occurred_at: Sequence[int]
    rejections: dict[int, Rejection]
    expected_versions: Sequence[int | None] = ()


NIL_ID: Final = bytes(16)
MAX_KEY_BYTES: Final = 512
MAX_TYPE_BYTES: Final = 255
_READ_BYTES: Final = 1024
"""More than the headers that are read have, when they are of their form."""
_UUID: Final = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION: Final = re.compile(rb"[0-9]{1,18}")
_MICROSECONDS: Final = re.compile(rb"-?[0-9]{1,18}")


def judge(batch: Batch) -> Judged:
    """Read the headers and apply every rule but those that depend on earlier records: `erased` and the last ones."""
    if batch.topic.kind is TopicKind.CONDITIONAL:
        judged = _with_expectations(_read_each(batch))
    else:
        judged = (_read_all(batch) if len(batch) else None) or _read_each(batch)
    _reject_misrouted(judged)
    if batch.topic.kind is TopicKind.TELEMETRY:
        _reject_untimely(judged)
    return judged


def _with_expectations(judged: Judged) -> Judged:
    expected: list[int | None] = []
    for index, headers in enumerate(judged.batch.headers):
        version = dict(headers).get(EXPECTED_VERSION)
        if version is not None and not _VERSION.fullmatch(version):
            detail = f"header {EXPECTED_VERSION} must be a decimal of at most 18 digits, not {version!r}"
            judged.rejections.setdefault(index, Rejection(Verdict.MALFORMED, detail))
            version = None
        expected.append(None if version is None else int(version))
    return replace(judged, expected_versions=expected)


def _read_all(batch: Batch) -> Judged | None:
    """The whole batch at once, or None if any record might be malformed: then each is read on its own."""
    try:
        columns = _header_columns(batch.headers)
        event_ids = _parse_ids(columns[EVENT_ID])
        event_types = _parse_types(columns[EVENT_TYPE])
        occurred_at = _parse_times(columns[OCCURRED_AT])
        aggregate_ids = [key.decode() for key in batch.keys]  # type: ignore[union-attr]
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    if not all(batch.keys) or max(map(len, batch.keys)) > MAX_KEY_BYTES or "\0" in "".join(aggregate_ids):  # type: ignore[arg-type]
        return None
    return Judged(batch, aggregate_ids, event_ids, event_types, occurred_at, {})


def _header_columns(headers: Sequence[RecordHeaders]) -> dict[str, Sequence[bytes | None]]:
    """The values of each header of all records, if all name the same ones, each once, in the same order."""
    if len(set(map(len, headers))) != 1 or len(headers[0]) > MAX_HEADERS:
        raise ValueError("the records have not equally many headers, or too many")
    columns: dict[str, Sequence[bytes | None]] = {}
    for column in zip(*headers, strict=True):
        names, values = zip(*column, strict=True)
        if len(set(names)) != 1 or names[0] in columns:
            raise ValueError("the records do not name the same headers")
        names[0].encode()  # lone surrogates stand for what is not UTF-8
        columns[names[0]] = values
    if _READ_BYTES + _widest(columns) > MAX_HEADERS_BYTES:
        raise ValueError("a record may have headers beyond the limit")
    return columns


def _widest(columns: Mapping[str, Sequence[bytes | None]]) -> int:
    """No record has more bytes than this in headers that no other rule limits."""
    others = [(name, values) for name, values in columns.items() if name not in (EVENT_ID, EVENT_TYPE, OCCURRED_AT)]
    return sum(len(name.encode()) + max(map(len, filter(None, values)), default=0) for name, values in others)


def _parse_ids(ids: Sequence[bytes | None]) -> list[bytes]:
    import numpy as np  # here: commands that only ask import this module, and judge nothing

    joined = b"".join(ids)  # type: ignore[arg-type]
    if {len(each) for each in ids if each is not None} != {36}:
        raise ValueError("an id is not 36 characters")
    dashes = np.frombuffer(joined, np.uint8).reshape(len(ids), 36)[:, (8, 13, 18, 23)]
    raw = bytes.fromhex(joined.replace(b"-", b"").decode("ascii"))
    if not (dashes == ord("-")).all() or len(raw) != 16 * len(ids):
        raise ValueError("an id is not a UUID")
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def _parse_types(types: Sequence[bytes | None]) -> list[str]:
    names = {each: _type_name(each) for each in set(types)}
    return [names[each] for each in types]


def _type_name(raw: bytes | None) -> str:
    if not raw or len(raw) > MAX_TYPE_BYTES or b"\0" in raw:
        raise ValueError("no event type")
    return raw.decode()


def _parse_times(times: Sequence[bytes | None]) -> list[int]:
    if not all(times) or not b"".join(times).isdigit() or max(map(len, times)) > 18:  # type: ignore[arg-type]
        raise ValueError("a time is not decimal")
    return list(map(int, times))  # type: ignore[arg-type]


def _read_each(batch: Batch) -> Judged:
    judged = Judged(batch, [], [], [], [], {})
    for index, (key, headers) in enumerate(zip(batch.keys, batch.headers, strict=True)):
        try:
            row = _read_one(key, headers)
        except ValueError as error:
            judged.rejections[index] = Rejection(Verdict.MALFORMED, str(error))
            row = ("", NIL_ID, "", 0)
        for column, value in zip(
            (judged.aggregate_ids, judged.event_ids, judged.event_types, judged.occurred_at), row, strict=True
        ):
            column.append(value)  # type: ignore[attr-defined]
    return judged


def _read_one(key: bytes | None, headers: RecordHeaders) -> tuple[str, bytes, str, int]:
    """What one record's key and headers say; ValueError names the first thing that is wrong."""
    if not key or len(key) > MAX_KEY_BYTES or b"\0" in key:
        raise ValueError(f"the key must be 1 to {MAX_KEY_BYTES} bytes of UTF-8 without NUL{_size_of(cut_key(key))}")
    try:
        aggregate_id = key.decode()
    except UnicodeDecodeError:
        raise ValueError("the key is not UTF-8") from None
    if isinstance(cut := within_limits(headers), CutHeaders):
        raise ValueError(
            f"{cut}; at most {MAX_HEADERS}, of {MAX_HEADERS_BYTES:,} bytes of names and values, are accepted"
        )
    try:
        "".join(name for name, _ in headers).encode()
    except UnicodeEncodeError:
        raise ValueError("a header's name is not UTF-8") from None
    values = dict(headers)
    event_id = values.get(EVENT_ID)
    if event_id is None or not _UUID.fullmatch(event_id):
        raise ValueError(f"header {EVENT_ID} must be a UUID of 36 characters, not {event_id!r}")
    occurred_at = values.get(OCCURRED_AT)
    if occurred_at is None or not _MICROSECONDS.fullmatch(occurred_at):
        raise ValueError(f"header {OCCURRED_AT} must be µs since 1970 in decimal, not {occurred_at!r}")
    try:
        event_type = _type_name(values.get(EVENT_TYPE))
    except ValueError:
        raise ValueError(f"header {EVENT_TYPE} must be 1 to {MAX_TYPE_BYTES} bytes of UTF-8") from None
    return aggregate_id, bytes.fromhex(event_id.replace(b"-", b"").decode()), event_type, int(occurred_at)


def _size_of(key: bytes | None) -> str:
    return f"; it has {key.size:,}, SHA-256 {key.sha256.hex()}" if isinstance(key, CutKey) else ""


def _reject_misrouted(judged: Judged) -> None:
    batch = judged.batch
    keys = list({key for i, key in enumerate(batch.keys) if key is not None and i not in judged.rejections})
    owners = partitions_of(keys, batch.partitions)
    strays = {key: int(owner) for key, owner in zip(keys, owners, strict=True) if owner != batch.partition}
    if not strays:
        return
    for index, key in enumerate(batch.keys):
        if key in strays and index not in judged.rejections:
            detail = f"the key belongs to partition {strays[key]}: publish with the murmur2 partitioner"
            judged.rejections[index] = Rejection(Verdict.MISROUTED, detail)


def _reject_untimely(judged: Judged) -> None:
    import numpy as np

    topic = judged.batch.topic
    log_times = np.array(judged.batch.log_times_ms, np.int64) * 1000
    ages = log_times - np.array(judged.occurred_at, np.int64)
    window, future = topic.window_days * US_PER_DAY, topic.future_days * US_PER_DAY
    for index in np.flatnonzero((ages > window) | (ages < -future)).tolist():
        if index in judged.rejections:
            continue
        days = abs(int(ages[index])) / US_PER_DAY
        if ages[index] > 0:
            detail = f"{days:.1f} days old when it reached the log; the topic's window is {topic.window_days} days"
            judged.rejections[index] = Rejection(Verdict.EXPIRED, detail)
        else:
            judged.rejections[index] = Rejection(Verdict.FUTURE, f"{days:.1f} days ahead of the log's time")
