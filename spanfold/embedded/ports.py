"""Choose TCP ports on 127.0.0.1.

They come from below the ephemeral range (32768 on Linux, 49152 elsewhere): above, the kernel may hand a
server's port to a client that reconnects while the server restarts, and that client then talks to itself.
"""

import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from spanfold.language.errors import Misconfigured

HOST: Final = "127.0.0.1"
LOWEST: Final = 20_000
HIGHEST: Final = 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now. Connections in TIME_WAIT don't count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(taken: Sequence[int] = ()) -> int:
    """A free port that isn't among `taken`."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        if port not in taken and is_free(port):
            return port


def choose_ports(names: Sequence[str], remembered: Path, requested: Mapping[str, int] | None = None) -> dict[str, int]:
    """One free port per name: the requested one, else the one in the JSON file `remembered` if it is still free, else a new one.

    The choice is written back, so that a restart answers where it did before. Misconfigured when a requested one is not free.
    """
    before = json.loads(remembered.read_text()) if remembered.exists() else {}
    chosen: dict[str, int] = {}
    for name in names:
        port = (requested or {}).get(name) or before.get(name)
        if port and port == (requested or {}).get(name) and not is_free(port):
            raise Misconfigured(f"port {port} for {name} is taken: choose another, or leave the choice to spanfold")
        if port is None or port in chosen.values() or not is_free(port):
            port = free_port(list(chosen.values()))
        chosen[name] = port
    remembered.write_text(json.dumps({**before, **chosen}, indent=2) + "\n")
    return chosen
