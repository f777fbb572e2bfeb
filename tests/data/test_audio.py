"""Sounds from files, and their features: against tones whose bands are known, and against what the formulas say."""

from __future__ import annotations

import json
import math
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from everloop.data import codecs
from everloop.data.audio import FLOOR, AudioCodec, Waveform, faults, load, log_mel, mel_filters, save, slopes, usable
from everloop.data.augmentation import AudioAugmentation
from everloop.data.files import read_examples
from everloop.testing import FLOAT32, SAME, assert_close

soundfile = pytest.importorskip("soundfile", reason="soundfile is an extra")
pytest.importorskip("soxr", reason="soxr is an extra")


def tone(frequency: float, seconds: float = 0.5, rate: int = 8_000, loudness: float = 0.5) -> Waveform:
    steps = np.arange(round(seconds * rate)) / rate
    return Waveform((loudness * np.sin(2 * np.pi * frequency * steps)).astype(np.float32), rate)


def noise(seconds: float = 0.5, rate: int = 8_000, seed: int = 0) -> Waveform:
    generator = np.random.default_rng(seed)
    return Waveform(0.1 * generator.standard_normal(round(seconds * rate), np.float32), rate)


class TestFiles:
    def test_a_wav_written_is_read(self, tmp_path: Path):
        sound = noise()
        save(sound, tmp_path / "a.wav")
        found = load(tmp_path / "a.wav")
        assert found.rate == 8_000
        assert found.seconds == 0.5
        assert found.samples.dtype == np.float32
        assert np.abs(found.samples - sound.samples).max() <= 0.5 / 32768

    @pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.wav"])
    def test_kinds(self, tmp_path: Path, name: str):
        sound = tone(440, rate=16_000)
        soundfile.write(tmp_path / name, sound.samples, sound.rate)
        found = load(tmp_path / name)
        assert found.rate == 16_000
        # mp3 adds some silence and moves the sound; the tone stays the tone.
        assert log_mel(found, 80)[20].argmax() == log_mel(sound, 80)[20].argmax()

    @pytest.mark.parametrize("width", [1, 2, 3, 4])
    def test_without_soundfile_plain_wavs_are_read_all_the_same(self, tmp_path: Path, monkeypatch, width: int):
        left, right = tone(200), tone(300)
        both = np.stack([left.samples, right.samples], 1)
        soundfile.write(tmp_path / "a.wav", both, 8_000, subtype=("PCM_U8", "PCM_16", "PCM_24", "PCM_32")[width - 1])
        expected = load(tmp_path / "a.wav")
        monkeypatch.setitem(sys.modules, "soundfile", None)
        found = load(tmp_path / "a.wav")
        assert found.rate == expected.rate
        assert_close(found.samples, expected.samples, FLOAT32)
        (tmp_path / "a.flac").touch()
        with pytest.raises(ImportError, match=r"a\.flac needs soundfile: pip install 'everloop\[audio\]'"):
            load(tmp_path / "a.flac")

    def test_channels_become_their_mean(self, tmp_path: Path):
        left, right = tone(200), tone(300)
        soundfile.write(tmp_path / "a.wav", np.stack([left.samples, right.samples], 1), 8_000, subtype="FLOAT")
        assert_close(load(tmp_path / "a.wav").samples, (left.samples + right.samples) / 2, FLOAT32)

    def test_another_rate_is_the_same_sound(self):
        found = tone(440, rate=16_000).at(8_000)
        assert found.rate == 8_000
        assert len(found.samples) == 4_000
        middle = slice(500, 3_500)
        assert np.abs(found.samples[middle] - tone(440).samples[middle]).max() < 1e-3

    def test_what_is_no_sound_is_named(self, tmp_path: Path):
        (tmp_path / "a.wav").write_text("no sound at all")
        with pytest.raises(ValueError, match=r"a\.wav cannot be read as sound"):
            load(tmp_path / "a.wav")
        with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.wav"):
            load(tmp_path / "b.wav")

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            (np.zeros((2, 5), np.float32), r"float32 of shape \(2, 5\)"),
            (np.zeros(5, np.int16), "16-bit samples: divide by 32768"),
            (np.array([0.0, np.nan]), "not finite"),
        ],
    )
    def test_samples_are_checked(self, samples: np.ndarray, message: str):
        with pytest.raises(ValueError, match=message):
            Waveform(samples, 8_000)


