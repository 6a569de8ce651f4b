"""Sound as Whisper's encoder sees it: the logarithm of how loud each of some pitches is, a hundred times a second.

Equal to transformers' `WhisperFeatureExtractor`, but frames that can hold nothing but silence are not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from sensorium.model.config import check_numbers

_TOP_HERTZ = 8000.0  # of the highest band, whatever the rate
_FLOOR = 1e-10  # power below which all is silence
_RANGE = 8.0  # powers of ten that are kept below the clip's loudest value


@dataclass(frozen=True)
class LogMel:
    """The shape of a spectrogram.

    Attributes:
        num_mels: bands of pitch.
        rate: samples per second.
        fft_size: samples in a frame's window.
        hop: samples from one frame to the next.
        max_samples: the longest clip; shorter ones count as followed by silence up to here.
    """

    num_mels: int
    rate: int
    fft_size: int
    hop: int
    max_samples: int

    def __post_init__(self) -> None:
        check_numbers(self, "preprocessor_config.json")

    @property
    def max_frames(self) -> int:
        """Frames of the longest clip."""
        return self.max_samples // self.hop

    def num_frames(self, num_samples: int) -> int:
        """Frames that begin within the clip."""
        return -(-num_samples // self.hop)

    def __call__(self, samples: npt.NDArray[np.float32]) -> torch.Tensor:
        """Turn (num_samples,) float32 in -1..1 into (num_mels, n) float32, n >= min(num_frames + 2, max_frames).

        Behind these all frames are as silent as the scale allows. The clip must not be longer than `max_samples`.
        """
        wave = torch.zeros(self.max_samples)
        wave[: len(samples)] = torch.from_numpy(np.require(samples, np.float32, ["C", "W"]))
        half = self.fft_size // 2
        wave = F.pad(wave[None], (half, half), mode="reflect")[0]  # a frame has its sample in the middle
        # All frames whose window reaches into the clip: the loudest of them sets the scale.
        count = min(self.num_frames(len(samples) + self.fft_size), self.max_frames)
        frames = wave.unfold(0, self.fft_size, self.hop)[:count] * torch.hann_window(self.fft_size)
        power = torch.fft.rfft(frames).abs().square()  # (count, fft_size / 2 + 1)
        loudness = (power @ mel_filters(self.num_mels, self.rate, self.fft_size)).clamp(min=_FLOOR).log10()
        scaled: torch.Tensor = (loudness.clamp(min=float(loudness.max()) - _RANGE) + 4.0) / 4.0
        return scaled.T.contiguous()


@cache
def mel_filters(num_mels: int, rate: int, fft_size: int) -> torch.Tensor:
    """Return what each frequency of a Fourier transform adds to each band: (fft_size / 2 + 1, num_mels) float32.

    A band is a triangle from the middle of the one below to the middle of the one above, scaled to equal area. The
    middles are evenly spaced on Slaney's mel scale.
    """
    middles = _hertz(np.linspace(0.0, _mel(_TOP_HERTZ), num_mels + 2))
    bins = np.linspace(0.0, rate // 2, fft_size // 2 + 1)[:, None]
    low, middle, high = middles[:-2], middles[1:-1], middles[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = np.maximum(np.minimum(rising, falling), 0.0)
    return torch.from_numpy((triangles * (2.0 / (high - low))).astype(np.float32))


# Slaney, Auditory Toolbox, 1998: 15 mels linear up to 1000 Hz, from there 27 mels for each factor of 6.4.
_MELS_BELOW, _HERTZ_BELOW = 15.0, 1000.0
_MELS_PER_E = 27.0 / np.log(6.4)


def _mel(hertz: float) -> float:
    """The mel of a frequency of at least 1000 Hz."""
    return float(_MELS_BELOW + np.log(hertz / _HERTZ_BELOW) * _MELS_PER_E)


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mels * (_HERTZ_BELOW / _MELS_BELOW)
    curved = _HERTZ_BELOW * np.exp((mels - _MELS_BELOW) / _MELS_PER_E)
    return np.asarray(np.where(mels < _MELS_BELOW, linear, curved), np.float64)
