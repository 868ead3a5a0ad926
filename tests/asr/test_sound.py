"""Files, pipes and arrays give the same samples; the resampler has no seams; bad sound is named."""

import io
import struct

import numpy as np
import pytest
import soundfile

from melstate.asr.sound import Resampler, SoundError, array_sound, mono, open_sound
from melstate.vocoders import wav


def tone(rate, seconds=0.5, hz=440.0):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


class Pipe(io.BytesIO):
    """Gives at most seven bytes at a time and cannot seek."""

    def read(self, count=-1):
        return super().read(min(count, 7) if count >= 0 else 7)

    def seek(self, *args):
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 44101])
def test_any_split_resamples_to_the_same(rate):
    audio = np.random.default_rng(0).standard_normal(rate // 2).astype(np.float32)
    whole = Resampler(rate, 16000)
    expected = np.concatenate([whole.feed(audio), whole.flush()])
    assert abs(len(expected) - 8000) <= 1
    parts, rng, start = [], np.random.default_rng(1), 0
    piecewise = Resampler(rate, 16000)
    while start < len(audio):
        size = int(rng.choice([0, 1, 100, 3000]))
        parts.append(piecewise.feed(audio[start : start + size]))
        start += size
    parts.append(piecewise.flush())
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)
    assert len(piecewise.buffer) < 2 * (piecewise.reach + 2 * piecewise.down) + 3100


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_tone_keeps_its_place(rate):
    resampler = Resampler(rate, 16000)
    heard = np.concatenate([resampler.feed(tone(rate)), resampler.flush()])
    np.testing.assert_allclose(heard[800:-800], tone(16000)[800 : len(heard) - 800], atol=2e-3)


def test_what_lies_above_the_new_band_is_gone():
    resampler = Resampler(48000, 16000)
    heard = np.concatenate([resampler.feed(tone(48000, hz=12000.0)), resampler.flush()])
    assert np.abs(heard[500:-500]).max() < 1e-3


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_files_and_pipes_agree(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, np.stack([tone(16000), -0.5 * tone(16000)], 1), 16000)
    with open_sound(path) as sound:
        samples = np.concatenate(list(sound.blocks))
        assert sound.sample_rate == 16000 and sound.seconds == pytest.approx(0.5)
    with open_sound(Pipe(path.read_bytes())) as piped:
        assert piped.sample_rate == 16000
        np.testing.assert_allclose(np.concatenate(list(piped.blocks)), samples, atol=1e-6)
    np.testing.assert_allclose(samples, 0.25 * tone(16000), atol=2e-2)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_streams_of_endless_headers(subtype):
    file = io.BytesIO()
    soundfile.write(file, tone(8000), 8000, format="WAV", subtype=subtype)
    data = bytearray(file.getvalue())
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", 0xFFFFFFFF)
    with open_sound(Pipe(bytes(data))) as sound:
        np.testing.assert_allclose(np.concatenate(list(sound.blocks)), tone(8000), atol=1e-4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff",
        b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff",
        b"hello" * 9,
    ],
)
def test_other_streams_are_refused(data):
    with pytest.raises(SoundError, match="standard input"), open_sound(Pipe(data)) as sound:
        list(sound.blocks)


def test_missing_files_and_text_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"), open_sound(tmp_path / "no.wav"):
        pass
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(SoundError, match=r"a\.wav: not readable"), open_sound(tmp_path / "a.wav"):
        pass


def test_a_truncated_file_gives_what_it_holds(tmp_path):
    wav.write(tmp_path / "a.wav", tone(16000), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    with open_sound(tmp_path / "cut.wav") as sound:
        assert 3000 < len(np.concatenate(list(sound.blocks))) < 8000


def test_arrays_of_any_shape():
    for samples in (np.zeros(0), np.zeros(1), np.zeros((5, 8)), np.zeros(40000, np.int16)):
        sound = array_sound(samples, 16000)
        assert sum(len(block) for block in sound.blocks) == len(samples)
    assert mono(np.full(3, -32768, np.int16)).tolist() == [-1.0] * 3
    for wrong in (
        np.zeros((2, 2, 2)),
        np.array(1.0),
        np.zeros((3, 0)),
        np.array(["a"]),
        np.array([np.nan]),
        np.array([np.inf]),
    ):
        with pytest.raises(SoundError, match="audio: "):
            list(array_sound(wrong, 16000).blocks)
    with pytest.raises(SoundError, match="sample rate 10 Hz"):
        array_sound(np.zeros(4), 10)
