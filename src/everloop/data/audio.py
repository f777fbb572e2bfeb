"""Sound as numbers: waveforms from files, and their log-mel features.

A feature is the logarithm of the energy in one of F bands of the spectrum, 100 times a second: windows of 25 ms, 10 ms
apart, each times a Hann window and Fourier transformed; triangular bands of height 1, evenly spaced on the mel scale of
O'Shaughnessy 1987, 2595 log10(1 + f / 700) (the one that HTK and Kaldi use; librosa's default is Slaney's).
"""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data.examples import Examples
from everloop.data.reading.tables import BadRows
from everloop.data.reading.text_files import read_text

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")

WINDOW, HOP = 0.025, 0.010  # seconds
HIGHEST_RATE = 16_000  # samples per second: speech has little above 8 kHz
LOWEST_BAND = 20.0  # Hz
FLOOR = 1e-7  # energy of a band; the rounding of 16-bit samples leaves some 1e-8
RANGE = 17.0  # nats: what is 74 dB below the loudest band of its sound counts as silence
SILENCE = 1e-3  # a clip whose largest sample is below holds nothing to hear: -60 dB
CLIPPED = 0.01  # share of the samples at full scale


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound of one channel. samples: float32 [N], from -1 to 1; rate: samples per second."""

    modality: ClassVar[str] = "audio"

    samples: np.ndarray
    rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise ValueError(
                f"samples are {samples.dtype} of shape {samples.shape}; expected floats from -1 to 1 of shape [N] "
                "(16-bit samples: divide by 32768; several channels: their mean)"
            )
        if not np.isfinite(samples).all():
            raise ValueError("samples hold values that are not finite; expected numbers from -1 to 1")
        if self.rate < 1:
            raise ValueError(f"rate {self.rate} came; expected samples per second, such as 16000")
        object.__setattr__(self, "samples", samples.astype(np.float32, copy=False))

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Waveform:
        """The same sound with another number of samples per second (soxr, high quality)."""
        if rate == self.rate:
            return self
        return Waveform(resample(self.samples, self.rate, rate), rate)


def load(path: str | Path) -> Waveform:
    """The sound of a file; several channels become their mean. ValueError says what is wrong with the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        import soundfile
    except ImportError:
        if path.suffix.lower() != ".wav":
            raise ImportError(f"reading {path.name} needs soundfile: pip install 'everloop[audio]'") from None
        return _load_pcm(path)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as sound: {error.error_string.strip()}") from None
    return _mono(samples, rate, path)


def save(waveform: Waveform, path: str | Path) -> None:
    """Write a 16-bit .wav; samples beyond full scale are cut."""
    whole = np.clip(np.round(waveform.samples * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, waveform.rate, len(whole), "NONE", "not compressed"))
        file.writeframes(whole.tobytes())


def resample(samples: np.ndarray, before: float, after: float, quality: str = "HQ") -> np.ndarray:
    """Samples [N] at one rate as [about N * after / before] at another. quality: soxr's, "LQ" is twice as fast."""
    try:
        import soxr
    except ImportError:
        raise ImportError(
            f"sound of {before:g} Hz where {after:g} Hz is wanted needs soxr: pip install 'everloop[audio]'"
        ) from None
    return soxr.resample(np.ascontiguousarray(samples, dtype=np.float32), before, after, quality)


def faults(waveform: Waveform) -> str:
    """What is wrong with a sound that can be used all the same: silent, or cut off at full scale; else nothing."""
    loud = np.abs(waveform.samples)
    if loud.max(initial=0.0) < SILENCE:
        return "silent"
    return "clipped" if (loud > 0.999).mean() > CLIPPED else ""


