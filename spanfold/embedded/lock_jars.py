"""Write kafka.lock.json, the lock of the embedded Kafka's jars: `python -m spanfold.embedded.lock_jars`.

jgo resolves the two coordinates as Maven would; each jar is downloaded once to learn its checksum and size. Run
it after changing COORDINATES, and commit the result.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Final

from jgo.maven import MavenContext, PythonResolver

from spanfold.embedded.jar_downloads import maven_url
from spanfold.embedded.jars import LOCK_FILE

COORDINATES: Final = (
    "org.apache.kafka:kafka_2.13:4.3.1",
    # Kafka 4 speaks SLF4J 1.7; log4j-slf4j2-impl would bind to nothing.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
)


def resolve(repository: Path) -> list[dict[str, object]]:
    """The jars that the coordinates need, sorted by coordinate, downloaded into `repository`."""
    context = MavenContext(repo_cache=repository, remote_repos={"central": maven_url()})
    dependencies = [context.create_dependency(coordinate) for coordinate in COORDINATES]
    for dependency in dependencies:
        # Otherwise jgo imports each one's dependencyManagement, and log4j's pins kafka-clients to 3.9.
        dependency.raw = True
    inputs, transitive = PythonResolver().resolve(dependencies)
    jars = []
    for dependency in [*inputs, *transitive]:
        content = Path(dependency.artifact.resolve()).read_bytes()
        jars.append(
            {
                "coordinate": f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
            }
        )
    return sorted(jars, key=lambda jar: str(jar["coordinate"]))


def main() -> None:
    """Write the lock file."""
    with tempfile.TemporaryDirectory() as repository:
        jars = resolve(Path(repository))
    LOCK_FILE.write_text(json.dumps({"roots": COORDINATES, "jars": jars}, indent=2) + "\n")


if __name__ == "__main__":
    main()
