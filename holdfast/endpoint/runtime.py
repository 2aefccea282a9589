"""HAProxy's runtime API: commands over one connection that is kept open.

A connection belongs to one worker, and a reload of HAProxy starts another worker. The former takes no new clients, but
continues for those that it has, and as long as a connection such as this one is open (HAProxy 2.6, tested). So each
worker is asked whether it is the present one; former workers get all commands too, until they have no clients any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.endpoints import split
from holdfast.errors import DeadlinePassed, Unreachable

ANSWER_SECONDS = 1.0
LARGEST_ANSWER_BYTES = 1024 * 1024
PROMPT = b"\n> "
ASK = "show info"
STOPPING, IDLE = "Stopping: 1", "CurrConns: 0"
"""Lines of its answer."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RuntimeApi:
    """:param socket: a path, or ``HOST:PORT``"""

    def __init__(self, socket: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._socket = socket
        self._clock = clock
        self._streams: Streams | None = None
        self._former: list[Streams] = []

    async def ask(self, commands: Sequence[str], seconds: float = ANSWER_SECONDS) -> list[str]:
        """The answer to each command; "" where there is none. The commands may be carried out twice.

        :raises Unreachable: nothing listens
        :raises DeadlinePassed: no answer in time; it is not known which commands were carried out
        """
        try:
            async with self._clock.timeout(seconds):
                answers = await self._present(commands)
        except TimeoutError:
            self._drop()
            raise DeadlinePassed(f"asking HAProxy at {self._socket}", seconds) from None
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or str(error)
            raise Unreachable(f"HAProxy at {self._socket} cannot be asked: {reason}") from None
        except asyncio.CancelledError:  # a late answer would be taken for the next one
            self._drop()
            raise
        await self._tell_former(commands, seconds)
        return answers

    def close(self) -> None:
        self._drop()
        while self._former:
            self._former.pop()[1].transport.abort()

    async def _present(self, commands: Sequence[str]) -> list[str]:
        if self._streams is not None:
            try:
                info, *answers = await self._say(self._streams, [ASK, *commands])
                if STOPPING not in info.splitlines():
                    return answers
                self._former.append(self._streams)
                self._streams = None
            except (OSError, EOFError):  # HAProxy was restarted, or has ended an idle connection
                self._drop()
        return await self._say(await self._connected(), commands)

    async def _tell_former(self, commands: Sequence[str], seconds: float) -> None:
        """Their answers do not matter."""
        for streams in list(self._former):
            over = True
            try:
                async with self._clock.timeout(seconds):
                    info = (await self._say(streams, [*commands, ASK]))[-1]
                over = IDLE in info.splitlines()
            except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
                pass
            finally:
                if over:
                    self._former.remove(streams)
                    streams[1].transport.abort()

    async def _connected(self) -> Streams:
        if self._socket.startswith("/"):
            streams = await asyncio.open_unix_connection(self._socket, limit=LARGEST_ANSWER_BYTES)
        else:
            host, port = split(self._socket)
            streams = await asyncio.open_connection(
                host.strip("[]"), port, limit=LARGEST_ANSWER_BYTES
            )
        self._streams = streams
        await self._say(streams, ["prompt"])
        return streams

    async def _say(self, streams: Streams, commands: Sequence[str]) -> list[str]:
        reader, writer = streams
        writer.write("".join(f"{command}\n" for command in commands).encode())
        return [
            (await reader.readuntil(PROMPT)).decode().removesuffix("\n> ").strip() for _ in commands
        ]

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
