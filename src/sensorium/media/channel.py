"""What the decoder and its child say to each other over a socket pair.

Little-endian:
    parent -> child   u32 length, then a JSON object that says what is wanted and how long each file is, then the files
    child -> parent   once, when ready: b"R"
                      a picture: b"I", PICTURE, then height * width * 3 bytes of RGB
                      a video: b"V", VIDEO, u32 index per frame, then per frame b"F", f64 seconds and its RGB
                      a sound: b"A", SOUND, then float32 samples
                      b"E", u32 length, then "code:reason" in UTF-8; in a video also in the place of a frame
"""

from __future__ import annotations

import socket
import struct

READY = b"R"
PIXELS = b"I"
FRAMES = b"V"
SAMPLES = b"A"
FRAME = b"F"
REFUSED = b"E"
LENGTH = struct.Struct("<I")
PICTURE = struct.Struct("<II")  # height, width
VIDEO = struct.Struct("<IIIIIIdd")  # frames, height, width, source's frames, height, width, fps, seconds
SECONDS = struct.Struct("<d")
SOUND = struct.Struct("<QI")  # samples, the source's rate
REASON_LIMIT = 4096


def receive_into(channel: socket.socket, view: memoryview) -> bool:
    """Fill `view`; False when the other end closed first."""
    while view:
        count = channel.recv_into(view)
        if count == 0:
            return False
        view = view[count:]
    return True


def receive(channel: socket.socket, num_bytes: int) -> bytearray | None:
    """Return exactly `num_bytes`; None when the other end closed first."""
    buffer = bytearray(num_bytes)
    return buffer if receive_into(channel, memoryview(buffer)) else None
