"""How a copy of a server's data is sent over a connection: in frames that cannot be lost, torn or exchanged unnoticed.

A frame is a kind (one byte), the length of its payload and a CRC-32 (4 bytes each, big-endian). The CRC continues that
of the frame before, so each frame also checks all earlier ones. The first frame is OPENING (JSON), the last is END
(JSON). A stream without an END is never taken for a whole one, whatever closed the connection.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import zstandard

from holdfast.errors import Refused

HEAD = struct.Struct(">BII")
LARGEST_PAYLOAD = 16 * 1024 * 1024
LEVEL = 1


class FrameKind(IntEnum):
    """ALIVE has no payload: it says that the sender is still there. PACKED is DATA compressed with zstd."""

    OPENING = 1
    DATA = 2
    PACKED = 3
    ALIVE = 4
    END = 5


ALIVE = HEAD.pack(FrameKind.ALIVE, 0, 0)
"""May stand between any two frames; it is not included in their checksums."""


_KNOWN = frozenset(int(kind) for kind in FrameKind)


class BrokenStream(Refused):
    """What was received is not what was sent, or not all of it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """:ivar payload: decompressed; :ivar wire_bytes: how many bytes the connection carried for it"""

    kind: FrameKind
    payload: bytes
    wire_bytes: int

    def fields(self) -> Mapping[str, Any]:
        """The fields of an OPENING or END."""
        said = json.loads(self.payload)
        if not isinstance(said, dict):
            raise BrokenStream(f"a frame {self.kind.name} without fields")
        return said


def _chained(crc: int, kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(bytes([kind]), crc))


class FrameSender:
    """Makes frames."""

    def __init__(self) -> None:
        self._crc = 0
        self._packer = zstandard.ZstdCompressor(level=LEVEL)

    def fields(self, kind: FrameKind, **said: Any) -> bytes:
        return self._frame(kind, json.dumps(said).encode())

    def data(self, payload: bytes, packed: bool) -> bytes:
        if packed:
            return self._frame(FrameKind.PACKED, self._packer.compress(payload))
        return self._frame(FrameKind.DATA, payload)

    def _frame(self, kind: FrameKind, payload: bytes) -> bytes:
        self._crc = _chained(self._crc, kind, payload)
        return HEAD.pack(kind, len(payload), self._crc) + payload


def received(pieces: Iterable[bytes]) -> Iterator[Frame]:
    """Yield the frames in ``pieces``, which may be cut anywhere; ends with the END.

    :raises BrokenStream: as soon as something is wrong, and where the pieces end before the END
    """
    crc, held = 0, bytearray()
    unpacker = zstandard.ZstdDecompressor()
    for piece in pieces:
        held += piece
        while len(held) >= HEAD.size:
            number, length, said = HEAD.unpack_from(held)
            if number not in _KNOWN or length > LARGEST_PAYLOAD:
                raise BrokenStream("what came is no stream of frames")
            end = HEAD.size + length
            if len(held) < end:
                break
            with memoryview(held) as view:
                payload = bytes(view[HEAD.size : end])
            del held[:end]
            if number == FrameKind.ALIVE and not length and not said:
                yield Frame(FrameKind.ALIVE, b"", end)
                continue
            crc = _chained(crc, number, payload)
            if crc != said:
                raise BrokenStream("a checksum is wrong: what came is not what was sent")
            kind = FrameKind(number)
            if kind is FrameKind.PACKED:
                try:
                    payload = unpacker.decompress(payload, max_output_size=LARGEST_PAYLOAD)
                except zstandard.ZstdError as error:
                    raise BrokenStream(f"a frame cannot be decompressed: {error}") from error
                kind = FrameKind.DATA
            yield Frame(kind, payload, end)
            if kind is FrameKind.END:
                return
    raise BrokenStream("the stream ended before its end")
