"""Which frames speak which symbol, learned from text and mel alone: durations for the models that train on them.

Symbols and mels are encoded by small convolutions into one space; a frame attends to the symbols near it. Monotonicity
comes from the forward-sum over all monotonic paths (computed as CTC) and a beta-binomial prior; the best path gives the
durations.

Source: Badlani et al. 2021, "One TTS Alignment To Rule Them All" (arXiv:2108.10447).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.monotonic import monotonic_alignment
from melstate.tts.acoustic import Batch
from melstate.tts.length import path_symbols
from melstate.vocoders.mel import MelConfig

BLANK_LOGIT = -1.0
FORBIDDEN = -1e9


class Alignment(NamedTuple):
    """How a batch was attended to.

    Attributes:
        log_scores: (B, T, N) log-probability of symbol n at frame t with the prior added, −1e9 beyond the symbols;
            rows not renormalised.
        log_attention: (B, T, N) the same, each row a log-softmax over the symbols.
    """

    log_scores: Tensor
    log_attention: Tensor


def beta_binomial_prior(frames: Tensor, symbols: Tensor, total: int, width: int) -> Tensor:
    """Log-probability that frame t speaks symbol n before anything is heard: a broad diagonal.

    Symbol n − 1 of N at frame t of T is beta-binomial with N − 1 trials, α = t, β = T − t + 1.

    Args:
        frames, symbols: (B,) lengths.
        total, width: padded sizes.
    Returns: (B, total, width) float32; 0 where t or n lies beyond the lengths.
    Source: arXiv:2108.10447, equation 5 with ω = 1, which makes every Γ a factorial.
    """
    top = int((frames + symbols).max()) + 2
    factorial = torch.lgamma(torch.arange(top, dtype=torch.float64, device=frames.device) + 1)  # log n! at n
    t = torch.arange(1, total + 1, device=frames.device)[None, :, None]
    n = torch.arange(width, device=frames.device)[None, None, :]
    T, N = frames[:, None, None], symbols[:, None, None]
    inside = (t <= T) & (n < N)
    t, n = t.clamp(max=T), n.clamp(max=N - 1)
    log_choose = factorial[N - 1] - factorial[n] - factorial[N - 1 - n]
    log_beta_top = factorial[n + t - 1] + factorial[N - 1 - n + T - t] - factorial[N - 1 + T]
    log_beta_bottom = factorial[t - 1] + factorial[T - t] - factorial[T]
    return torch.where(inside, log_choose + log_beta_top - log_beta_bottom, 0.0).float()


class Aligner(nn.Module):
    """Learns to align; then `durations` gives whole frames per symbol.

    Args:
        symbols: size of the symbol table (ids 0..symbols-1).
        mel: mel contract, as MelConfig or its dict.
        dim: width of the symbol embedding.
        temperature: factor on the squared distance; small values let the prior decide, and edges collapse.
    Attributes:
        kind, config, mel: as in AcousticModel.
        mel_mean, mel_std: (n_mels, 1) log-mel statistics of the corpus, by which mels are normalised; set them by
            `set_statistics` before training, they travel with the weights.
    """

    kind: ClassVar[str] = "aligner"
    frames_per_symbol: ClassVar[int] = 1
    mel_mean: Tensor
    mel_std: Tensor

    def __init__(
        self,
        symbols: int,
        mel: MelConfig | dict[str, Any] | None = None,
        dim: int = 192,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        self.mel = mel if isinstance(mel, MelConfig) else MelConfig.from_dict(dict(mel)) if mel else MelConfig()
        bands = self.mel.n_mels
        self.config: dict[str, Any] = {
            "symbols": symbols,
            "mel": self.mel.to_dict(),
            "dim": dim,
            "temperature": temperature,
        }
        self.symbols, self.temperature = symbols, temperature
        self.register_buffer("mel_mean", torch.full((bands, 1), -5.0))
        self.register_buffer("mel_std", torch.full((bands, 1), 2.0))
        self.embedding = nn.Embedding(symbols, dim)
        self.keys = nn.Sequential(nn.Conv1d(dim, 2 * dim, 3, padding=1), nn.ReLU(), nn.Conv1d(2 * dim, bands, 1))
        self.queries = nn.Sequential(
            nn.Conv1d(bands, 2 * bands, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(2 * bands, bands, 1),
            nn.ReLU(),
            nn.Conv1d(bands, bands, 1),
        )

    @torch.no_grad()
    def set_statistics(self, mel_mean: Tensor, mel_std: Tensor) -> None:
        """Log-mel mean and deviation of the corpus, (n_mels,) each. Raises ValueError unless finite and std > 0."""
        if not (mel_mean.isfinite().all() and mel_std.isfinite().all() and (mel_std > 0).all()):
            raise ValueError(f"mel statistics must be finite, deviations positive; smallest is {mel_std.min():g}")
        self.mel_mean.copy_(mel_mean[:, None])
        self.mel_std.copy_(mel_std[:, None])

    def align(self, batch: Batch) -> Alignment:
        """Attention of every frame over the symbols. Raises ValueError as `durations` does."""
        self._check(batch)
        inside = torch.arange(batch.phones.shape[1], device=batch.phones.device) < batch.phone_lengths[:, None]
        heard = torch.arange(batch.mels.shape[2], device=batch.mels.device) < batch.mel_lengths[:, None]
        # Padding is zero after the embedding and after normalisation, as at a sequence's own edge.
        key = self.keys((self.embedding(batch.phones) * inside[..., None]).transpose(1, 2))
        query = self.queries((batch.mels - self.mel_mean) / self.mel_std * heard[:, None])
        distance = _squared_distance(query.transpose(1, 2).float(), key.transpose(1, 2).float())
        logits = (-self.temperature * distance).masked_fill(~inside[:, None], FORBIDDEN)
        prior = beta_binomial_prior(batch.mel_lengths, batch.phone_lengths, batch.mels.shape[2], batch.phones.shape[1])
        log_scores = (logits.log_softmax(-1) + prior).masked_fill(~inside[:, None], FORBIDDEN)
        return Alignment(log_scores, log_scores.log_softmax(-1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """forward_sum: −log-probability of all paths, per symbol; binarisation: −log attention of the best, per frame.

        Add binarisation with weight 0.3 or so once paths have formed (from a tenth of training, say).
        """
        alignment = self.align(batch)
        hard = self._search(alignment, batch)
        frames, width = batch.mels.shape[2], batch.phones.shape[1]
        on_path = path_symbols(hard, frames)
        chosen = alignment.log_attention.gather(2, on_path.clamp(max=width - 1)[..., None])[..., 0]
        heard = torch.arange(frames, device=chosen.device) < batch.mel_lengths[:, None]
        return {
            "forward_sum": forward_sum(alignment.log_scores, batch.mel_lengths, batch.phone_lengths),
            "binarisation": -(chosen * heard).sum() / heard.sum(),
        }

    @torch.no_grad()
    def durations(self, batch: Batch) -> Tensor:
        """Frames per symbol of the best path.

        Returns: (B, N) int64, at least 1 on every symbol, 0 beyond `phone_lengths`; rows sum to `mel_lengths`.
        Raises: ValueError: an utterance has fewer frames than symbols (named), or ids outside the symbol table.
        """
        return self._search(self.align(batch), batch)

    def _search(self, alignment: Alignment, batch: Batch) -> Tensor:
        return monotonic_alignment(alignment.log_attention.detach(), batch.mel_lengths, batch.phone_lengths)

    def _check(self, batch: Batch) -> None:
        short = (batch.mel_lengths < batch.phone_lengths).nonzero()
        if len(short):
            row = int(short[0])
            raise ValueError(
                f"utterance {batch.ids[row]!r}: {int(batch.mel_lengths[row])} frames cannot give each of "
                f"{int(batch.phone_lengths[row])} symbols one; its text does not belong to its audio, leave it out"
            )
        if int(batch.phones.max()) >= self.symbols or int(batch.phones.min()) < 0:
            row = int(((batch.phones >= self.symbols) | (batch.phones < 0)).any(1).nonzero()[0])
            raise ValueError(
                f"utterance {batch.ids[row]!r}: symbol ids up to {int(batch.phones[row].max())}, the table has "
                f"{self.symbols}; the data were prepared by another front-end version"
            )


def forward_sum(log_scores: Tensor, frames: Tensor, symbols: Tensor) -> Tensor:
    """−log of the summed probability of all monotonic paths, divided by the symbols, averaged over the batch.

    Computed as CTC whose labels are the positions 1..N, beside a blank of constant logit −1 that lets a frame be
    claimed by nobody at a cost.

    Args:
        log_scores: (B, T, N), −1e9 beyond the symbols.
        frames, symbols: (B,).
    Source: arXiv:2108.10447, section 2.2 and its published implementation.
    """
    width = log_scores.shape[2]
    log_probs = F.pad(log_scores, (1, 0), value=BLANK_LOGIT).log_softmax(-1)
    positions = torch.arange(1, width + 1, device=log_scores.device).expand(len(frames), -1)
    return F.ctc_loss(log_probs.transpose(0, 1), positions, frames, symbols, zero_infinity=True)


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(B, T, C), (B, N, C) → (B, T, N), by matrix product."""
    cross = torch.baddbmm(
        (a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None]), a, b.transpose(1, 2), alpha=-2.0
    )
    return cross.clamp(min=0)
