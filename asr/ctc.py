"""Connectionist temporal classification: loss, best path, forced alignment. The beam search is in `beam`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.asr.tokens import BLANK, FIRST_PIECE, Tokens


def ctc_loss(
    log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor, known: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood per target token over the batch; rows too short for their text count nothing.

    Args:
        log_probs: (B, S, V) float32. frames: (B,) real ones.
        targets: (B, U) padded with anything. lengths: (B,) real ones, 0 for rows that say nothing.
        known: (B,) bool, False for rows whose target is not known: they count nothing; 0 if no row is known.
    """
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), targets, frames, lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    weights = lengths.clamp(min=1)
    if known is not None:
        losses, weights = losses.where(known, 0.0), weights * known
    return losses.sum() / weights.sum().clamp(min=1)


def best_path(log_probs: Tensor) -> list[int]:
    """The tokens of the likeliest path of (S, V): repeats merged, blanks left out."""
    return [token for token in torch.unique_consecutive(log_probs.argmax(-1)).tolist() if token != BLANK]


class Aligned(NamedTuple):
    """A token and the frames that speak it: start < stop; its highest probability there."""

    token: int
    start: int
    stop: int
    probability: float


def align(log_probs: Tensor, tokens: Sequence[int]) -> list[Aligned]:
    """The likeliest frames of each token: Viterbi over CTC paths (S, V).

    Raises: ValueError: fewer frames than the tokens and the blanks between repeats need.
    """
    if not tokens:
        return []
    from torchaudio.functional import forced_align

    repeats = sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
    if log_probs.shape[0] < len(tokens) + repeats:
        raise ValueError(f"align: {log_probs.shape[0]} frames cannot hold {len(tokens)} tokens and {repeats} repeats")
    labels, scores = forced_align(log_probs[None].float(), torch.tensor([list(tokens)]), blank=BLANK)
    aligned: list[Aligned] = []
    path, values = labels[0].tolist(), scores[0].exp().tolist()
    before = BLANK
    for frame, (label, value) in enumerate(zip(path, values, strict=True)):
        if label != BLANK:
            if label == before:
                last = aligned[-1]
                aligned[-1] = last._replace(stop=frame + 1, probability=max(last.probability, value))
            else:
                aligned.append(Aligned(label, frame, frame + 1, value))
        before = label
    return aligned


def align_words(log_probs: Tensor, ids: Sequence[int], tokens: Tokens) -> list[list[Aligned]]:
    """The likeliest frames of the pieces of each word that `ids` spell; marks part words and have no frames.

    Raises: ValueError: fewer frames than needed, as for `align`.
    """
    pieces = align(log_probs, [i for i in ids if i >= FIRST_PIECE])
    words, place = [], 0
    for word in tokens.words(ids):
        while [piece.token for piece in pieces[place : place + len(word)]] != word:
            place += 1
        words.append(pieces[place : place + len(word)])
        place += len(word)
    return words
