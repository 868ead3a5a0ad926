"""Sound as it arrives: files, pipes and arrays in blocks, mixed to mono, brought to the model's rate without seams."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

BLOCK_SECONDS = 2.0
MOST_CHANNELS = 64
RATES = (1000, 768_000)  # Hz that are believed
FINEST = 2000  # the largest denominator of a resampling ratio: an odd rate is met within 0.25 ms an hour


class SoundError(ValueError):
    """Not audio, damaged, or with samples that are no numbers; the message says which file and what is wrong."""


class Sound(NamedTuple):
    """sample_rate in Hz; seconds, None where unknown; blocks of mono float32 samples."""

    sample_rate: int
    seconds: float | None
    blocks: Iterator[np.ndarray]


@contextmanager
def open_sound(source: str | Path | IO[bytes]) -> Iterator[Sound]:
    """Opens a file, or a stream that is read as it comes if it is WAV with plain samples.

    Raises: FileNotFoundError, SoundError.
    """
    import soundfile

    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        with _decoded(soundfile, str(path), str(path)) as sound:
            yield sound
        return
    head = _exactly(source, 12)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        yield _wav_stream(source)
        return
    with tempfile.TemporaryFile() as copy:  # other formats are only readable with seeking
        copy.write(head)
        shutil.copyfileobj(source, copy)
        copy.seek(0)
        with _decoded(soundfile, copy, "standard input") as sound:
            yield sound


@contextmanager
def _decoded(soundfile, source, name: str) -> Iterator[Sound]:
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise SoundError(f"{name}: not readable as audio ({getattr(error, 'error_string', error)})") from error
    with file:
        _check(name, file.samplerate, file.channels)
        size = max(1, int(BLOCK_SECONDS * file.samplerate))

        def blocks() -> Iterator[np.ndarray]:
            while True:
                try:
                    block = file.read(size, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise SoundError(
                        f"{name}: damaged after {file.tell() / file.samplerate:.1f} s ({error})"
                    ) from error
                if not len(block):
                    return
                yield mono(block, name)

        seconds = file.frames / file.samplerate
        yield Sound(file.samplerate, seconds if 0 <= seconds < 1e7 else None, blocks())


def mono(block: np.ndarray, name: str = "audio") -> np.ndarray:
    """(samples, channels) or (samples,) → (samples,) float32, channels averaged; integers as fractions of full scale.

    Raises: SoundError: other shapes, or NaN or infinity among the samples.
    """
    block = np.asarray(block)
    if block.ndim not in (1, 2) or (block.ndim == 2 and not 1 <= block.shape[1] <= MOST_CHANNELS):
        raise SoundError(
            f"{name}: shape {block.shape}, expected (samples,) or (samples, channels) with 1..{MOST_CHANNELS} channels"
        )
    if np.issubdtype(block.dtype, np.signedinteger):
        block = block / -float(np.iinfo(block.dtype).min)
    elif not np.issubdtype(block.dtype, np.floating):
        raise SoundError(f"{name}: samples of type {block.dtype}, expected floats or signed integers")
    block = block.astype(np.float32, copy=False)
    if not np.isfinite(block).all():
        raise SoundError(f"{name}: holds NaN or infinite samples")
    # Beyond any microphone: a float file in other units. Loudness does not matter to the model, overflow would.
    block = np.clip(block, -1e4, 1e4)
    return block.mean(axis=1) if block.ndim == 2 else block


def _check(name: str, rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise SoundError(f"{name}: sample rate {rate} Hz, expected {RATES[0]}..{RATES[1]}")
    if not 1 <= channels <= MOST_CHANNELS:
        raise SoundError(f"{name}: {channels} channels, expected 1..{MOST_CHANNELS}")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    """`count` bytes, fewer only at the end: pipes give what they have."""
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# (format tag, bits) → numpy type and full scale
_SAMPLES = {(1, 16): ("<i2", 1 << 15), (1, 32): ("<i4", 1 << 31), (3, 32): ("<f4", 1), (3, 64): ("<f8", 1)}


def _wav_stream(stream: IO[bytes], name: str = "standard input") -> Sound:
    """The rest of a RIFF/WAVE stream whose first 12 bytes were read. Lengths in its header are not believed."""
    layout = None
    while True:
        header = _exactly(stream, 8)
        if len(header) < 8:
            raise SoundError(f"{name}: a WAV without sound")
        kind, size = struct.unpack("<4sI", header)
        if kind == b"data":
            break
        if size > 1 << 20:
            raise SoundError(f"{name}: a WAV header of {size} bytes")
        body = _exactly(stream, size + size % 2)
        if kind == b"fmt " and len(body) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == 0xFFFE and len(body) >= 26:
                tag = struct.unpack("<H", body[24:26])[0]
            layout = (tag, bits, channels, rate)
    if layout is None or layout[:2] not in _SAMPLES:
        raise SoundError(f"{name}: a WAV of an unusual kind; convert it to 16-bit PCM")
    tag, bits, channels, rate = layout
    _check(name, rate, channels)
    kind, scale = _SAMPLES[tag, bits]
    frame = channels * bits // 8

    def blocks() -> Iterator[np.ndarray]:
        # half a second at a time: what is said live must not wait for a long block
        while data := _exactly(stream, max(1, rate // 2) * frame):
            samples = np.frombuffer(data[: len(data) // frame * frame], kind).reshape(-1, channels)
            yield mono((samples / scale).astype(np.float32), name)

    return Sound(rate, None, blocks())


def array_sound(samples: np.ndarray, sample_rate: int) -> Sound:
    """An array (samples,) or (samples, channels) as Sound. Raises SoundError as `mono` does, block by block."""
    _check("audio", sample_rate, 1)
    samples = np.asarray(samples)
    size = max(1, int(BLOCK_SECONDS * sample_rate))
    blocks = (mono(samples[start : start + size]) for start in range(0, len(samples) if samples.ndim else 0, size))
    if samples.ndim not in (1, 2):
        mono(samples)
    return Sound(sample_rate, len(samples) / sample_rate, blocks)


class Resampler:
    """Changes the sample rate of a stream; any split of the input gives the same output.

    Sample m of the output is the band-limited input at time m / new_rate, so nothing is delayed in time; the last
    samples come with `flush`.

    Args:
        rate, new_rate: Hz.
        zeros: zero crossings of the Kaiser-windowed sinc on each side; more is sharper.
    """

    def __init__(self, rate: int, new_rate: int, zeros: int = 16) -> None:
        ratio = Fraction(new_rate, rate).limit_denominator(FINEST)
        self.up, self.down = ratio.numerator, ratio.denominator
        widest = max(self.up, self.down)
        # half the filter is a whole number of output samples, so that outputs lie on whole inputs' times
        half = -(-zeros * widest // self.down) * self.down
        self.plain = self.up == self.down
        self.taps = np.ones(1) if self.plain else _low_pass(2 * half + 1, 0.95 / widest) * self.up
        self.delay = half // self.down  # in output samples
        self.reach = -(-2 * half // self.up)  # input samples that an output needs
        self.buffer = np.zeros(0, np.float32)
        self.first = 0  # input number of buffer[0], a multiple of `down`
        self.given = 0  # outputs handed out

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """The outputs that these input samples complete."""
        if self.plain:
            return samples
        self.buffer = np.concatenate([self.buffer, samples])
        end = self.first + len(self.buffer)
        # output m needs inputs up to (m + delay) · down / up
        return self._outputs(((end - 1) * self.up) // self.down - self.delay + 1 if len(self.buffer) else 0)

    def flush(self) -> np.ndarray:
        """The outputs that still waited for later input, as if silence followed."""
        if self.plain:
            return np.zeros(0, np.float32)
        end = self.first + len(self.buffer)
        wanted = -(-end * self.up // self.down)
        self.buffer = np.concatenate([self.buffer, np.zeros(self.reach + self.down, np.float32)])
        return self._outputs(wanted)

    def _outputs(self, stop: int) -> np.ndarray:
        from scipy.signal import upfirdn

        if stop <= self.given:
            return np.zeros(0, np.float32)
        filtered = upfirdn(self.taps, self.buffer, self.up, self.down)
        offset = self.first // self.down * self.up - self.delay
        result = filtered[self.given - offset : stop - offset].astype(np.float32)
        self.given = stop
        # what the next output reaches back to, in whole steps of `down`
        oldest = ((self.given + self.delay) * self.down) // self.up - self.reach
        drop = max(0, (oldest - self.first) // self.down * self.down)
        self.buffer, self.first = self.buffer[drop:], self.first + drop
        return result


def _low_pass(taps: int, cutoff: float) -> np.ndarray:
    """`cutoff` is a share of half the sample rate; scipy.signal's half second of import is for those who resample."""
    from scipy.signal import firwin

    return firwin(taps, cutoff, window=("kaiser", 8.0))
