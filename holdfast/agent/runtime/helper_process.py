"""A Python process that works for the agent and may outlive it: it is given one socket to talk over."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys


def helper_process(module: str, argument: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start ``python -m MODULE ARGUMENT``. Returns our end of a socket that preserves message boundaries; the other one
    is its standard input.

    :raises OSError: it cannot be started
    """
    own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            (sys.executable, "-m", module, argument),
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a signal that ends the agent must not end the process
        )
    return own, process


def hang_up(channel: socket.socket | None) -> None:
    """No more messages in either direction: the thread that reads wakes up, and has yet to close it."""
    if channel is not None:
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_RDWR)
