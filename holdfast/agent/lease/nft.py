"""A table of nftables that refuses a server's ports once its lease is over, held by an nft process of the agent's.

The table belongs to that process (``flags owner``): the kernel removes it when the process ends. The ports stand in a
set whose elements time out, so it is the kernel that closes them, also on a host that was frozen and thawed. The table
also refuses, on its way out, what such a server had already written, and ends the connection: nothing is sent again
later.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
from collections.abc import Sequence

from holdfast.clock import Clock
from holdfast.errors import Refused, Unreachable

ANSWER_SECONDS = 0.3
"""An nft that has not answered within this time is given up."""
MARGIN_SECONDS = 0.008
"""The kernel counts in jiffies. Elements time out so much earlier, lest they do so later than the lease."""
HEARD_SECONDS = 0.01
"""And so much earlier again: the time counts from when the kernel receives it. A renewal that took longer is
repeated."""
_REFUSAL = r"(?:^|: )Error: (.+)$"
PRIORITY = -200
"""The hook's priority: before other rules that may let a packet through for good."""


class Expired(Exception):
    """The elements had timed out before their renewal, which therefore had no effect."""


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start an nft that waits for input. It takes 7 to 17 ms until it reads, measured.

    :raises Refused: it cannot be run
    """
    try:
        return subprocess.Popen(
            (*command, "-i"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            # a signal that ends the agent in order must not end the table first
            start_new_session=True,
        )
    except OSError as error:
        raise Refused(f"cannot run {command[0]}: {error.strerror}") from None


def probe(command: Sequence[str], name: str, clock: Clock) -> None:
    """Make such a table and have it removed, to find out whether that works on this host at all.

    :raises Refused: nft cannot be run, or refuses; :raises Unreachable: it does not answer
    """
    process = start(command)
    where = f"inet {_identifier(name)}"
    look = f"list table {where}"
    try:
        text = f"add table {where} {{ flags owner; }}\n{look}\n"
        said = _exchange(process, text, rf"^\}}$|{_REFUSAL}", clock)
    finally:
        end(process)
    if refusal := re.search(_REFUSAL, said, re.MULTILINE):
        raise Refused(f"nft: {refusal[1]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process. What it had made is gone when this returns."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


class Table:
    """A table, and the process that owns it.

    :param process: that `start` has started for it
    :raises Refused: nft cannot be run, or refuses to make the table
    :raises Unreachable: nft has ended, or does not answer
    """

    def __init__(
        self,
        command: Sequence[str],
        name: str,
        ports: Sequence[int],
        until: float,
        clock: Clock,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.ports = tuple(ports)
        self._clock = clock
        self._where = f"inet {_identifier(name)}"
        self._process = process or start(command)
        try:
            self._make(until)
        except (Refused, Unreachable, Expired):
            self.close()
            raise

    def renew(self, until: float) -> None:
        """Let packets to the ports through until then.

        An element that has timed out cannot be deleted, and then the whole transaction is void: so a renewal that was
        on its way when the host was frozen does not open the ports of a server that was thawed too late.

        :raises Expired: it came too late
        :raises Unreachable: nft has ended, or does not answer
        """
        asked = self._clock.boottime()
        self._ask(f"delete element {self._where} leased {{ {self._list()} }}; {self._add(until)}")
        self._again_if_late(asked, until)

    def reopen(self, until: float) -> None:
        """After :class:`Expired`, for a lease that is held nevertheless; raises as :meth:`renew`."""
        self._ask(f"flush set {self._where} leased; {self._add(until)}")

    def _again_if_late(self, asked: float, until: float) -> None:
        """Repeat a renewal that the kernel received late: it would let clients through for longer than the lease."""
        if self._clock.boottime() - asked > HEARD_SECONDS:
            with contextlib.suppress(Expired):  # the element may have timed out meanwhile
                self.reopen(until)

    def close(self) -> None:
        """The table is gone when this returns."""
        end(self._process)

    def _make(self, until: float) -> None:
        where, ports = self._where, f"{{ {self._list()} }}"
        hook = f"priority {PRIORITY}; policy accept;"
        asked = self._clock.boottime()
        self._ask(
            f"add table {where} {{ flags owner; }}; "
            f"add set {where} leased {{ type inet_service; flags timeout; }}; "
            f"{self._add(until)}; "
            f"add chain {where} coming {{ type filter hook input {hook} }}; "
            f"add chain {where} going {{ type filter hook output {hook} }}; "
            f"add rule {where} coming tcp dport {ports} tcp dport != @leased reject with tcp reset; "
            f"add rule {where} going tcp sport {ports} tcp sport != @leased tcp flags & rst == 0 "
            "reject with tcp reset"
        )
        self._again_if_late(asked, until)

    def _list(self) -> str:
        return ", ".join(map(str, self.ports))

    def _add(self, until: float) -> str:
        """:raises Expired: there is no time left to add"""
        milliseconds = int((until - self._clock.boottime() - MARGIN_SECONDS - HEARD_SECONDS) * 1000)
        if milliseconds <= 0:
            raise Expired
        elements = ", ".join(f"{port} timeout {milliseconds}ms" for port in self.ports)
        return f"add element {self._where} leased {{ {elements} }}"

    def _ask(self, transaction: str) -> None:
        """Send a transaction, and a query right behind it, as nft answers nothing else: the answer shows that it was
        done."""
        look = f"list set {self._where} leased"
        end = rf"^(\}}|{re.escape(look)})$"
        said = _exchange(self._process, f"{transaction}\n{look}\n", end, self._clock)
        if "elements = {" in said and "Error:" not in said:
            return
        refusal = re.search(r"Error: (.*)", said)
        why = refusal[1] if refusal else "its answer cannot be understood"
        if transaction.startswith("delete element") and "\n}" in f"\n{said}":
            raise Expired
        raise Refused(f"nft: {why}")


def _exchange(process: subprocess.Popen[bytes], text: str, last: str, clock: Clock) -> str:
    """Send ``text``; return nft's output up to a line in which the pattern ``last`` is found.

    :raises Unreachable: nft has ended, or does not answer
    """
    assert process.stdin is not None
    assert process.stdout is not None
    end = clock.monotonic() + ANSWER_SECONDS
    said = ""
    try:
        process.stdin.write(text.encode())
        out = process.stdout.fileno()
        while not re.search(last, said, re.MULTILINE):
            if not select.select([out], [], [], max(0.0, end - clock.monotonic()))[0]:
                raise Unreachable(f"nft does not answer within {ANSWER_SECONDS:g} s")
            piece = os.read(out, 65536)
            if not piece:
                raise Unreachable(f"nft has ended: {' '.join(said.split())[:200]}".rstrip(": "))
            said += piece.decode(errors="replace")
    except OSError as error:
        raise Unreachable(f"nft has ended: {error.strerror}") from None
    return said


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name)
