"""Speech from espeak-ng, and where in it each word begins."""

import ctypes
from functools import cache

import numpy as np

LIBRARY = "libespeak-ng.so.1"
_SYNCHRONOUS, _UTF8, _WORD = 2, 1, 1
_RATE, _PITCH, _RANGE, _GAP = 1, 3, 4, 7


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int64),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    def __init__(self):
        try:
            self.lib = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise SystemExit(f"{LIBRARY} is missing: apt-get install espeak-ng ({error})") from error
        self.rate = self.lib.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._heard = _CALLBACK(self._hear)  # kept: the library calls it as long as it lives
        self.lib.espeak_SetSynthCallback(self._heard)

    def _hear(self, wave, count, events):
        if wave and count > 0:
            self.parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == _WORD and events[i].length:
                self.words.append(events[i].sample)
            i += 1
        return 0


@cache
def _espeak() -> _Espeak:
    """One for this process."""
    return _Espeak()


def say(voice: str, text: str, speed=160, pitch=50, melody=50, gap=0) -> tuple[np.ndarray, list[int], int]:
    """Samples, float32 in -1..1; the first sample of every word; samples per second.

    `speed` is in words a minute, `pitch` and `melody` (how much the pitch moves) from 0 to 99, `gap` between words
    in hundredths of a second.
    """
    espeak = _espeak()
    espeak.parts, espeak.words = [], []
    if espeak.lib.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak-ng knows no voice {voice!r}.")
    for what, value in ((_RATE, speed), (_PITCH, pitch), (_RANGE, melody), (_GAP, gap)):
        espeak.lib.espeak_SetParameter(what, round(value), 0)
    raw = text.encode() + b"\0"
    espeak.lib.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 1, 0, _UTF8, None, None)
    espeak.lib.espeak_Synchronize()
    return np.concatenate(espeak.parts).astype(np.float32) / 32768, list(espeak.words), espeak.rate
