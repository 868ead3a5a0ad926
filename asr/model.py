"""Encoder, CTC heads and attention decoder as one model, and the losses that train them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.asr.ctc import ctc_loss
from melstate.asr.decoder import Decoder
from melstate.asr.encoder import Encoder
from melstate.asr.features import SPEECH
from melstate.asr.tokens import END, FIRST_PIECE
from melstate.vocoders.mel import MelConfig


class SpeechBatch(NamedTuple):
    """Rows of speech and what they say.

    Attributes:
        mels: (B, T, n_mels) log-mels. mel_lengths: (B,).
        tokens: (B, U) pieces without ends and speakers, for CTC. token_lengths: (B,), 0 for rows that say nothing.
        phones: (B, P) ids from 1 on, for the second CTC. phone_lengths: (B,); 0 where something is said: not known.
        spoken: (B, N) what the decoder is to write: "pieces … speaker END", repeated, and one more END when nothing
            follows; END alone for rows that say nothing. spoken_lengths: (B,).
        texts: for scoring.
    """

    mels: Tensor
    mel_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    phones: Tensor
    phone_lengths: Tensor
    spoken: Tensor
    spoken_lengths: Tensor
    texts: tuple[str, ...] = ()


class SpeechModel(nn.Module):
    """Joint CTC and attention recognition (Watanabe et al. 2017), with phones as a second CTC target lower down.

    Args:
        tokens: size of the vocabulary, see melstate.asr.tokens.
        phones: kinds of phones plus blank; 0 for no phone head.
        mel: the mel contract; `features.SPEECH` by default.
        encoder, decoder: keyword arguments of Encoder and Decoder; decoder=None for CTC alone.
    """

    kind = "recognizer"

    def __init__(
        self,
        tokens: int,
        phones: int = 0,
        mel: MelConfig | Mapping[str, Any] | None = None,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if tokens <= FIRST_PIECE:
            raise ValueError(f"recognizer: {tokens} tokens leave none to write with; the first {FIRST_PIECE} are marks")
        self.mel = SPEECH if mel is None else mel if isinstance(mel, MelConfig) else MelConfig.from_dict(dict(mel))
        self.config: dict[str, Any] = {
            "tokens": tokens,
            "phones": phones,
            "mel": asdict(self.mel),
            "encoder": dict(encoder or {}),
            "decoder": None if decoder is None else dict(decoder),
        }
        self.encoder = Encoder(self.mel.n_mels, **self.config["encoder"])
        dim = self.encoder.dim
        self.ctc = nn.Linear(dim, tokens)
        self.phones = nn.Linear(dim, phones) if phones else None
        self.decoder = Decoder(tokens, dim, **decoder) if decoder is not None else None

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """What the running normalisation starts from: (n_mels,) each, of the training speech's log-mels."""
        self.encoder.norm.mean.copy_(mean)
        self.encoder.norm.deviation.copy_(deviation)

    def token_log_probs(self, memory: Tensor) -> Tensor:
        """(B, S, dim) memory → (B, S, V) float32 log-probabilities of the CTC head."""
        return self.ctc(memory).float().log_softmax(-1)

    def losses(
        self,
        batch: SpeechBatch,
        *,
        mask: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        smoothing: float = 0.1,
        misread: float = 0.0,
    ) -> dict[str, Tensor]:
        """Losses per token: "ctc", "phones" (with a phone head), "attention" (with a decoder).

        Args:
            mask: SpecAugment on the normalised features.
            smoothing: label smoothing of the decoder's cross-entropy.
            misread: fraction of the decoder's inputs replaced by random pieces, so that it learns to go on from errors.
        """
        memory, _ = self.encoder(batch.mels, lengths=batch.mel_lengths, mask=mask)
        assert memory.lengths is not None
        losses = {
            "ctc": ctc_loss(self.token_log_probs(memory.values), memory.lengths, batch.tokens, batch.token_lengths)
        }
        if self.phones is not None:
            phones = self.phones(memory.tapped).float().log_softmax(-1)
            known = (batch.phone_lengths > 0) | (batch.token_lengths == 0)
            losses["phones"] = ctc_loss(phones, memory.lengths, batch.phones, batch.phone_lengths, known)
        if self.decoder is not None:
            heard = torch.cat([torch.full_like(batch.spoken[:, :1], END), batch.spoken[:, :-1]], dim=1)
            if misread:
                wrong = torch.randint_like(heard, FIRST_PIECE, self.decoder.tokens)
                heard = torch.where(torch.rand(heard.shape, device=heard.device) < misread, wrong, heard)
            window = self.decoder.window(memory.values, memory.lengths)
            logits, _, _ = self.decoder(heard, window, lengths=batch.spoken_lengths)
            real = torch.arange(heard.shape[1], device=heard.device) < batch.spoken_lengths[:, None]
            target = torch.where(real, batch.spoken, -100)
            losses["attention"] = F.cross_entropy(
                logits.float().flatten(0, 1), target.flatten(), ignore_index=-100, label_smoothing=smoothing
            )
        return losses
