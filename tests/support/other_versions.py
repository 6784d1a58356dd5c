"""Projectors of other versions of spanfold, to be run as processes."""

from spanfold.bootstrap import run_projector
from spanfold.language.settings import settings
from spanfold.schemas.catalogue import Catalogue, RegisteredSchema
from spanfold.schemas.codec import Codec, Fields

PADDING = b"?!"
"""What `understanding` does not mind at the end of a value."""


def program(name: str) -> tuple[str, ...]:
    """What Python runs to be the worker that this function of this module is."""
    return ("-c", f"from tests.support import other_versions; other_versions.{name}()")


def without_spans() -> None:
    """The projector of a version that does not know SpanRecorded yet."""
    _forget("SpanRecorded")
    run_projector(settings())


def without_health_changes() -> None:
    """The projector of a version that does not know ServiceHealthChanged yet."""
    _forget("ServiceHealthChanged")
    run_projector(settings())


def understanding() -> None:
    """The projector of a version that understands what ours can't: padded bytes, upper-case trace ids, NULs in texts."""
    decode = Codec.decode

    def understand(self: Codec, value: bytes | None) -> tuple[str, Fields]:
        event_type, fields = decode(self, value and value.removesuffix(PADDING))
        texts = {name: text.replace("\0", "") for name, text in fields.items() if isinstance(text, str)}
        return event_type, fields | texts | {"aggregate_id": texts["aggregate_id"].lower()}

    Codec.decode = understand  # type: ignore[method-assign]
    run_projector(settings())


def _forget(event_type: str) -> None:
    by_id = Catalogue.by_id

    def forgetful(self: Catalogue, schema_id: int) -> RegisteredSchema | None:
        entry = by_id(self, schema_id)
        return None if entry is None or entry.event_type == event_type else entry

    Catalogue.by_id = forgetful  # type: ignore[method-assign]
