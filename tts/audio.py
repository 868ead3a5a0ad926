"""Speech with the times of its words and phones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np

from melstate.vocoders import wav


class Span(NamedTuple):
    """A word or phone and when it is spoken: seconds from the start of the whole speech."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Coverage:
    """How completely sentences were spoken, by the frames that each of their symbols got.

    Attributes:
        sentences, in_order: how many, and how many went through their symbols in order and through none twice.
        phones, spoken: how many, and how many of them got a frame.
        shortest: fewest frames of a phone; None where there is none.
    """

    sentences: int = 0
    in_order: int = 0
    phones: int = 0
    spoken: int = 0
    shortest: int | None = None

    @property
    def complete(self) -> bool:
        """No phone was skipped or repeated."""
        return self.spoken == self.phones and self.in_order == self.sentences

    def __add__(self, other: Coverage) -> Coverage:
        counts = [count for count in (self.shortest, other.shortest) if count is not None]
        return Coverage(
            self.sentences + other.sentences,
            self.in_order + other.in_order,
            self.phones + other.phones,
            self.spoken + other.spoken,
            min(counts, default=None),
        )

    def to_dict(self) -> dict[str, Any]:
        share = self.spoken / self.phones if self.phones else 1.0
        return {"complete": self.complete, "share": share, **asdict(self)}


class SpokenSentence(NamedTuple):
    """A sentence as it is written, when it is spoken (seconds, as in Span), and how completely."""

    text: str
    start: float
    end: float
    coverage: Coverage


@dataclass(frozen=True)
class Audio:
    """Mono speech.

    Attributes:
        samples: (n,) float32 in [-1, 1].
        sample_rate: Hz.
        words: the spoken words that end in this piece; in a stream, times count from the first piece's start.
        phones: likewise its symbols: phones, punctuation pauses, and the edges "^" and "$".
        sentences: likewise its sentences; the silence between two belongs to neither.
        progress: part of the text spoken at the end of this piece, 0–1.
    """

    samples: np.ndarray
    sample_rate: int
    words: tuple[Span, ...] = ()
    phones: tuple[Span, ...] = ()
    sentences: tuple[SpokenSentence, ...] = ()
    progress: float = 1.0

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @property
    def coverage(self) -> Coverage:
        """Of all its sentences."""
        return sum((sentence.coverage for sentence in self.sentences), Coverage())

    def save(self, path: str | Path) -> None:
        """Write wav, flac, ogg or mp3 by suffix, whole or not at all. Raises ValueError on any other suffix."""
        with Writer(path, self.sample_rate) as writer:
            # libsndfile's Vorbis encoder overflows its stack on one huge block
            for start in range(0, len(self.samples), self.sample_rate):
                writer.write(self.samples[start : start + self.sample_rate])

    def save_timestamps(self, path: str | Path) -> None:
        """Write subtitles (.srt) or the times of sentences, words and phones (.json): see melstate.tts.timestamps."""
        from melstate.tts import timestamps

        with timestamps.writer(path) as add:
            add(self)

    @classmethod
    def join(cls, pieces: Sequence[Audio]) -> Audio:
        """The pieces of a stream as one. Raises ValueError if there are none or their rates differ."""
        rates = {piece.sample_rate for piece in pieces}
        if len(rates) != 1:
            raise ValueError(f"audio to join needs one sample rate, got {sorted(rates) or 'no pieces'}")
        return cls(
            np.concatenate([piece.samples for piece in pieces]),
            rates.pop(),
            tuple(span for piece in pieces for span in piece.words),
            tuple(span for piece in pieces for span in piece.phones),
            tuple(sentence for piece in pieces for sentence in piece.sentences),
            pieces[-1].progress,
        )


class Writer:
    """Write an audio file piece by piece in constant memory; it appears under its name whole or not at all.

    with Writer("book.flac", 22050) as writer: writer.write(samples)

    Raises:
        ValueError: unknown suffix, or samples that are not finite.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        import soundfile

        name, subtype = wav.file_format(path)
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._stream = _Guard(self._part.open("w+b"))
        try:
            self._file = soundfile.SoundFile(
                self._stream, "w", samplerate=sample_rate, channels=1, format=name, subtype=subtype
            )
        except BaseException:
            self._discard()
            raise

    def write(self, samples: np.ndarray) -> None:
        """Append (n,) float samples in [-1, 1]."""
        block = wav.to_int16(samples)
        try:
            self._file.write(block)
        finally:
            self._stream.check()  # says more than soundfile's own complaint

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                self._file.close()
            finally:
                if kind is None:
                    self._stream.finish()
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        self._stream.close()
        self._part.unlink(missing_ok=True)


class _Guard:
    """A file for libsndfile, which calls it through C, where an exception would be printed and lost.

    The first error is kept for `check`; after it nothing is written any more.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._try(self._stream.write, data)

    def read(self, size: int = -1) -> bytes:
        return self._try(self._stream.read, size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self._stream.seek, offset, whence)

    def tell(self) -> int:
        return self._try(self._stream.tell)

    def check(self) -> None:
        """Raise what the calls from C could not; what was written so far has left this process's buffers."""
        self._try(self._stream.flush)
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Everything is on the disk when this returns."""
        self.check()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._try(self._stream.close)

    def _try(self, call: Callable[..., Any], *args: Any) -> Any:
        if self._error is None or call == self._stream.close:
            try:
                return call(*args)
            except OSError as error:
                self._error = self._error or error
        return 0
