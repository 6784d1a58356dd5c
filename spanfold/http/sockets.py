"""Listening sockets for every HTTP server, and their URLs."""

import socket

from spanfold.language.errors import Misconfigured


def listening(host: str, port: int, server: str, remedy: str) -> socket.socket:
    """A socket that listens on the address; port 0 takes any. Misconfigured when the address is not available: the message names
    the `server` that needs it and, as `remedy`, how to choose another port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"{server} can't listen on {host}:{port}: {error.strerror or error}. {remedy}; port 0 takes any."
        ) from error


def url_of(address: socket.socket) -> str:
    """The URL of what listens there, without a slash at its end."""
    host, port = address.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
