from __future__ import annotations

import socket
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.types import Delta, MediaItem, MediaOptions, Request, SamplingParams
from sensorium.worker import frames
from sensorium.worker.channel import BrokenFrame, FrameBuffer, pack
from sensorium.worker.outbox import Outbox


@settings(max_examples=50)
@given(st.lists(st.text("aé中", max_size=50), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_frames_survive_any_cut(texts: list[str], cuts: list[int]) -> None:
    sent = [frames.Loading(text, 0.5) for text in texts]
    data = b"".join(map(pack, sent))
    buffer = FrameBuffer(frames.from_worker)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    received = [frame for start, end in pairwise(edges) for frame in buffer.feed(data[start:end])]
    assert received == sent


def test_media_of_every_kind_cross_whole() -> None:
    media = (
        MediaItem("image", b"png", "a"),
        MediaItem("video", b"", "b", frames=(b"x", b"yy"), options=MediaOptions(fps=0.5, end=3.0)),
        MediaItem("video", bytes(24), "c", (2, 2), times=(0.0, 0.25)),
        MediaItem("audio", bytes(8), "d", rate=0),
        MediaItem("audio", b"mp3", "e", options=MediaOptions(start=1.0)),
    )
    frame = frames.Generate(Request("id", SamplingParams(), prompt="x", media=media))
    assert frames.to_worker.decode(frames.encode(frame)[4:]) == frame


@given(st.binary(min_size=4, max_size=200))
def test_garbage_is_a_broken_frame_or_an_unfinished_one(data: bytes) -> None:
    buffer = FrameBuffer(frames.from_worker, max_frame_bytes=1000)
    try:
        assert all(isinstance(frame, frames.FromWorker) for frame in buffer.feed(data))
    except BrokenFrame:
        return


def test_a_length_over_the_limit_is_refused_before_the_body_comes() -> None:
    buffer = FrameBuffer(frames.from_worker, max_frame_bytes=1000)
    with pytest.raises(BrokenFrame, match="1001 bytes is announced; the limit is 1000"):
        buffer.feed((1001).to_bytes(4, "little"))


def test_a_slow_reader_never_blocks_the_writer_and_gets_everything_merged() -> None:
    ours, theirs = socket.socketpair()
    outbox = Outbox(ours)
    count, size = 2000, 1000
    start = time.monotonic()
    for number in range(count):
        outbox.put(frames.Events([Delta("a", number, "x" * size)]))
    assert time.monotonic() - start < 8  # nobody reads yet
    outbox.put(frames.Beat(1, {}))
    closing = threading.Thread(target=outbox.close, args=(10.0,))
    closing.start()
    buffer, received = FrameBuffer(frames.from_worker), []
    while not (received and isinstance(received[-1], frames.Beat)):
        received += buffer.feed(theirs.recv(1 << 16))
    closing.join()
    events = [event for frame in received if isinstance(frame, frames.Events) for event in frame.events]
    assert [event.index for event in events if isinstance(event, Delta)] == list(range(count))
    assert len(received) < count
    ours.close()
    theirs.close()


def test_a_reader_that_is_gone_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    outbox = Outbox(ours)
    theirs.close()
    for _ in range(3):
        outbox.put(frames.Beat(1, {}))
    outbox.close(1.0)
    ours.close()
