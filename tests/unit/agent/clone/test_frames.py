"""A stream of a server's data is whole, or it is refused."""

from __future__ import annotations

import os
import random

import pytest

from holdfast.agent.clone.frames import (
    ALIVE,
    HEAD,
    BrokenStream,
    Frame,
    FrameKind,
    FrameSender,
    received,
)

DATA = [os.urandom(5000), b"", b"x" * 100_000, os.urandom(1)]


def stream() -> list[bytes]:
    sender = FrameSender()
    frames = [sender.fields(FrameKind.OPENING, bytes=7)]
    frames += [sender.data(piece, packed=number % 2 == 0) for number, piece in enumerate(DATA)]
    frames.insert(3, ALIVE)
    return [*frames, sender.fields(FrameKind.END, status=0)]


def read(*pieces: bytes) -> list[Frame]:
    return list(received(pieces))


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_what_was_sent_comes_however_it_is_cut(size: int) -> None:
    whole = b"".join(stream())
    frames = read(*(whole[i : i + size] for i in range(0, len(whole), size)))
    assert [frame.payload for frame in frames if frame.kind is FrameKind.DATA] == DATA
    assert frames[0].fields() == {"bytes": 7}
    assert frames[-1].fields() == {"status": 0}
    assert sum(frame.wire_bytes for frame in frames) == len(whole)


def test_a_stream_that_ends_anywhere_before_its_end_is_refused() -> None:
    whole = b"".join(stream())
    for length in {*range(0, len(whole), 97), len(whole) - 1}:
        with pytest.raises(BrokenStream):
            read(whole[:length])


def test_a_bit_that_is_wrong_anywhere_is_refused() -> None:
    whole = b"".join(stream())
    draw = random.Random(7)
    heads, start = set(), 0
    for frame in stream():
        heads |= set(range(start, start + HEAD.size))
        start += len(frame)
    for place in sorted(heads | {draw.randrange(len(whole)) for _ in range(300)}):
        torn = bytearray(whole)
        torn[place] ^= 1 << draw.randrange(8)
        with pytest.raises(BrokenStream):
            read(bytes(torn))


@pytest.mark.parametrize("change", ["lost", "twice", "exchanged"])
def test_frames_that_are_lost_doubled_or_exchanged_are_refused(change: str) -> None:
    frames = stream()
    match change:
        case "lost":
            del frames[1]
        case "twice":
            frames.insert(1, frames[1])
        case "exchanged":
            frames[1], frames[4] = frames[4], frames[1]
    with pytest.raises(BrokenStream):
        read(*frames)


def test_a_payload_of_any_size_is_not_waited_for() -> None:
    with pytest.raises(BrokenStream, match="no stream of frames"):
        read(HEAD.pack(FrameKind.DATA, 1 << 31, 0))
