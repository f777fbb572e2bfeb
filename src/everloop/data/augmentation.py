"""Sounds a little changed, for training: as another voice, another room or another microphone might have given them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.data.audio import AudioCodec, Waveform, resample, waveform_of

WARPS = 41
"""How many different warps there are: each has its own filters, which are kept."""


@dataclass(frozen=True)
class AudioAugmentation:
    """What may be done to a sound, drawn anew each time. 0 leaves a change out.

    speed: share by which it is played faster or slower, pitch and all (Ko et al. 2015). warp: share by which the bands
    are shifted, as a longer or shorter vocal tract does (Jaitly, Hinton 2013). noise: the loudest white noise, as a
    share of the loudest sample; how loud is even on a logarithmic scale, from a thousandth of that. gain: decibels by
    which it is louder or softer, which centred features do not show. bands, steps: bands, and time steps of 10 ms, in
    each of two masks at most, which are set to the mean (SpecAugment, Park et al. 2019); of time steps no more than an
    eighth of the sound.
    """

    speed: float = 0.1
    warp: float = 0.15
    noise: float = 0.03
    gain: float = 0.0
    bands: int = 4
    steps: int = 4

    def encode(self, codec: AudioCodec, sound: Any, rng: np.random.Generator) -> np.ndarray:
        """The features of a changed sound, float32 [T, F]."""
        waveform = self._changed(waveform_of(sound).at(codec.rate), rng)
        warp = 1 + self.warp * (2 * int(rng.integers(WARPS)) / (WARPS - 1) - 1)
        return self._masked(codec.encode(waveform, warp), codec.bands, rng)

    def _changed(self, waveform: Waveform, rng: np.random.Generator) -> Waveform:
        samples, rate = waveform.samples, waveform.rate
        if self.speed:
            samples = resample(samples, rate * (1 + rng.uniform(-self.speed, self.speed)), rate, "LQ")
        if self.gain:
            samples = samples * np.float32(10 ** (rng.uniform(-self.gain, self.gain) / 20))
        if self.noise:
            loudness = self.noise * 10 ** rng.uniform(-3, 0) * np.abs(samples).max(initial=0.0)
            samples = samples + np.float32(loudness) * rng.standard_normal(len(samples), dtype=np.float32)
        return Waveform(samples, rate)

    def _masked(self, values: np.ndarray, bands: int, rng: np.random.Generator) -> np.ndarray:
        hidden = np.zeros(values.shape, bool)
        for _ in range(2):
            begin, end = _stretch(bands, min(self.bands, bands // 2), rng)
            hidden[:, begin:end] = hidden[:, bands + begin : bands + end] = True  # a band's slope lies behind the bands
            begin, end = _stretch(len(values), min(self.steps, len(values) // 8), rng)
            hidden[begin:end] = True
        return np.where(hidden, np.float32(0), values)


def _stretch(length: int, longest: int, rng: np.random.Generator) -> tuple[int, int]:
    """Where up to `longest` neighbours of `length` begin and end."""
    width = int(rng.integers(longest + 1))
    begin = int(rng.integers(length - width + 1))
    return begin, begin + width
