"""The committed catalogues: schema id ⇄ subject, version, fingerprint, file.

Without a schema registry these ids are in the frame of every record. spanfold's ids start at 1,400,000,000, far from the small
ids of a registry, so that one topic can have records with either. A released entry never changes: add a version instead, and run
`python -m spanfold.schemas.catalogue`, which adds new files of schemas/avro to the catalogue.

A package adds schemas of its own: a module with catalogue.json and avro/EventType.vN.avsc beside its __init__.py, named by an
entry point of the group `spanfold.schemas`. `python -m spanfold.schemas.catalogue acme_events --first-id 1450000000` creates its
catalogue. Packages have ids from 1,410,000,000 to 2,147,483,647, and each needs a range of its own.
"""

import importlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from fastavro.schema import fingerprint, to_parsing_canonical_form

from spanfold.language.errors import Misconfigured
from spanfold.language.topics import BATCH, NOT_FOLDED, SNAPSHOTS_TOPIC, topic_of

GROUP: Final = "spanfold.schemas"
OURS: Final = "spanfold.schemas"
FIRST_ID: Final = 1_400_000_000
OUR_IDS: Final = range(FIRST_ID, 1_410_000_000)
PACKAGES_IDS: Final = range(OUR_IDS.stop, 1 << 31)

AvroSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A released schema. `fingerprint` is the SHA-256 of its parsing canonical form, in hex. The file is in the folder avro of
    the module `package`.
    """

    id: int
    subject: str
    version: int
    fingerprint: str
    file: str
    package: str = OURS

    @property
    def event_type(self) -> str:
        """The event type: `TraceCreated` for the file `TraceCreated.v1.avsc`."""
        return self.file.partition(".")[0]

    def load(self) -> AvroSchema:
        """The schema in its .avsc file."""
        from importlib.resources import files

        loaded: AvroSchema = json.loads(files(self.package).joinpath("avro", self.file).read_text("utf-8"))
        return loaded


class SchemaIds(Protocol):
    """A source of schema ids: the catalogue, or a schema registry."""

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        """The schema with this id, or None if it is unknown."""

    def latest(self, event_type: str) -> RegisteredSchema:
        """The schema with which events of this type are written. KeyError for an unknown type."""


class Catalogue:
    """Entries as `SchemaIds`. Misconfigured when two have the same id, or two packages have the same event type."""

    def __init__(self, entries: Iterable[RegisteredSchema]) -> None:
        self._by_id: dict[int, RegisteredSchema] = {}
        self._latest: dict[str, RegisteredSchema] = {}
        for entry in sorted(entries, key=lambda entry: entry.version):
            _refuse_collision(entry, self._by_id.get(entry.id), self._latest.get(entry.event_type))
            self._by_id[entry.id] = self._latest[entry.event_type] = entry

    def __iter__(self) -> Iterator[RegisteredSchema]:
        return iter(self._by_id.values())

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        return self._by_id.get(schema_id)

    def latest(self, event_type: str) -> RegisteredSchema:
        return self._latest[event_type]


@lru_cache(maxsize=1)
def committed() -> Catalogue:
    """The catalogues of spanfold and of all installed packages, combined."""
    from importlib.metadata import entry_points

    packages = sorted(entry.value for entry in entry_points(group=GROUP))
    if OURS not in packages:
        raise Misconfigured(f"entry points of {GROUP} are out of date: reinstall spanfold")
    return Catalogue(entry for package in packages for entry in entries_of(package))


def entries_of(package: str) -> list[RegisteredSchema]:
    """The catalogue of this module. Misconfigured when it has none, or an id is outside the range for packages."""
    from importlib.resources import files

    try:
        text = files(package).joinpath("catalogue.json").read_text("utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise Misconfigured(f"entry point {GROUP}: {package} has no catalogue.json: {error}") from error
    entries = [RegisteredSchema(**entry, package=package) for entry in json.loads(text)]
    allowed = _ids_of(package)
    for entry in entries:
        if entry.id not in allowed:
            raise Misconfigured(
                f"{package}: the id {entry.id} of {entry.file} must be in the range {allowed[0]} to {allowed[-1]}"
            )
    return entries


def fingerprint_of(schema: AvroSchema) -> str:
    """SHA-256 of the parsing canonical form, in hex (Avro 1.12, "Schema Fingerprints")."""
    return str(fingerprint(to_parsing_canonical_form(schema), "SHA-256"))


def append_new(package: str = OURS, first_id: int = FIRST_ID) -> int:
    """Add the .avsc files that the package's catalogue does not have yet, with the next ids; returns how many. For developers."""
    if first_id not in _ids_of(package):
        raise ValueError(
            f"--first-id of {package} must be in the range {_ids_of(package)[0]} to {_ids_of(package)[-1]}"
        )
    room = Path(str(importlib.import_module(package).__file__)).parent
    path = room / "catalogue.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    known = {entry["file"] for entry in entries}
    new = sorted(file.name for file in (room / "avro").glob("*.avsc") if file.name not in known)
    for next_id, name in enumerate(new, start=max((e["id"] for e in entries), default=first_id - 1) + 1):
        entries.append(_describe(next_id, room / "avro" / name))
    path.write_text(json.dumps(entries, indent=2) + "\n")
    return len(new)


def _ids_of(package: str) -> range:
    return OUR_IDS if package == OURS else PACKAGES_IDS


def _refuse_collision(
    entry: RegisteredSchema, same_id: RegisteredSchema | None, same_type: RegisteredSchema | None
) -> None:
    if same_id is not None:
        raise Misconfigured(
            f"schema id {entry.id} is used twice: by {same_id.package}/{same_id.file} and {entry.package}/{entry.file}; "
            "one of the packages must use another --first-id"
        )
    if same_type is not None and same_type.package != entry.package:
        raise Misconfigured(
            f"event type {entry.event_type} is in {same_type.package} and in {entry.package}: rename one"
        )


def _describe(schema_id: int, file: Path) -> dict[str, Any]:
    named = re.fullmatch(r"(\w+)\.v(\d+)\.avsc", file.name)
    if named is None:
        raise ValueError(f"{file.name}: the name must be EventType.vN.avsc")
    schema = json.loads(file.read_text())
    subject = _subject(named[1], f"{schema['namespace']}.{schema['name']}")
    entry = asdict(RegisteredSchema(schema_id, subject, int(named[2]), fingerprint_of(schema), file.name))
    del entry["package"]
    return entry


def _subject(event_type: str, full_name: str) -> str:
    """Topic and record name; only the record name for events of more than one topic."""
    from spanfold.application.aggregates import snapshot_types

    if event_type in snapshot_types():
        return f"{SNAPSHOTS_TOPIC}-{full_name}"
    if event_type in (*NOT_FOLDED, BATCH):
        return full_name
    topic = topic_of(event_type)
    if topic is None:
        raise ValueError(f"{event_type} is on no topic: add it to the event_types of a Topic")
    return topic.subject(full_name)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(prog="python -m spanfold.schemas.catalogue", description=append_new.__doc__)
    parser.add_argument("package", nargs="?", default=OURS)
    parser.add_argument("--first-id", type=int, default=FIRST_ID)
    arguments = parser.parse_args()
    print(f"{append_new(arguments.package, arguments.first_id)} added")
