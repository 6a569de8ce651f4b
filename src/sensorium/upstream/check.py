"""Look at media before they are handed to another server: limits, truncation and hostile files are met here.

It costs decoding everything once more than needed, in the children that all engine kinds use; errors then name the
item and the limit as everywhere, and no file that kills a decoder gets to the upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sensorium.errors import MediaError
from sensorium.media.decode import Decoder
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaUse, Modality

_FEW = Sampling(fps=None, num_frames=2)  # first and last frame: all packets are counted for it
_RATE = 16_000


class MediaCheck:
    """Checks media items; called from several threads at once.

    Args:
        takes: the kinds that the model takes.
        tokens: by kind of media, the id of the token that its slots in a prompt have, where that is known.
    """

    def __init__(self, limits: MediaLimits, takes: tuple[str, ...], tokens: Mapping[str, int] | None = None) -> None:
        self._decoder = Decoder(limits)
        self._takes, self._tokens = takes, dict(tokens or {})

    def start(self) -> None:
        """Begin to start the child for pictures, where the model takes any."""
        if "image" in self._takes:
            self._decoder.start()

    def check(self, item: MediaItem) -> MediaUse:
        """Return what can be told of an item. Blocks.

        Raises:
            MediaError: it is not what it says, damaged, or over a limit.
        """
        if item.kind not in self._takes:
            raise MediaError(f"{item.where}: this model does not take {item.kind} input.", param=item.where)
        if item.kind == "image":
            pixels = self._decoder.decode_image(item)
            return MediaUse("image", item.where, size=(pixels.shape[0], pixels.shape[1]))
        if item.kind == "video":
            return MediaUse("video", item.where, size=self._decoder.decode_video(item, _FEW, 1 << 16).source_size)
        rate = item.rate or _RATE
        sound = self._decoder.decode_audio(item, rate)
        return MediaUse("audio", item.where, seconds=len(sound.samples) / rate)

    def placed(self, uses: tuple[MediaUse, ...], prompt: list[int]) -> tuple[MediaUse, ...]:
        """Add the items' places in the prompt, as far as runs of their slots tell them apart.

        Args:
            prompt: token ids, slots included.
        """
        found: dict[int, MediaUse] = dict(enumerate(uses))
        for kind, token in self._tokens.items():
            of_kind = [number for number, use in found.items() if use.kind == kind]
            runs = _runs(prompt, token)
            if len(runs) == len(of_kind):
                for number, (offset, length) in zip(of_kind, runs, strict=True):
                    old = found[number]
                    found[number] = MediaUse(
                        cast(Modality, kind), old.where, offset, length, old.size, old.resized, seconds=old.seconds
                    )
        return tuple(found.values())

    def close(self) -> None:
        """End the children."""
        self._decoder.close()


def _runs(ids: list[int], token: int) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for place, found in enumerate(ids):
        if found != token:
            continue
        if runs and sum(runs[-1]) == place:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((place, 1))
    return runs
