"""What the child for pictures answers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from PIL import Image

from sensorium.media.channel import PICTURE, PIXELS
from sensorium.media.image import decode_rgb

_BAND_BYTES = 1 << 20  # pixels are packed and sent in bands, so that the parent reads one while the next is made


def answer(channel: socket.socket, wanted: dict[str, Any], files: Sequence[bytearray], limits: dict[str, Any]) -> None:
    """Send one picture.

    Raises:
        Rejected: it is not accepted.
    """
    image = decode_rgb(files[0], limits["max_pixels"], limits["max_aspect_ratio"])
    width, height = image.size
    channel.sendall(PIXELS + PICTURE.pack(height, width))
    send_pixels(channel, image)


def send_pixels(channel: socket.socket, image: Image.Image) -> None:
    """Send the pixels of an RGB image, row by row.

    Raises:
        SystemExit: there is no memory left. In the middle of pixels nothing else can be said.
    """
    width, height = image.size
    num_rows = max(1, _BAND_BYTES // (3 * width))
    try:
        for top in range(0, height, num_rows):
            band = image if num_rows >= height else image.crop((0, top, width, min(top + num_rows, height)))
            channel.sendall(band.tobytes())
    except MemoryError:
        raise SystemExit(1) from None
