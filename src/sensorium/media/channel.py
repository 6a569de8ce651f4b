"""What the decoder and its child say to each other over a socket pair.

Little-endian:
    parent -> child   u64 length, then the file
    child -> parent   once, when ready: b"R"
                      b"I", u32 height, u32 width, then height * width * 3 bytes of RGB
                      b"E", u32 length, then "code:reason" in UTF-8
"""

from __future__ import annotations

import socket
import struct

READY = b"R"
PIXELS = b"I"
REFUSED = b"E"
LENGTH = struct.Struct("<Q")
SIZE = struct.Struct("<II")
REASON = struct.Struct("<I")


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
