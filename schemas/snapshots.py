"""An aggregate's state ⇄ bytes, in Confluent's wire format. The Avro record is the aggregate's `snapshot`.

A state that was written with an older version of that record is resolved to the latest one.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from spanfold.application.aggregates import PLAIN_SNAPSHOT, Aggregate
from spanfold.language.errors import PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.schemas.codec import Codec


def encode_state(codec: Codec, aggregate: type[Aggregate[Any]], state: Any) -> bytes:
    """The bytes of the state. InvalidInput when its plain form does not fit the aggregate's Avro record."""
    plain = aggregate.as_plain(state)
    if aggregate.snapshot == PLAIN_SNAPSHOT:
        plain = {"state": json.dumps(to_json(plain), ensure_ascii=False, allow_nan=False).encode()}
    return codec.encode(aggregate.snapshot, plain)


def plain_state(codec: Codec, aggregate: type[Aggregate[Any]], payload: bytes) -> Mapping[str, Any]:
    """The plain form of the state in these bytes, for `from_plain`. PoisonRecord says why they can't be read."""
    kind, plain = codec.decode_snapshot(payload)
    if kind != aggregate.snapshot:
        raise PoisonRecord(
            ParkedReason.UNREADABLE, f"expected {aggregate.snapshot}, the record of {aggregate.__name__}, got {kind}"
        )
    if kind != PLAIN_SNAPSHOT:
        return plain
    loaded: Mapping[str, Any] = of_json(json.loads(plain["state"]))
    return loaded


def decode_state(codec: Codec, aggregate: type[Aggregate[Any]], payload: bytes) -> Any:
    """The state in these bytes. PoisonRecord says why they can't be read."""
    plain = plain_state(codec, aggregate, payload)
    try:
        return aggregate.from_plain(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise PoisonRecord(ParkedReason.UNREADABLE, f"not a state of {aggregate.__name__}: {error!r}") from error


def to_json(value: Any) -> Any:
    """A plain state as JSON that jsonb stores without loss. A value that jsonb can't store is an object with one member: `$bytes`
    (base64), `$text` (with JSON's escapes), `$float` (as Python writes it) or `$map` (a list of pairs).
    """
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case str():
            return value if _storable(value) else {"$text": json.dumps(value)}
        case float():
            # jsonb would turn 1e300 into an integer, and -0.0 into 0
            written = repr(value)
            return {"$float": written} if written == "-0.0" or set("en") & set(written) else value
        case Mapping():
            if all(_storable(name) and not name.startswith("$") for name in value):
                return {name: to_json(item) for name, item in value.items()}
            return {"$map": [[to_json(name), to_json(item)] for name, item in value.items()]}
        case list() | tuple():
            return [to_json(item) for item in value]
        case _:
            return value


def of_json(value: Any) -> Any:
    """The inverse of to_json; tuples come back as lists."""
    match value:
        case {"$bytes": str(encoded)}:
            return base64.b64decode(encoded)
        case {"$text": str(escaped)}:
            return json.loads(escaped)
        case {"$float": str(written)}:
            return float(written)
        case {"$map": list(pairs)}:
            return {of_json(name): of_json(item) for name, item in pairs}
        case dict():
            return {name: of_json(item) for name, item in value.items()}
        case list():
            return [of_json(item) for item in value]
        case _:
            return value


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
