"""Ways to write down a long recording with the same weights, each run in a process of its own.

    python -m melstate.recipes.bench.longform_systems striding MODEL.safetensors audio.wav segments.json words.json

Every system reads the audio from its file. `product` is `Recognizer.listen` on the whole file by the recogniser's own
method, `striding` by method "striding", `product-oracle` the first on each turn. The others use the bare model: `ctc`
its best CTC path as it streams, `oracle-ctc` that on each turn; `oracle` greedy attention on each turn, `chunks` on
30 s at a time with 5 s of overlap, `chunks-10` on 10 s with 2 s, `full` on the whole memory at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from melstate.asr.decoder import Decoder
from melstate.asr.encoder import FACTOR
from melstate.asr.features import log_mel
from melstate.asr.tokens import BLANK, END, FIRST_PIECE
from melstate.recipes.bench.table import peak_bytes
from melstate.recipes.recognizers import read_model, read_recognizer

BLOCK = 4.0  # seconds read at a time


class Word(NamedTuple):
    """One word as a system heard it; seconds."""

    text: str
    start: float
    end: float
    speaker: str | int | None = None


Segments = Sequence[tuple[float, float]]


class Bare:
    """The model and its vocabulary, and what its memory frames last."""

    def __init__(self, model: str | Path) -> None:
        self.model, self.tokens = read_model(model)
        self.model.requires_grad_(False)
        self.rate = self.model.mel.sample_rate
        self.frame = FACTOR * self.model.mel.hop / self.rate

    def memories(self, audio: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """(1, n, D) memory as it comes."""
        heard = state = None
        for samples in audio:
            mel, heard = log_mel(torch.from_numpy(samples)[None], self.model.mel, heard)
            memory, state = self.model.encoder(mel, state, final=False)
            yield memory.values
        rest = torch.zeros(1, 0, self.model.mel.n_mels)
        yield self.model.encoder(rest, state, final=True)[0].values

    def memory(self, audio: np.ndarray) -> Tensor:
        return torch.cat(list(self.memories([audio])), dim=1)

    def words(self, written: Iterable[tuple[int, int]], offset: float = 0.0) -> Iterator[Word]:
        """Words of (token, memory frame) as they are finished. Marks end words, like pieces that open the next."""
        pieces: list[int] = []
        first = last = 0
        for token, frame in chain(written, [(END, 0)]):
            if pieces and (token < FIRST_PIECE or self.tokens.opens(token)):
                text = self.tokens.decode(pieces)
                if text:
                    yield Word(text, offset + first * self.frame, offset + (last + 1) * self.frame)
                pieces = []
            if token >= FIRST_PIECE:
                first = frame if not pieces else first
                last = frame
                pieces.append(token)


def read_blocks(path: str | Path, rate: int, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """Samples of a mono file at `rate`, a few seconds at a time. Raises ValueError: another rate or more channels."""
    import soundfile

    with soundfile.SoundFile(str(path)) as file:
        if file.samplerate != rate or file.channels != 1:
            raise ValueError(f"{path}: {file.samplerate} Hz, {file.channels} channels; expected {rate} Hz, one channel")
        file.seek(min(round(start * rate), file.frames))
        left = (file.frames if end is None else min(round(end * rate), file.frames)) - file.tell()
        while left > 0:
            block = file.read(min(left, round(BLOCK * rate)), dtype="float32")
            left -= len(block)
            yield block


def read_audio(path: str | Path, rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path, rate, start, end)])


def ctc_path(bare: Bare, memories: Iterable[Tensor]) -> Iterator[tuple[int, int]]:
    """(token, frame) of the best path, frame by frame."""
    before, frame = BLANK, 0
    for memory in memories:
        for token in bare.model.token_log_probs(memory)[0].argmax(-1).tolist():
            if token not in (before, BLANK):
                yield token, frame
            before, frame = token, frame + 1


def decoder_of(bare: Bare) -> Decoder:
    if bare.model.decoder is None:
        raise ValueError("the model has no attention decoder; its systems are ctc and oracle-ctc")
    return bare.model.decoder


def attention_path(bare: Bare, memory: Tensor) -> list[tuple[int, int]]:
    """(token, frame looked at) of greedy decoding over all of the memory, until two ENDs or more tokens than sense."""
    decoder, frames = decoder_of(bare), memory.shape[1]
    if not frames:
        return []
    window, heard = decoder.window(memory), END
    found: list[tuple[int, int]] = []
    logits, focus, state = decoder(torch.tensor([[heard]]), window)
    while len(found) < 2 * frames:
        logits[..., BLANK] = -torch.inf
        token = int(logits[0, -1].argmax())
        if token == heard == END:
            break
        found.append((token, min(frames - 1, int(float(focus[0, -1]) * frames))))
        heard = token
        logits, focus, state = decoder(torch.tensor([[heard]]), window, state)
    return found


def ctc(model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    bare = Bare(model)
    yield from bare.words(ctc_path(bare, bare.memories(read_blocks(audio, bare.rate))))


def oracle_ctc(model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    bare = Bare(model)
    for start, end in segments:
        yield from bare.words(ctc_path(bare, bare.memories(read_blocks(audio, bare.rate, start, end))), start)


def oracle(model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    bare = Bare(model)
    for start, end in segments:
        yield from bare.words(attention_path(bare, bare.memory(read_audio(audio, bare.rate, start, end))), start)


def chunks(seconds: float, overlap: float, model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    """Of the words in an overlap, the first half is the earlier chunk's, the second the later one's."""
    bare, start = Bare(model), 0.0
    while True:
        samples = read_audio(audio, bare.rate, start, start + seconds)
        if not len(samples):
            return
        last = len(samples) < round(seconds * bare.rate)
        low, high = start + (overlap / 2 if start else 0.0), start + seconds - overlap / 2
        for word in bare.words(attention_path(bare, bare.memory(samples)), start):
            middle = (word.start + word.end) / 2
            if middle >= low and (last or middle < high):
                yield word
        if last:
            return
        start += seconds - overlap


def full(model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    bare = Bare(model)
    memory = torch.cat(list(bare.memories(read_blocks(audio, bare.rate))), dim=1)
    yield from bare.words(attention_path(bare, memory))


def listened(method: str | None, model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    recogniser = read_recognizer(model)
    for segment in recogniser.listen(audio, speakers=recogniser.can_tell_speakers, method=method):
        for word in segment.words:
            yield Word(word.text, word.start, word.end, word.speaker)


def product_oracle(model: str, audio: Path, segments: Segments) -> Iterator[Word]:
    recogniser = read_recognizer(model)
    rate = recogniser.parts.model.mel.sample_rate
    for start, end in segments:
        for word in recogniser.transcribe(read_audio(audio, rate, start, end), rate).words:
            yield Word(word.text, start + word.start, start + word.end)


SYSTEMS: dict[str, Callable[[str, Path, Segments], Iterator[Word]]] = {
    "product": partial(listened, None),
    "product-oracle": product_oracle,
    "oracle": oracle,
    "oracle-ctc": oracle_ctc,
    "chunks": partial(chunks, 30.0, 5.0),
    "chunks-10": partial(chunks, 10.0, 2.0),
    "full": full,
    "ctc": ctc,
    "striding": partial(listened, "striding"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("model")
    parser.add_argument("audio", type=Path)
    parser.add_argument("segments", type=Path, help="JSON [[start, end], …] in seconds")
    parser.add_argument("words", type=Path, help="JSON to write: words, seconds taken, peak memory in bytes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    segments = [tuple(pair) for pair in json.loads(args.segments.read_text())]
    started, worked = time.perf_counter(), time.process_time()
    heard = list(SYSTEMS[args.system](args.model, args.audio, segments))
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
    args.words.write_text(json.dumps({"words": heard, "peak_bytes": peak_bytes()} | taken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
