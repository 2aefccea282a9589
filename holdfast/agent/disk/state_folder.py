"""The folder in which the agent keeps its state: for one agent at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from holdfast.agent.disk.term import make_folder
from holdfast.binlog.files.durable import sync_folder
from holdfast.errors import Fatal, first_wrong


@contextlib.contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Lock the state directory against a second agent."""
    try:
        make_folder(state_dir)
        # a former agent may have been killed before its last removal was on disk
        sync_folder(state_dir)
        fd = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Fatal(f"state_dir: cannot write in {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(f"state_dir: another agent runs with {state_dir}") from None
        yield
    finally:
        os.close(fd)


def unreadable(error: OSError | ValidationError) -> str:
    """Why a file in there cannot be read, in one line."""
    return str(first_wrong(error.errors()) if isinstance(error, ValidationError) else error)
