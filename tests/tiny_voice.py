"""A voice small enough to build in a test: real modules behind the real interfaces, untrained but deterministic."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melstate.tts.acoustic import AcousticModel, Controls, Frames
from melstate.tts.text.symbols import ID, SYMBOLS
from melstate.tts.voice import Voice
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.vocoder import Vocoder

LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz'", SYMBOLS[8:], strict=False))


class TinySentence(NamedTuple):
    text: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    word_of: tuple[int, ...]


class TinyFrontEnd:
    """One symbol a letter; sentences end at . ! ? and line breaks."""

    def sentences(self, text: str) -> Iterator[TinySentence]:
        for match in re.finditer(r"[^.!?\n]+[.!?]*", text):
            words = tuple(re.findall(r"[a-z']+", match.group().lower()))
            if not words:
                continue
            ids, word_of = [ID["^"]], [-1]
            for index, word in enumerate(words):
                ids += [ID[LETTERS[letter]] for letter in word]
                word_of += [index] * len(word)
            yield TinySentence(match.group().strip(), words, (*ids, ID["."], ID["$"]), (*word_of, -1, -1))


class TinyAcoustic(AcousticModel):
    """2–6 frames a symbol; a mel that wanders with the seed."""

    kind = "tiny_acoustic"

    def __init__(self, mel: dict | None = None) -> None:
        super().__init__()
        self.mel = MelConfig() if mel is None else MelConfig.from_dict(mel)
        self.config = {"mel": self.mel.to_dict()}
        self.embedding = nn.Embedding(len(SYMBOLS), self.mel.n_mels)

    def stream(self, phones, *, controls=Controls(), chunk=32, largest=None, generator=None):  # noqa: B008
        counts = torch.tensor([max(1, round((2 + i % 5) / controls.speed)) for i in phones])
        pauses = torch.tensor([SYMBOLS[i] in ",;.?!" for i in phones])
        counts = torch.where(pauses, (counts * controls.pause).round().long().clamp(min=1), counts)
        symbol = torch.repeat_interleave(torch.arange(len(phones)), counts)
        mel = self.embedding(torch.tensor(phones))[symbol].T + controls.energy / 20 * 2.3
        mel = mel + 0.1 * controls.variation * torch.randn(mel.shape, generator=generator)
        f0 = torch.full((len(symbol),), 200.0 * 2 ** (controls.pitch / 12))
        start = 0
        while start < len(symbol):
            part = slice(start, start + chunk)
            yield Frames(mel[:, part], f0[part], symbol[part])
            start, chunk = start + chunk, max(chunk, min(2 * chunk, largest or 0))


class TinyState(NamedTuple):
    past: Tensor  # (B, n_mels + 1, 1 or 2) frames that the next output needs, the first of all a zero


class TinyVocoder(Vocoder):
    """A frame of audio from three frames of mel: one of look-ahead, so streaming has something to get wrong."""

    kind = "tiny_vocoder"
    takes_f0 = True

    def __init__(self, mel: dict | None = None) -> None:
        super().__init__()
        self.mel = MelConfig() if mel is None else MelConfig.from_dict(mel)
        self.config = {"mel": self.mel.to_dict()}
        self.head = nn.Conv1d(self.mel.n_mels + 1, self.mel.hop, 3)

    def forward(self, mel, f0=None):
        return self.stream(mel, final=True, f0=f0)[0]

    def stream(self, mel, state=None, *, final=False, f0=None):
        f0 = torch.zeros_like(mel[:, 0]) if f0 is None else f0 / 200
        zero = mel.new_zeros(len(mel), self.mel.n_mels + 1, 1)
        x = [zero if state is None else state.past, torch.cat([mel, f0[:, None]], 1)]
        x = torch.cat([*x, zero] if final else x, 2)
        out = torch.tanh(self.head(x)) if x.shape[2] > 2 else x.new_zeros(len(x), self.mel.hop, 0)
        return out.transpose(1, 2).flatten(1), TinyState(x[:, :, -2:])


def tiny_voice(**changes) -> Voice:
    """Seeded weights without touching the global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        acoustic, vocoder = TinyAcoustic(), TinyVocoder()
    about = {
        "language": "en-US",
        "licence": "CC0-1.0",
        "description": "untrained, for tests",
        "licence_text": "CC0 1.0 Universal",
        "card": "# tiny\n",
        "front_end": TinyFrontEnd(),
    }
    return Voice("tiny", acoustic, vocoder, **(about | changes))
