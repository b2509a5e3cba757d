"""A socket that listens on this machine and nowhere else."""

from __future__ import annotations

import errno
import socket

from trading_env.errors import PapertapeError

HOST = "127.0.0.1"


class PortError(PapertapeError, RuntimeError):
    """The port cannot be listened on; the message is one line with the remedy."""


def listening(port: int) -> socket.socket:
    """Listen on loopback; 0 picks a free port. Raises `PortError`."""
    # With the protocol named, asyncio turns Nagle's algorithm off; without it each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        cause = "is in use by another process" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortError(f"port {port} {cause}; stop that process or choose another port, 0 for a free one") from error
    return listener
