"""Where speech goes while it is made: a file, a pipe, the loudspeaker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from melstate.tts.audio import Writer
from melstate.vocoders import wav

Write = Callable[[np.ndarray], None]  # takes (n,) float samples in [-1, 1]


class NoLoudspeaker(RuntimeError):
    """Nothing to play on; the message says what is missing."""


@contextmanager
def file(path: Path, sample_rate: int) -> Iterator[Write]:
    """Writes a file in constant memory; it appears when everything is written, or not at all."""
    with Writer(path, sample_rate) as writer:
        yield writer.write


def pcm(stream: IO[bytes]) -> Write:
    """Writes raw 16-bit little-endian mono PCM and flushes every piece."""
    return lambda samples: wav.write_pcm(stream, samples)


@contextmanager
def loudspeaker(sample_rate: int) -> Iterator[Write]:
    """Plays; returns when everything has been heard.

    Raises: NoLoudspeaker: sounddevice, PortAudio or an output device is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise NoLoudspeaker("--play needs sounddevice: pip install 'melstate[play]'") from error
    except OSError as error:  # sounddevice looks for the PortAudio library when it is imported
        raise NoLoudspeaker(f"--play: {error}; install it (Debian: apt install libportaudio2)") from error
    try:
        # "high": the next piece is made while this buffer plays
        player = sounddevice.OutputStream(samplerate=sample_rate, channels=1, dtype="float32", latency="high")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoLoudspeaker(f"--play: no audio device to play on ({error})") from error
    with player:
        yield lambda samples: player.write(np.ascontiguousarray(samples[:, None]))
        player.stop()  # waits for the buffer to run out
