"""Causal log-mel features: the same frames whether audio comes whole or sample by sample.

Frame t is computed from the 25 ms that end at sample (t + 1) · hop, so that n samples give n // hop frames and no frame
waits for later audio. `RunningNorm` centres and scales them by statistics of what has been heard so far.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig, mel_basis

# 25 ms windows every 10 ms at 16 kHz.
SPEECH = MelConfig(sample_rate=16000, n_fft=400, hop=160, n_mels=80, fmin=20.0, fmax=7600.0, floor=1e-5)


def empty_audio(config: MelConfig, batch: int = 1, like: Tensor | None = None) -> Tensor:
    """The state before the first sample: (B, n_fft - hop) zeros."""
    return (
        torch.zeros(batch, config.n_fft - config.hop)
        if like is None
        else like.new_zeros(batch, config.n_fft - config.hop)
    )


def log_mel(audio: Tensor, config: MelConfig, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Natural-log mel magnitudes of the frames that `audio` completes.

    Args:
        audio: (B, samples) in [-1, 1]; any number of samples, none included.
        state: what the call before returned; None at the start (silence before it).
    Returns: (B, frames, n_mels), and the samples that later frames still need.
    """
    state = empty_audio(config, audio.shape[0], audio) if state is None else state
    audio = torch.cat([state, audio], dim=1)
    frames = max(0, (audio.shape[1] - config.n_fft) // config.hop + 1)
    kept = audio[:, frames * config.hop :]
    if not frames:
        return audio.new_zeros(audio.shape[0], 0, config.n_mels), kept
    return _log_mel(
        magnitudes(audio[:, : (frames - 1) * config.hop + config.n_fft], config.n_fft, config.hop), config
    ), kept


def perturbed_log_mel(
    audio: Tensor,
    config: MelConfig,
    *,
    tempo: float = 1.0,
    pitch: float = 1.0,
    cutoff: float | None = None,
    tone: Tensor | None = None,
) -> Tensor:
    """Log-mels of a clip as if it were spoken `tempo` times faster and `pitch` times higher, formants included.

    Instead of resampling the audio, frames are taken tempo · hop samples apart, and windows of pitch · n_fft samples
    are read through the mel filters of the plain length: bin k is then k / n_fft of a sample rate pitch times higher.
    tempo = pitch is plain resampling (Ko et al. 2015), tempo = 1 vocal tract length perturbation.

    Args:
        audio: (samples,).
        tempo, pitch: about 0.8 to 1.25; rounded to whole samples.
        cutoff: Hz above which nothing is left, as after a telephone.
        tone: (n_mels,) natural logs of what each band is amplified by, as by another microphone.
    Returns: (frames, n_mels).
    """
    hop, n_fft = max(1, round(tempo * config.hop)), max(2, 2 * round(pitch * config.n_fft / 2))
    padded = torch.nn.functional.pad(audio[None], (n_fft - hop, max(0, hop - audio.shape[0])))
    spectrum = magnitudes(padded, n_fft, hop) * (config.n_fft / n_fft)  # a longer window sums more samples
    bins = config.n_fft // 2 + 1
    spectrum = torch.nn.functional.pad(spectrum, (0, max(0, bins - spectrum.shape[-1])))[..., :bins]
    if cutoff is not None:
        spectrum[..., max(1, int(cutoff * config.n_fft / config.sample_rate)) :] = 0
    return _log_mel(spectrum, config, tone)[0]


def magnitudes(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """(B, samples) → (B, frames, n_fft // 2 + 1) under a periodic Hann window."""
    window = torch.hann_window(n_fft, dtype=audio.dtype, device=audio.device)
    return torch.fft.rfft(audio.unfold(1, n_fft, hop) * window).abs()


def _log_mel(spectrum: Tensor, config: MelConfig, tone: Tensor | None = None) -> Tensor:
    mel = spectrum @ mel_basis(config).to(spectrum).T
    return (mel if tone is None else mel * tone.exp()).clamp(min=config.floor).log()


class NormState(NamedTuple):
    """What was heard so far, a row each: sums over the frames, weighted by age: weight (B, 1), total (B, M),
    square (B, M); peak (B, 1) the loudness of the loudest block, falling with time; blocks (B, 1) how many there were;
    quiet (B, 1) how many of the last ones, in a row, were silence beside the peak.
    """

    weight: Tensor
    total: Tensor
    square: Tensor
    peak: Tensor
    blocks: Tensor
    quiet: Tensor


class RunningNorm(nn.Module):
    """Centres and scales each band by its mean and deviation over everything up to the end of the frame's block.

    The statistics start as those of the training speech with the weight of `prior` frames and forget with a time
    constant of `memory` frames. Blocks are what the encoder waits for anyway, so looking to their end costs no delay.

    Long silence is no part of them, or the first words after it would be heard by its statistics: of blocks that are
    `STEP` under the loudest before, only the first `PAUSE` in a row count, and a block that is `STEP` over all of more
    than so many before begins anew. A block's loudness is that of its loudest frames, each the mean of its bands as
    they are centred and scaled by the training speech; 1 is about 15 dB.

    Args:
        bands: M.
        block: frames per block.
        prior, memory: frames.
    """

    STEP = 0.9
    PAUSE = 4  # blocks
    FALL = 0.0003  # of the peak, per frame: 30 s a step
    LOUDEST = 10  # frames of a block, so that a click is no speech

    def __init__(self, bands: int, block: int, prior: float = 100.0, memory: float = 1500.0) -> None:
        super().__init__()
        if block < 1 or prior <= 0 or memory < block:
            raise ValueError(
                f"running norm: need block >= 1, prior > 0, memory >= block; got {block}, {prior}, {memory}"
            )
        self.block, self.prior, self.decay = block, prior, 1 - block / memory
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))

    def init_state(self, batch: int) -> NormState:
        zeros = self.mean.new_zeros(batch, self.mean.shape[0])
        zero = zeros[:, :1]
        return NormState(zero + self.prior, zeros, zeros + self.prior, zero - torch.inf, zero, zero)

    def forward(
        self, x: Tensor, state: NormState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, NormState]:
        """x (B, T, M) that starts at a block's start → normalised x, zero from `lengths` on, and the new state.

        Only the last call of a stream may hold a partial block.
        """
        state = self.init_state(x.shape[0]) if state is None else state
        batch, time, _ = x.shape
        x = (x - self.mean) / self.deviation
        real = x.new_ones(batch, time, 1)
        if lengths is not None:
            real = (torch.arange(time, device=x.device) < lengths[:, None])[..., None].to(x.dtype)
            x = torch.where(real > 0, x, 0)
        parts = []
        for start in range(0, time, self.block):
            piece, here = x[:, start : start + self.block], real[:, start : start + self.block]
            state = self._heard(state, piece, here)
            mean = state.total / state.weight
            variance = (state.square / state.weight - mean.square()).clamp(min=0.05)
            parts.append((piece - mean[:, None]) * variance.rsqrt()[:, None] * here)
        return torch.cat(parts, dim=1) if parts else x, state

    def _heard(self, state: NormState, piece: Tensor, here: Tensor) -> NormState:
        """The state after a block's frames (B, block, M), where `here` (B, block, 1) is 1."""
        loudness = piece.mean(2).masked_fill(here[..., 0] == 0, -torch.inf)
        loudest = loudness.topk(min(self.LOUDEST, loudness.shape[1])).values
        some = loudest.isfinite()
        loud = loudest.masked_fill(~some, 0).sum(1, keepdim=True) / some.sum(1, keepdim=True).clamp(min=1)
        loud = torch.where(some.any(1, keepdim=True), loud, -torch.inf)
        first = self.init_state(len(piece))
        anew = (loud > state.peak + self.STEP) & (state.blocks > self.PAUSE)
        weight, total, square = (torch.where(anew, a, b) for a, b in zip(first[:3], state[:3], strict=True))
        quiet = torch.where(loud < state.peak - self.STEP, state.quiet + 1, 0)
        counts = quiet <= self.PAUSE
        here = here * counts[:, None]
        decay = torch.where(counts, self.decay, 1.0)
        return NormState(
            weight * decay + here.sum(1),
            total * decay + (piece * here).sum(1),
            square * decay + (piece.square() * here).sum(1),
            torch.maximum(state.peak - self.FALL * self.block, loud),
            torch.where(anew, 1, state.blocks + 1),
            quiet,
        )
