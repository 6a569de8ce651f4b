"""Sound for Whisper-like towers: a log-mel spectrogram, of which every 40 ms become one token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config, EncoderInput, Layout
from sensorium.families.log_mel import LogMel


@dataclass(frozen=True)
class WhisperAudioProcessor:
    """One clip, at most as long as the tower's window; see `families.family.AudioProcessor`."""

    mel: LogMel

    @classmethod
    def read(cls, settings: Config, *, num_mels: int, max_rows: int) -> WhisperAudioProcessor:
        """Read preprocessor_config.json, for a tower of `max_rows` rows, each two frames of `num_mels` bands.

        Raises:
            ConfigurationError: the spectrograms it describes do not fit the tower, or cannot be made here.
        """
        wrong = {key: settings[key] for key in ("dither", "padding_value", "do_normalize") if settings.get(key)}
        if wrong:
            raise ConfigurationError(f"preprocessor_config.json has {wrong}; supported: these keys 0, false or absent.")
        rate = int(settings.get("sampling_rate", 16000))
        mel = LogMel(
            num_mels=int(settings.get("feature_size", 80)),
            rate=rate,
            fft_size=int(settings.get("n_fft", 400)),
            hop=int(settings.get("hop_length", 160)),
            max_samples=int(settings.get("chunk_length", 30)) * rate,
        )
        if (mel.num_mels, mel.max_samples) != (num_mels, 2 * max_rows * mel.hop):
            raise ConfigurationError(
                f"preprocessor_config.json makes {mel.num_mels} bands and {mel.max_samples / mel.hop:g} frames "
                f"(feature_size, chunk_length); the tower in config.json takes {num_mels} bands and {2 * max_rows} "
                "frames."
            )
        return cls(mel)

    @property
    def rate(self) -> int:
        """Samples per second that a call expects."""
        return self.mel.rate

    @property
    def max_seconds(self) -> float:
        """The longest clip."""
        return self.mel.max_samples / self.mel.rate

    def num_rows(self, num_samples: int) -> int:
        """Rows of the tower: one for every second frame, the first included."""
        return (self.mel.num_frames(num_samples) + 1) // 2

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of the prompt: one for every whole pair of rows, so none for 20 ms or less."""
        return self.num_rows(num_samples) // 2

    def layout(self, num_samples: int) -> Layout:
        """Return what a clip of this length takes in the prompt.

        Raises:
            ValueError: it is too long, or too short to become a token; the text is for the user.
        """
        rate, most, least = self.mel.rate, self.mel.max_samples, 2 * self.mel.hop + 1
        if num_samples > most:
            raise ValueError(
                f"The sound is {num_samples / rate:.2f} s long ({num_samples} samples at {rate} Hz); this model hears "
                f"at most {most / rate:g} s ({most} samples) of one. Choose a part of it with `start` and `end`, or "
                "send it as several shorter ones."
            )
        if num_samples < least:
            raise ValueError(
                f"The sound has {num_samples} samples at {rate} Hz; this model needs at least {least}, "
                f"{1000 * least / rate:.0f} ms. Send a longer one."
            )
        return Layout((0, 0, 0), self.num_tokens(num_samples))

    def __call__(self, samples: npt.NDArray[np.float32], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (num_samples,) mono at `rate` into `input_features`, (num_mels, num_frames) float32.

        There are twice as many frames as the tower has rows for the clip, and the one behind them, which the tower's
        convolutions see from the last row; behind the longest clip there is none.

        Raises:
            ValueError: as for `layout`.
        """
        layout, rows = self.layout(len(samples)), self.num_rows(len(samples))
        features = self.mel(samples)[:, : 2 * rows + 1].contiguous()
        return EncoderInput({"input_features": features}, layout, cost=rows, encoder="audio")

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: nothing can be chosen."""
        return {}

    def within(self, max_tokens: int) -> WhisperAudioProcessor:
        """See `families.family.Processor`: a clip is as long as it is, whatever `max_tokens`."""
        return self

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal clips would give other features."""
        return json.dumps(["whisper_audio 1", *vars(self.mel).values()]).encode()
