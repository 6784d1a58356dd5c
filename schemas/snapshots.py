"""An aggregate's state ⇄ bytes, in Confluent's wire format: the Avro record that the aggregate names as its `snapshot`.

A state that was written with an older version of that record is read with the latest one (Avro's schema resolution).
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
    """The state's bytes. InvalidInput when its plain form does not fit the aggregate's Avro record."""
    plain = aggregate.as_plain(state)
    if aggregate.snapshot == PLAIN_SNAPSHOT:
        plain = {"state": json.dumps(to_json(plain), ensure_ascii=False, allow_nan=False).encode()}
    return codec.encode(aggregate.snapshot, plain)


def plain_state(codec: Codec, aggregate: type[Aggregate[Any]], payload: bytes) -> Mapping[str, Any]:
    """The plain form of the state that these bytes hold, for `from_plain`. PoisonRecord says why they can't be read."""
    kind, plain = codec.decode_snapshot(payload)
    if kind != aggregate.snapshot:
        raise PoisonRecord(
            ParkedReason.UNREADABLE, f"a {kind}, where {aggregate.__name__} keeps its state as {aggregate.snapshot}"
        )
    if kind != PLAIN_SNAPSHOT:
        return plain
    loaded: Mapping[str, Any] = of_json(json.loads(plain["state"]))
    return loaded


def decode_state(codec: Codec, aggregate: type[Aggregate[Any]], payload: bytes) -> Any:
    """The state that these bytes hold. PoisonRecord says why they can't be read."""
    plain = plain_state(codec, aggregate, payload)
    try:
        return aggregate.from_plain(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise PoisonRecord(ParkedReason.UNREADABLE, f"no state of {aggregate.__name__}: {error!r}") from error


def to_json(value: Any) -> Any:
    """A plain state as JSON and jsonb can hold it without a loss: what they can't hold is an object of one member, `$bytes` in
    base64, `$text` in JSON's own escapes, `$float` as Python writes it, or `$map`, pairs.
    """
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case str():
            return value if _storable(value) else {"$text": json.dumps(value)}
        case float():
            # jsonb would make 1e300 an integer, and 0 of -0.0
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
