"""What the child for sound answers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from sensorium.media.audio import Wanted, decode_sound
from sensorium.media.channel import SAMPLES, SOUND


def answer(channel: socket.socket, wanted: dict[str, Any], files: Sequence[bytearray], limits: dict[str, Any]) -> None:
    """Send the samples of one sound.

    Raises:
        Rejected: it is not accepted.
    """
    part = Wanted(wanted["rate"], wanted["max_seconds"], wanted["start"], wanted["end"])
    samples, source_rate = decode_sound(files[0], wanted["raw_rate"], part)
    channel.sendall(SAMPLES + SOUND.pack(len(samples), source_rate))
    channel.sendall(samples.astype("<f4", copy=False).data)
