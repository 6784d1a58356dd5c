"""A TCP proxy between worker and Postgres that cuts connections: when it is told, or between a commit and its answer."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Final

HOST: Final = "127.0.0.1"
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 s: close() sends a reset, as a network that fails does, and drops what was not sent."""


class Link:
    """One connection of a client, and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.doomed = threading.Event()
        """The server's next answer does not arrive."""

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on `port` and passes on to `target`, until it is closed. `held_up` counts what a stall kept from going on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: set[Link] = set()
        self._refusing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self.held_up = 0
        self._at_commit: threading.Event | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cut all connections; returns how many there were."""
        links, self._links = self._links, set()
        for link in links:
            link.cut()
        return len(links)

    def refuse(self, refusing: bool) -> None:
        """Cut each new connection at once, or no longer."""
        (self._refusing.set if refusing else self._refusing.clear)()

    def stall(self, stalling: bool) -> None:
        """Let nothing through, or let it flow again; connections stay open."""
        (self._flowing.clear if stalling else self._flowing.set)()

    def cut_after_commit(self) -> threading.Event:
        """Cut the next connection that commits when Postgres has, but before the client is told; set when that was done."""
        self._at_commit = threading.Event()
        return self._at_commit

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if self._refusing.is_set():
                raise ConnectionRefusedError
            server = socket.create_connection((HOST, self._target), timeout=5)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        link = Link(client, server)
        self._links.add(link)
        for pump in (self._to_server, self._to_client):
            threading.Thread(target=self._pump, args=(pump, link), daemon=True).start()

    def _pump(self, pump: object, link: Link) -> None:
        with suppress(OSError):
            pump(link)  # type: ignore[operator]
        self._links.discard(link)
        link.cut()

    def _wait(self) -> None:
        if not self._flowing.is_set():
            self.held_up += 1
        self._flowing.wait()

    def _to_server(self, link: Link) -> None:
        while data := link.client.recv(1 << 16):
            self._wait()
            if self._at_commit is not None and b"COMMIT" in data:
                link.doomed.set()
            link.server.sendall(data)

    def _to_client(self, link: Link) -> None:
        while data := link.server.recv(1 << 16):
            self._wait()
            if link.doomed.is_set() and self._at_commit is not None:
                self._at_commit.set()
                self._at_commit = None
                return
            link.client.sendall(data)
