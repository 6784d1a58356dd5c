"""The jars of the embedded Kafka, as kafka.lock.json locks them: Maven coordinate, SHA-256 and size in bytes, without a host."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOCK_FILE: Final = Path(__file__).with_name("kafka.lock.json")


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar. `coordinate` is group:artifact:version; `size` is in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked_jars() -> list[Jar]:
    """The jars of kafka.lock.json, in its order."""
    return [Jar(**jar) for jar in json.loads(LOCK_FILE.read_text())["jars"]]


def is_intact(jar: Jar, path: Path) -> bool:
    """Whether `path` holds exactly the locked bytes."""
    return path.is_file() and path.stat().st_size == jar.size and sha256(path) == jar.sha256


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