class TestFolders:
    def test_of_librispeech(self, tmp_path: Path):
        for speaker, chapter in (("19", "198"), ("26", "495")):
            below = tmp_path / speaker / chapter
            below.mkdir(parents=True)
            lines = []
            for number in range(2):
                key = f"{speaker}-{chapter}-{number:04d}"
                soundfile.write(below / f"{key}.flac", noise().samples, 8_000)
                lines.append(f"{key} THE TEXT {number}\n")
            (below / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
        found = read_examples(tmp_path)
        assert found.modality == "audio"
        assert found.groups == ["19", "19", "26", "26"]
        assert found.targets == ["THE TEXT 0", "THE TEXT 1"] * 2
        assert [path.name for path in found.inputs][:2] == ["19-198-0000.flac", "19-198-0001.flac"]
        (tmp_path / "19" / "198" / "19-198-0001.flac").unlink()
        with pytest.raises(ValueError, match=r"there is no recording 19-198-0001\.wav"):
            read_examples(tmp_path)
        assert len(read_examples(tmp_path, bad_rows="skip")) == 3

    def test_of_recordings_beside_their_texts(self, tmp_path: Path):
        for number in range(3):
            save(noise(), tmp_path / f"{number}.wav")
            (tmp_path / f"{number}.txt").write_text(f"text {number}")
        found = read_examples(tmp_path)
        assert found.modality == "audio"
        assert found.targets == ["text 0", "text 1", "text 2"]


class TestFeatures:
    @pytest.mark.parametrize("frequency", [200, 440, 1_000, 2_500])
    def test_a_tone_is_loudest_in_the_band_around_it(self, frequency: float):
        values = log_mel(tone(frequency), 40)
        mel = 2595 * math.log10(1 + frequency / 700)
        lowest, highest = (2595 * math.log10(1 + f / 700) for f in (20, 4_000))
        assert values.mean(0).argmax() == round((mel - lowest) / (highest - lowest) * 41) - 1

    def test_energies_are_what_the_formula_says(self):
        """Every frame by itself, the Fourier transform written out, in float64."""
        sound = noise(0.06)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
        waves = np.exp(-2j * np.pi * np.arange(129)[:, None] * np.arange(200) / 256)
        expected = [
            np.log(mel_filters(8_000, 30) @ np.abs(waves @ (window * sound.samples[start : start + 200])) ** 2)
            for start in range(0, 480 - 200 + 1, 80)
        ]
        assert_close(log_mel(sound, 30), np.array(expected), FLOAT32)

    def test_filters_are_triangles_that_meet(self):
        filters = mel_filters(8_000, 24)
        assert filters.shape == (24, 129)
        bins = np.arange(129) * 8_000 / 256
        mel = 2595 * np.log10(1 + bins / 700)
        lowest, highest = (2595 * math.log10(1 + f / 700) for f in (20, 4_000))
        middles = np.linspace(lowest, highest, 26)[1:-1]
        inside = (mel >= middles[0]) & (mel <= middles[-1])
        assert_close(filters.sum(0)[inside], np.ones(inside.sum()), FLOAT32)
        assert (filters.max(1) > 0).all()
        assert (filters <= 1).all()
        assert (filters >= 0).all()

    def test_many_bands_get_a_longer_transform(self):
        assert mel_filters(8_000, 80).shape[1] == 129 < mel_filters(8_000, 120).shape[1]
        with pytest.raises(ValueError, match="1000 bands came for 8,000 Hz; expected fewer"):
            mel_filters(8_000, 1_000)

    def test_a_warp_moves_a_tone(self):
        plain, warped = (log_mel(tone(1_000), 40, warp).mean(0).argmax() for warp in (1.0, 1.2))
        assert warped < plain
        assert warped == log_mel(tone(1_000 / 1.2), 40).mean(0).argmax()

    def test_as_many_frames_as_windows_fit(self):
        assert [len(log_mel(noise(s), 10)) for s in (0.025, 0.034, 0.035, 0.5)] == [1, 1, 2, 48]
        with pytest.raises(ValueError, match=r"0\.024 s came; expected 0\.025 s or more"):
            log_mel(noise(0.0241), 10)

    def test_silence_is_the_floor(self):
        assert_close(log_mel(Waveform(np.zeros(400, np.float32), 8_000), 5), np.full((3, 5), math.log(FLOOR)), FLOAT32)

    def test_slopes_of_a_line_and_a_parabola(self):
        steps = np.arange(12.0)
        found = slopes(np.stack([3 * steps, steps**2], 1))
        assert_close(found[2:-2], np.stack([np.full(8, 3.0), 2 * steps[2:-2]], 1), FLOAT32)


class TestCodec:
    def test_training_features_are_standardised(self):
        sounds = [noise(seed=k) for k in range(5)]
        for deltas in (False, True):
            codec = AudioCodec.fit(sounds, bands=20, centre=False, deltas=deltas)
            values = np.concatenate(codec.encode_batch(sounds))
            assert values.shape[1] == codec.features == (40 if deltas else 20)
            assert values.dtype == np.float32
            assert_close(values.mean(0), np.zeros(codec.features), FLOAT32)
            assert_close(values.std(0), np.ones(codec.features), FLOAT32)

    def test_loudness_and_microphone_are_taken_off(self):
        sound = noise()
        codec = AudioCodec.fit([sound])
        louder = Waveform(sound.samples * 4, 8_000)
        assert_close(codec.encode(louder), codec.encode(sound), FLOAT32)
        live = AudioCodec.fit([sound], centre=False)
        assert np.abs(live.encode(louder) - live.encode(sound)).min() > 0.1

    def test_the_lowest_rate_is_taken_and_others_resampled(self):
        codec = AudioCodec.fit([tone(440, rate=22_050), tone(440, rate=11_025)])
        assert codec.rate == 11_025
        assert "11,025 Hz" in codec.describe()
        assert codec.encode(tone(440, rate=44_100)).shape == codec.encode(tone(440, rate=11_025)).shape
        assert AudioCodec.fit([tone(440, rate=44_100)]).rate == 16_000
        assert AudioCodec.fit([tone(440, rate=44_100)], rate=8_000).rate == 8_000

    def test_json_keeps_everything(self):
        codec = AudioCodec.fit([noise(seed=k) for k in range(3)], bands=13, deltas=True)
        found = codecs.from_json(codec.to_json())
        assert isinstance(found, AudioCodec)
        assert np.array_equal(found.encode(noise()), codec.encode(noise()))
        damaged = json.loads(codec.to_json()) | {"bands": 14}
        with pytest.raises(ValueError, match="28 features and 26 means; it is damaged"):
            AudioCodec.from_json(json.dumps(damaged))
        with pytest.raises(ValueError, match="no audio codec of Everloop"):
            AudioCodec.from_json("{}")

    def test_other_inputs_are_refused(self):
        with pytest.raises(TypeError, match="a list came; expected the path of a sound file"):
            AudioCodec.fit([[1.0, 2.0]])
        with pytest.raises(ValueError, match="no sounds came"):
            AudioCodec.fit([])


class TestFaults:
    def test_silent_and_clipped(self):
        assert faults(noise()) == ""
        assert faults(Waveform(np.zeros(100, np.float32), 8_000)) == "silent"
        assert faults(Waveform(np.clip(20 * noise().samples, -1, 1), 8_000)) == "clipped"

    def test_empty_short_and_broken_ones_cannot_be_used(self, tmp_path: Path):
        (tmp_path / "broken.wav").write_bytes(b"RIFF")
        with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
            file.setparams((1, 2, 8_000, 0, "NONE", ""))
        sounds = [noise(), tmp_path / "broken.wav", tmp_path / "empty.wav", noise(0.02), noise(1.0)]
        found = list(usable(sounds))
        assert [good for *_, good in found] == [True, False, False, False, True]
        assert [fault.split(" ")[0] for _, _, fault, _ in found][2:4] == ["empty;", "0.020"]
        assert "cannot be read" in found[1][2]


class TestAugmentation:
    def test_the_same_generator_gives_the_same_and_another_does_not(self):
        codec, change = AudioCodec.fit([noise()]), AudioAugmentation()
        one, same, other = (change.encode(codec, noise(), np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert one.shape != other.shape or not np.array_equal(one, other)

    def test_nothing_asked_for_is_nothing_changed(self):
        codec, change = AudioCodec.fit([noise()]), AudioAugmentation(0, 0, 0, 0, 0, 0)
        assert np.array_equal(change.encode(codec, noise(), np.random.default_rng(0)), codec.encode(noise()))

    def test_speed_changes_the_length(self):
        codec, change = AudioCodec.fit([noise()]), AudioAugmentation(speed=0.2, noise=0, bands=0, steps=0)
        lengths = {len(change.encode(codec, noise(), np.random.default_rng(seed))) for seed in range(30)}
        assert 40 <= min(lengths) < 44
        assert 54 < max(lengths) <= 60

    def test_masks_hide_bands_and_steps_no_wider_than_asked(self):
        codec = AudioCodec.fit([noise(2.0)], deltas=True)
        change = AudioAugmentation(speed=0, warp=0, noise=0, bands=5, steps=9)
        plain = codec.encode(noise(2.0))
        for seed in range(20):
            hidden = change.encode(codec, noise(2.0), np.random.default_rng(seed)) != plain
            bands, steps = hidden.mean(0) > 0.99, hidden.mean(1) > 0.99
            assert bands.sum() <= 2 * 2 * 5
            assert np.array_equal(bands[:40], bands[40:])
            assert steps.sum() <= 2 * 9
            assert np.array_equal(hidden, bands[None, :] | steps[:, None])

    def test_noise_is_as_loud_as_asked(self):
        codec = AudioCodec.fit([tone(440)], centre=False)
        change = AudioAugmentation(speed=0, warp=0, noise=0.1, bands=0, steps=0)
        quiet = np.delete(np.arange(40), range(20))
        levels = [change.encode(codec, tone(440), np.random.default_rng(seed))[:, quiet].mean() for seed in range(60)]
        plain = codec.encode(tone(440))[:, quiet].mean()
        assert min(levels) > plain
        assert np.ptp(levels) > SAME.absolute
