"""What the child for videos answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

from sensorium.media.answer_image import send_pixels
from sensorium.media.channel import FRAME, FRAMES, SECONDS, VIDEO
from sensorium.media.sampling import Sampling
from sensorium.media.video import VideoLimits, picked_frames


def answer(channel: socket.socket, wanted: dict[str, Any], files: Sequence[bytearray], limits: dict[str, Any]) -> None:
    """Send the frames that are wanted, each as soon as it is decoded.

    Raises:
        Rejected: the video is not accepted; some frames may be sent by then.
    """
    ceilings = VideoLimits(
        limits["max_video_s"],
        limits["max_frame_pixels"],
        limits["max_video_pixels"],
        limits["max_pixels"],
        limits["max_aspect_ratio"],
    )
    sampling = Sampling(**wanted["sampling"])
    with picked_frames(files, wanted["listed"], sampling, wanted["max_pixels"], ceilings) as picked:
        count = len(picked.indices)
        source = (picked.num_source_frames, *picked.source_size, picked.source_fps, picked.duration_s)
        header = VIDEO.pack(count, *picked.size, *source) + struct.pack(f"<{count}I", *picked.indices)
        channel.sendall(FRAMES + header)
        for seconds, image in picked.frames:
            channel.sendall(FRAME + SECONDS.pack(seconds))
            send_pixels(channel, image)
