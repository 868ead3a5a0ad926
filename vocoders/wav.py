"""Audio files and sample rates: read, write, resample. Audio is float32 in [-1, 1], mono (samples,)."""

from __future__ import annotations

import os
from math import gcd
from pathlib import Path
from typing import IO

import numpy as np

# soundfile's names by file suffix.
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}


def read(path: str | Path, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono float32 samples and their rate in Hz; channels are averaged, the rate converted if `sample_rate` is given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not audio, no samples, or samples that are not finite.
    """
    import soundfile

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        audio, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not readable as audio ({error.error_string})") from error
    mono = audio.mean(axis=1)
    if not len(mono):
        raise ValueError(f"{path}: holds no samples")
    if not np.isfinite(mono).all():
        raise ValueError(f"{path}: holds NaN or infinite samples")
    if sample_rate is not None and sample_rate != rate:
        mono, rate = resample(mono, rate, sample_rate), sample_rate
    return mono, rate


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Round to 16-bit PCM, clipped at full scale. Raises ValueError on NaN or infinity."""
    if not np.isfinite(samples).all():
        raise ValueError("audio holds NaN or infinite samples; nothing was written")
    return np.clip(np.rint(samples * 32767.0), -32768, 32767).astype("<i2")


def file_format(path: str | Path) -> tuple[str, str | None]:
    """soundfile's (format, subtype) by suffix. Raises ValueError on any other suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: unknown suffix '{suffix}'; use one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


def write(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write mono audio; the suffix picks wav, flac, ogg or mp3. The file appears whole or not at all.

    Raises:
        ValueError: unknown suffix or samples that are not finite.
        OSError: the folder cannot be written.
    """
    import soundfile

    format_name, subtype = file_format(path)
    part = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            soundfile.write(stream, to_int16(samples), sample_rate, format=format_name, subtype=subtype)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_pcm(stream: IO[bytes], samples: np.ndarray) -> None:
    """Append raw 16-bit little-endian PCM to a binary stream and flush it."""
    stream.write(to_int16(samples).tobytes())
    stream.flush()


def resample(samples: np.ndarray, rate: int, new_rate: int, zeros: int = 32) -> np.ndarray:
    """Band-limited sample-rate conversion by a polyphase Kaiser-windowed sinc (scipy.signal.resample_poly).

    Args:
        samples: (samples,) float.
        rate, new_rate: Hz.
        zeros: zero crossings of the sinc each side; more is sharper.
    """
    from scipy.signal import firwin, resample_poly

    if rate <= 0 or new_rate <= 0:
        raise ValueError(f"resample: rates must be positive, got {rate} and {new_rate} Hz")
    if rate == new_rate:
        return samples
    common = gcd(rate, new_rate)
    up, down = new_rate // common, rate // common
    widest = max(up, down)
    taps = firwin(2 * zeros * widest + 1, 0.97 / widest, window=("kaiser", 10.0))
    return resample_poly(samples, up, down, window=taps).astype(np.float32)
