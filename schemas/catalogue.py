"""The committed catalogue: schema id ⇄ subject, version, fingerprint, file.

Without a registry these ids frame every record. They start at 1,400,000,000, far from the small numbers that a registry
hands out, so that records framed either way can lie in one topic. A released entry never changes: add a version instead
(`python -m schemas.catalogue` appends what schemas/avro holds and the catalogue does not).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

from fastavro.schema import fingerprint, to_parsing_canonical_form

from spanfold.topics import ON_EVERY_TOPIC, topic_of

FIRST_ID: Final = 1_400_000_000

AvroSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """One released schema. `fingerprint` is the SHA-256 of its parsing canonical form, in hex."""

    id: int
    subject: str
    version: int
    fingerprint: str
    file: str

    @property
    def event_type(self) -> str:
        """`TraceCreated` of the file `TraceCreated.v1.avsc`."""
        return self.file.partition(".")[0]

    def load(self) -> AvroSchema:
        """The schema as it is written in its .avsc file."""
        loaded: AvroSchema = json.loads(files("schemas").joinpath("avro", self.file).read_text("utf-8"))
        return loaded


class SchemaIds(Protocol):
    """Where ids come from: the catalogue here, or a registry."""

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        """The schema with this id, or None when nobody knows it."""

    def latest(self, event_type: str) -> RegisteredSchema:
        """The schema that events of this type are written with. KeyError for an unknown type."""


class Catalogue:
    """The committed catalogue, as `SchemaIds`."""

    def __init__(self, entries: list[RegisteredSchema]) -> None:
        self._by_id = {entry.id: entry for entry in entries}
        self._latest: dict[str, RegisteredSchema] = {}
        for entry in sorted(entries, key=lambda entry: entry.version):
            self._latest[entry.event_type] = entry

    def __iter__(self) -> Iterator[RegisteredSchema]:
        return iter(self._by_id.values())

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        return self._by_id.get(schema_id)

    def latest(self, event_type: str) -> RegisteredSchema:
        return self._latest[event_type]


@lru_cache(maxsize=1)
def committed() -> Catalogue:
    """The catalogue of this version of spanfold."""
    text = files("schemas").joinpath("catalogue.json").read_text("utf-8")
    return Catalogue([RegisteredSchema(**entry) for entry in json.loads(text)])


def fingerprint_of(schema: AvroSchema) -> str:
    """SHA-256 of the parsing canonical form, in hex (Avro 1.12, "Schema Fingerprints")."""
    return str(fingerprint(to_parsing_canonical_form(schema), "SHA-256"))


def append_new() -> int:
    """Give every .avsc that the catalogue lacks the next id; returns how many were added. For developers of spanfold."""
    room = Path(__file__).parent
    path = room / "catalogue.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    known = {entry["file"] for entry in entries}
    new = sorted(file.name for file in (room / "avro").glob("*.avsc") if file.name not in known)
    for next_id, name in enumerate(new, start=max((e["id"] for e in entries), default=FIRST_ID - 1) + 1):
        entries.append(asdict(_describe(next_id, room / "avro" / name)))
    path.write_text(json.dumps(entries, indent=2) + "\n")
    return len(new)


def _describe(schema_id: int, file: Path) -> RegisteredSchema:
    named = re.fullmatch(r"(\w+)\.v(\d+)\.avsc", file.name)
    if named is None:
        raise ValueError(f"{file.name}: name it EventType.vN.avsc")
    schema = json.loads(file.read_text())
    return RegisteredSchema(schema_id, _subject(named[1]), int(named[2]), fingerprint_of(schema), file.name)


def _subject(event_type: str) -> str:
    """Topic and record name; the record name alone for what every topic carries."""
    if event_type in ON_EVERY_TOPIC:
        return f"spanfold.{event_type}"
    topic = topic_of(event_type)
    if topic is None:
        raise ValueError(f"{event_type} is on no topic: add it to spanfold/topics.py")
    return topic.subject(event_type)


if __name__ == "__main__":
    print(f"{append_new()} added")
