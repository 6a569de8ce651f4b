"""Noise that is not the matter of a clip. HELD_OUT kinds are never trained on."""

import numpy as np

RATE = 16000
FAST = 4096  # multiples of it are transformed quickly
KINDS = ["white", "pink", "hum", "band", "fan"]
HELD_OUT = ["brown", "crackle", "rumble and hiss"]


def _coloured(noise: np.random.Generator, count: int, slope: float) -> np.ndarray:
    """Noise whose loudness falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(noise.standard_normal(count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 40.0)
    return np.fft.irfft(spectrum * hertz**-slope, count)


def make(rng, kind: str, count: int) -> np.ndarray:
    """(count,) float32 with a root mean square of 1."""
    out = _make(rng, kind, -(-count // FAST) * FAST)[:count]
    return (out / max(1e-9, np.sqrt(np.square(out).mean()))).astype(np.float32)


def _make(rng, kind: str, count: int) -> np.ndarray:
    noise = np.random.default_rng(rng.getrandbits(32))
    t = np.arange(count) / RATE
    if kind == "white":
        out = noise.standard_normal(count)
    elif kind == "pink":
        out = _coloured(noise, count, 0.5)
    elif kind == "brown":
        out = _coloured(noise, count, 1.0)
    elif kind == "hum":
        base = rng.uniform(48, 62)
        out = sum(rng.random() / k * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6.28)) for k in range(1, 9))
        out = out + 0.05 * noise.standard_normal(count)
    elif kind == "band":
        spectrum = np.fft.rfft(noise.standard_normal(count))
        hertz = np.fft.rfftfreq(count, 1 / RATE)
        low = rng.uniform(60, 3000)
        out = np.fft.irfft(spectrum * ((hertz > low) & (hertz < low * rng.uniform(2, 5))), count)
        out = out + 0.02 * noise.standard_normal(count)
    elif kind == "fan":  # swelling and ebbing
        out = _coloured(noise, count, rng.uniform(0.2, 0.9))
        out = out * (1 + rng.uniform(0.2, 0.8) * np.sin(2 * np.pi * rng.uniform(0.3, 6) * t))
    elif kind == "crackle":
        out = noise.standard_normal(count) * (noise.random(count) < 0.004) + 0.03 * noise.standard_normal(count)
    else:
        out = _coloured(noise, count, 1.0) / 100 + 0.2 * _coloured(noise, count, -0.3)
    return np.asarray(out)
