"""The machine's programs that a lab needs, and how they are run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from holdfast.errors import BadInput, DeadlinePassed, Refused
from holdfast.sandbox.servers import trees

STEP_SECONDS = 20.0
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Put before a program that makes something: if this process is killed, the program must not continue unnoticed by the
process that cleans up."""
NEEDED = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "mkfs.ext4": "e2fsprogs",
    "fsfreeze": "util-linux",
}
"""Each program, and its package."""


def refuse_without() -> None:
    """:raises Refused: something that a lab needs is missing; names all of it"""
    missing = [] if os.geteuid() == 0 else [f"root (this is user {os.geteuid()})"]
    missing += [f"{name} ({package})" for name, package in NEEDED.items() if not _which(name)]
    try:
        trees.companion("nft")
    except BadInput:
        missing.append("nft (nftables, or scripts/get-servers nft)")
    if missing:
        raise Refused(f"a lab of hosts needs {', '.join(missing)}; nothing was made")


def run(argv: Sequence[str], given: str = "", seconds: float = STEP_SECONDS) -> str:
    """Run a program; returns its output.

    :raises Refused: it failed; holds its error
    :raises DeadlinePassed: it did not end; it is killed
    """
    done = attempt(argv, given, seconds)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise Refused(f"{' '.join(argv)[:200]} failed: {said}")
    return done.stdout


def attempt(
    argv: Sequence[str], given: str = "", seconds: float = STEP_SECONDS
) -> subprocess.CompletedProcess[str]:
    """As `run`, for a program that may fail."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    try:
        return subprocess.run(
            [*WITH_US, *argv],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise DeadlinePassed(" ".join(argv)[:200], seconds) from None
    except OSError as error:
        raise Refused(f"cannot run {argv[0]}: {error.strerror}") from None


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