@dataclass(frozen=True, eq=False)
class AudioCodec:
    """Sounds to standardised log-mel features, float32 [T, F] with T = 1 + (seconds - 0.025) // 0.010.

    An input is a path or a `Waveform`. `fit` takes the mean and the standard deviation of every band over all frames of
    the training inputs, and the rate: the lowest that occurs, 16 kHz at most, so that no band is empty in some of them;
    everything else is resampled to it. bands: F; left out, 40 up to 8 kHz and 80 above. centre: every sound's own mean
    of each band is taken off first, which removes the microphone and the loudness (cepstral mean normalisation), but
    needs the whole sound: leave it out to go live. deltas: the slope of each band over 5 frames as F further features.
    """

    modality: ClassVar[str] = "audio"

    rate: int
    bands: int
    centre: bool
    deltas: bool
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(
        cls,
        inputs: Sequence[Any],
        *,
        rate: int | None = None,
        bands: int | None = None,
        centre: bool = True,
        deltas: bool = False,
    ) -> Self:
        if not len(inputs):
            raise ValueError("no sounds came; expected at least one to fit the features to")
        rate = rate or min(HIGHEST_RATE, min(waveform_of(one).rate for one in inputs))
        bands = bands or (40 if rate <= 8_000 else 80)
        width = bands * (2 if deltas else 1)
        plain = cls(rate, bands, centre, deltas, np.zeros(width, np.float32), np.ones(width, np.float32))
        frames, total, squares = 0, np.zeros(width), np.zeros(width)
        for one in inputs:
            values = plain.encode(one).astype(np.float64)
            frames, total, squares = frames + len(values), total + values.sum(0), squares + (values**2).sum(0)
        mean = total / frames
        deviation = np.sqrt(np.maximum(squares / frames - mean**2, 1e-6))
        return cls(rate, bands, centre, deltas, mean.astype(np.float32), deviation.astype(np.float32))

    @property
    def features(self) -> int:
        return self.bands * (2 if self.deltas else 1)

    def encode(self, sound: Any, warp: float = 1.0) -> np.ndarray:
        """One sound. warp: factor on the frequencies of the bands (vocal tract length perturbation)."""
        values = log_mel(waveform_of(sound).at(self.rate), self.bands, warp)
        if self.centre:
            values = np.maximum(values, values.max() - RANGE)
            values = values - values.mean(0)
        if self.deltas:
            values = np.concatenate([values, slopes(values)], 1)
        return (values - self.mean) / self.deviation

    def encode_batch(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return [self.encode(one) for one in inputs]

    def describe(self) -> str:
        extra = " and their slopes" if self.deltas else ""
        centred = ", each sound around its own mean" if self.centre else ""
        return f"{self.bands} log-mel bands{extra} of sound at {self.rate:,} Hz, every 10 ms{centred}"

    def to_json(self) -> str:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        kept = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}
        return json.dumps({"modality": self.modality, **kept}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            found = json.loads(text)
            if found["modality"] != cls.modality:
                raise ValueError(f"modality {found['modality']!r} came")
            mean, deviation = (np.asarray(found[name], dtype=np.float32) for name in ("mean", "deviation"))
            codec = cls(
                int(found["rate"]), int(found["bands"]), bool(found["centre"]), bool(found["deltas"]), mean, deviation
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"this is no audio codec of Everloop ({type(error).__name__}: {error}); "
                "expected what AudioCodec.to_json() gave"
            ) from None
        if not len(mean) == len(deviation) == codec.features:
            raise ValueError(f"the audio codec has {codec.features} features and {len(mean)} means; it is damaged")
        return codec


def waveform_of(sound: Any) -> Waveform:
    """The waveform of an input: itself, or what is in the file."""
    if isinstance(sound, Waveform):
        return sound
    if isinstance(sound, str | Path):
        return load(sound)
    raise TypeError(f"a {type(sound).__name__} came; expected the path of a sound file, or a Waveform(samples, rate)")


def log_mel(waveform: Waveform, bands: int, warp: float = 1.0) -> np.ndarray:
    """The natural logarithm of the energy in every band, float32 [T, bands]; no less than FLOOR is taken for it.

    warp: above 1, every band looks at that much higher frequencies (see `mel_filters`).
    """
    window, hop = round(WINDOW * waveform.rate), round(HOP * waveform.rate)
    if len(waveform.samples) < window:
        raise ValueError(
            f"a sound of {waveform.seconds:.3f} s came; expected {WINDOW} s or more, the length of a window"
        )
    filters = mel_filters(waveform.rate, bands, warp)
    frames = np.lib.stride_tricks.sliding_window_view(waveform.samples, window)[::hop]
    spectrum = np.fft.rfft(frames * _hann(window), 2 * (filters.shape[1] - 1))
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(np.maximum(power @ filters.T, FLOOR, dtype=np.float32))


@lru_cache(maxsize=256)
def mel_filters(rate: int, bands: int, warp: float = 1.0) -> np.ndarray:
    """Weights of the power spectrum's bins in every band, float32 [bands, bins].

    Bands lie between 20 Hz and half the rate. The Fourier transform is as long as the window, rounded up to a power of
    two, and longer where a band would else fall between two bins. warp: the edges of the bands are multiplied by it up
    to 0.8 of the highest frequency, beyond that stretched so that the highest stays (Jaitly, Hinton 2013).
    """
    highest = rate / 2
    edges = _frequency(np.linspace(_mel(LOWEST_BAND), _mel(highest), bands + 2))
    knee = 0.8 * highest * min(1.0, 1 / warp)
    slope = (highest - warp * knee) / (highest - knee)
    edges = np.where(edges <= knee, warp * edges, highest - slope * (highest - edges))
    length = 1 << math.ceil(math.log2(WINDOW * rate))
    while True:
        bins = _mel(np.arange(length // 2 + 1) * rate / length)
        low, middle, high = (_mel(edges[k : k + bands, None]) for k in range(3))
        filters = np.maximum(0.0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
        if (filters.max(1) > 0).all():
            return filters.astype(np.float32)
        if length > 4 * WINDOW * rate:
            raise ValueError(f"{bands} bands came for {rate:,} Hz; expected fewer, since some hold no frequency")
        length *= 2


def slopes(values: np.ndarray) -> np.ndarray:
    """The slope of each feature over 5 frames (Furui 1986), [T, F] as they come; ends are repeated."""
    padded = np.pad(values, ((2, 2), (0, 0)), "edge")
    near, far = padded[3:-1] - padded[1:-3], padded[4:] - padded[:-4]
    return ((near + 2 * far) / 10).astype(np.float32)


def read_folder(folder: Path, name: str, asked: Asked) -> Examples | None:
    """A folder in the form of LibriSpeech: `speaker/chapter/ID.flac`, and there `*.trans.txt` with a line `ID TEXT` for
    each; recordings of one speaker are a group. None for other folders."""
    lists = sorted(path for below in ("", "*/", "*/*/") for path in folder.glob(f"{below}*.trans.txt"))
    if not lists:
        return None
    asked.refuse_columns(f"{name} is a folder of recordings with their texts")
    bad = BadRows(name, asked.bad_rows)
    inputs: list[Path] = []
    targets: list[str] = []
    rows: list[int] = []
    lines = [(path, line) for path in lists for line in read_text(path, asked.encoding).splitlines() if line.strip()]
    for row, (path, line) in enumerate(lines, start=1):
        key, _, text = line.strip().partition(" ")
        sound = next((one for end in EXTENSIONS if (one := path.parent / f"{key}{end}").is_file()), None)
        if sound is None or not text.strip():
            problem = (
                f"there is no recording {key}{EXTENSIONS[0]} (or .flac ...) beside it" if text else "it has no text"
            )
            bad.add(f"{path.relative_to(folder).as_posix()}, {key}", problem)
            continue
        inputs.append(sound)
        targets.append(text.strip())
        rows.append(row)
    texts = None if asked.want_target == "no" else targets
    speakers = [path.stem.split("-")[0] for path in inputs]
    return Examples(inputs, texts, name, "folder", rows, bad.notes(), modality="audio", groups=speakers)


def usable(inputs: Sequence[Any], shortest: Sequence[float] | None = None) -> Iterator[tuple[int, float, str, bool]]:
    """Look at every input: its place, its seconds, what is wrong with it (or nothing), and whether it can be used.

    shortest: seconds that each needs at least; the length of a window unless given.
    """
    for place, sound in enumerate(inputs):
        try:
            waveform = waveform_of(sound)
        except (ValueError, FileNotFoundError) as error:
            yield place, 0.0, str(error), False
            continue
        needed = WINDOW if shortest is None else max(WINDOW, shortest[place])
        if waveform.seconds < needed:
            found = "empty" if not len(waveform.samples) else f"{waveform.seconds:.3f} s long"
            yield place, waveform.seconds, f"{found}; expected {needed:.3f} s or more", False
            continue
        yield place, waveform.seconds, faults(waveform), True


def told(found: dict[str, list[str]]) -> tuple[str, ...]:
    """A sentence for each kind of fault, with the first that has it."""
    return tuple(f"{count(len(names), 'sound')} {kind}: {names[0]}" for kind, names in found.items())


def _load_pcm(path: Path) -> Waveform:
    """A plain .wav without soundfile: 8, 16, 24 or 32 bits."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as a plain .wav ({error}); "
            "other kinds need soundfile: pip install 'everloop[audio]'"
        ) from None
    data = data[: len(data) // (channels * width) * channels * width].reshape(-1, width)
    if width == 1:  # the only one without a sign
        data = data - np.uint8(128)
    wide = np.zeros((len(data), 4), np.uint8)
    wide[:, 4 - width :] = data
    samples = wide.view("<i4")[:, 0].astype(np.float64) / 2**31
    return _mono(samples.astype(np.float32).reshape(-1, channels), rate, path)


def _mono(samples: np.ndarray, rate: int, path: Path) -> Waveform:
    try:
        return Waveform(samples.mean(1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0], rate)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@lru_cache(maxsize=8)
def _hann(length: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def _mel(frequency: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def _frequency(mel: Any) -> Any:
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)
