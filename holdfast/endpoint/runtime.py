"""HAProxy's runtime API: commands over one connection that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.config.endpoints import split
from holdfast.errors import DeadlinePassed, Unreachable

ANSWER_SECONDS = 1.0
LARGEST_ANSWER_BYTES = 1024 * 1024
PROMPT = b"\n> "


class RuntimeApi:
    """:param socket: a path, or ``HOST:PORT``"""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, commands: Sequence[str], seconds: float = ANSWER_SECONDS) -> list[str]:
        """The answer to each command; "" where there is nothing to say. They may be carried out twice.

        :raises Unreachable: nobody listens
        :raises DeadlinePassed: no answer in time; what of it was done is not known
        """
        try:
            async with asyncio.timeout(seconds):
                if self._streams is not None:
                    try:
                        return await self._say(self._streams, commands)
                    except (OSError, EOFError):  # it was restarted, or has ended an idle connection
                        self._drop()
                return await self._say(await self._connected(), commands)
        except TimeoutError:
            self._drop()
            raise DeadlinePassed(f"asking HAProxy at {self._socket}", seconds) from None
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or str(error)
            raise Unreachable(f"HAProxy at {self._socket} cannot be asked: {reason}") from None
        except asyncio.CancelledError:  # what it answers now would be taken for the next answer
            self._drop()
            raise

    def close(self) -> None:
        self._drop()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
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

    async def _say(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], commands: Sequence[str]
    ) -> list[str]:
        reader, writer = streams
        writer.write("".join(f"{command}\n" for command in commands).encode())
        return [
            (await reader.readuntil(PROMPT)).decode().removesuffix("\n> ").strip() for _ in commands
        ]

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
