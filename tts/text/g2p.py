"""Pronunciations of unknown words: a bidirectional GRU over letters, trained by connectionist temporal classification.

Every letter owns SLOTS output slots (x is K S, a spelled w is six phones); blanks between them are dropped and equal
neighbours merged (Graves et al. 2006). melstate.recipes.train_g2p trains it on CMUdict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from melstate.tts.text import symbols
from melstate.tts.text.lexicon import Phones

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SLOTS = 3
PATH = Path(__file__).parent / "data" / "g2p.safetensors"


class LetterNet(nn.Module):
    """Letters → phone logits.

    Args:
        embedding: width of a letter.
        hidden: width of one direction of a layer.
        layers: recurrent layers.
        dropout: between layers, in training.
    """

    kind = "g2p"

    def __init__(self, embedding: int = 64, hidden: int = 128, layers: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = {"embedding": embedding, "hidden": hidden, "layers": layers, "dropout": dropout}
        self.embed = nn.Embedding(len(LETTERS), embedding)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * hidden, SLOTS * (1 + len(symbols.PHONES)))

    def forward(self, letters: Tensor) -> Tensor:
        """(B, N) indices into LETTERS, all words of one length → (B, SLOTS·N, 1 + phones) logits, blank first."""
        hidden, _ = self.gru(self.embed(letters))
        return self.out(self.dropout(hidden)).unflatten(-1, (SLOTS, -1)).flatten(1, 2)


def encode(words: Sequence[str]) -> Tensor:
    """(B, N) letter indices of words of one length. Raises ValueError naming a word with other characters."""
    for word in words:
        if not word or any(letter not in LETTERS for letter in word):
            raise ValueError(f"word {word[:40]!r} must consist of {LETTERS}")
    return torch.tensor([[LETTERS.index(letter) for letter in word] for word in words])


def decode(logits: Tensor) -> list[Phones]:
    """The likeliest phone in every slot, equal neighbours merged, blanks dropped."""
    spoken = []
    for row in logits.argmax(-1).tolist():
        kept = [now for before, now in zip([0, *row], row, strict=False) if now and now != before]
        spoken.append(tuple(symbols.PHONES[index - 1] for index in kept))
    return spoken


@torch.inference_mode()
def predict(net: LetterNet, words: Sequence[str]) -> list[Phones]:
    """Phones of each word; words of one length are read together."""
    by_length: dict[int, list[str]] = {}
    for word in dict.fromkeys(words):
        by_length.setdefault(len(word), []).append(word)
    found: dict[str, Phones] = {}
    for group in by_length.values():
        found.update(zip(group, decode(net(encode(group))), strict=True))
    return [found[word] for word in words]


@cache
def shipped() -> LetterNet:
    """The network that comes with the package, read once a process.

    Raises:
        ValueError: the file's letters or phones are not those of this version.
    """
    with safe_open(PATH, "pt") as file:
        header = json.loads(file.metadata()["melstate"])
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    expected = {"kind": LetterNet.kind, "letters": LETTERS, "slots": SLOTS, "phones": list(symbols.PHONES)}
    for name, value in expected.items():
        if header[name] != value:
            raise ValueError(
                f"{PATH}: {name} {header[name]!r} is not {value!r}; train again (melstate.recipes.train_g2p)"
            )
    net = LetterNet(**header["config"])
    net.load_state_dict(tensors)
    return net.eval()
