"""Text → mel with explicit durations, pitch and energy, on recurrent mixers: fast, controllable, streamed in chunks.

Symbols are encoded over the whole sentence; duration, pitch and energy are predicted for each; the decoder reads the
encodings stretched to frames and keeps a state of constant size.

Source: Ren et al. 2021 (FastSpeech 2, arXiv:2006.04558), Łańcucki 2021 (FastPitch, arXiv:2006.06873), with gated
linear attention (arXiv:2312.06635) for the transformer blocks and frame-level F0 read before the mel is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.tts.acoustic import Batch, Controls, Frames
from melstate.tts.encoder import Encoder
from melstate.tts.frame_decoder import Decoded, FrameDecoder
from melstate.tts.length import path_symbols, symbol_means, whole_durations
from melstate.tts.symbol_model import SymbolModel
from melstate.tts.text import symbols as table
from melstate.tts.variance import SymbolPredictor, frame_energy
from melstate.vocoders.mel import MelConfig

# Longest symbol that is believed, in frames before the user's factors: two seconds.
LONGEST = 172.0
# Pitch beyond what any sentence of the corpus holds is not shown to the encoder's reader; F0 still follows the user.
HIGHEST_DEVIATION = 4.0
PLAIN = Controls()


class Prosody(NamedTuple):
    """Per symbol: (B, N) pitch and energy in corpus deviations, log(duration + 1)."""

    pitch: Tensor
    energy: Tensor
    log_duration: Tensor


class FastSpeech(SymbolModel):
    """FastSpeech-style acoustic model with constant decoding state.

    Args:
        symbols: size of the symbol table.
        mel: mel contract, as MelConfig or its dict; the default contract if None.
        dim: width of every block.
        hidden: width inside feed-forwards.
        mixer: name of the recurrent mixer, and its options; see melstate.mixers.mixer.create.
        encoder_blocks: bidirectional blocks over symbols.
        local_blocks: convolution blocks over steps that see a few steps ahead.
        decoder_blocks: recurrent blocks over steps.
        kernel: taps of depthwise convolutions.
        reduction: frames per decoder step.
        backward: steps per chunk of the decoder's backward direction, which starts anew at each chunk; 0 for none.
        dropout, predictor_dropout: of blocks and of predictors.
        pausing: symbol ids that `Controls.pause` stretches and that may get no frame; None for punctuation and edges.
        stand_ins: id spoken in place of an id that training hardly saw, as pairs; see `set_stand_ins`.
    """

    kind: ClassVar[str] = "fastspeech"
    mel_mean: Tensor
    mel_std: Tensor
    pitch_mean: Tensor
    pitch_std: Tensor
    energy_mean: Tensor
    energy_std: Tensor

    def __init__(
        self,
        symbols: int = len(table.SYMBOLS),
        mel: MelConfig | Mapping[str, Any] | None = None,
        dim: int = 192,
        hidden: int = 384,
        mixer: str = "gla",
        mixer_options: Mapping[str, Any] | None = None,
        encoder_blocks: int = 4,
        local_blocks: int = 2,
        decoder_blocks: int = 4,
        kernel: int = 7,
        reduction: int = 2,
        backward: int = 32,
        dropout: float = 0.05,
        predictor_dropout: float = 0.3,
        pausing: Sequence[int] | None = None,
        stand_ins: Sequence[Sequence[int]] = (),
    ) -> None:
        options = dict(mixer_options or {})
        config = {
            "dim": dim,
            "hidden": hidden,
            "mixer": mixer,
            "mixer_options": options,
            "encoder_blocks": encoder_blocks,
            "local_blocks": local_blocks,
            "decoder_blocks": decoder_blocks,
            "kernel": kernel,
            "reduction": reduction,
            "backward": backward,
            "dropout": dropout,
            "predictor_dropout": predictor_dropout,
        }
        super().__init__(symbols, mel, config, pausing=pausing, stand_ins=stand_ins)
        self.reduction = reduction
        self.encoder = Encoder(symbols, dim, hidden, encoder_blocks, mixer, options, kernel, dropout)
        self.duration = SymbolPredictor(dim, dim, predictor_dropout, bias=math.log(8.0))
        self.pitch = SymbolPredictor(dim, dim, predictor_dropout)
        self.energy = SymbolPredictor(dim, dim, predictor_dropout)
        self.embed_prosody = nn.Conv1d(2, dim, 3, padding=1)
        self.decoder = FrameDecoder(
            self.mel, dim, hidden, local_blocks, decoder_blocks, mixer, options, kernel, reduction, backward, dropout
        )
        bands = self.mel.n_mels
        for name, initial in (("mel_mean", torch.full((bands, 1), -5.0)), ("mel_std", torch.full((bands, 1), 2.0))):
            self.register_buffer(name, initial)
        for name, value in (("pitch_mean", 5.0), ("pitch_std", 0.2), ("energy_mean", -3.5), ("energy_std", 1.5)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def set_statistics(
        self, mel_mean: Tensor, mel_std: Tensor, pitch: tuple[float, float], energy: tuple[float, float]
    ) -> None:
        """What the corpus looks like; before training. Travels with the weights.

        Args:
            mel_mean, mel_std: (n_mels,) of log-mel.
            pitch: mean and deviation of log F0 over voiced frames.
            energy: mean and deviation of `frame_energy` over frames.
        Raises: ValueError unless finite, deviations positive.
        """
        given = {"mel_mean": mel_mean[:, None], "mel_std": mel_std[:, None]}
        for name, (mean, deviation) in (("pitch", pitch), ("energy", energy)):
            given |= {f"{name}_mean": torch.tensor(mean), f"{name}_std": torch.tensor(deviation)}
        for name, value in given.items():
            if not value.isfinite().all() or (name.endswith("_std") and not (value > 0).all()):
                raise ValueError(
                    f"{name} must be finite{' and positive' * name.endswith('_std')}, got {value.tolist()}"
                )
            getattr(self, name).copy_(value)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """mel, f0 (corpus deviations, voiced frames), voicing, pitch, energy, duration: means over real items.

        Raises: ValueError: the batch has no durations, or ids outside the symbol table.
        """
        decoded, predicted, target = self._teach(batch)
        inside = mask(batch.phone_lengths, batch.phones.shape[1]).float()
        heard = mask(batch.mel_lengths, batch.mels.shape[2]).float()
        voiced = batch.voiced * heard
        mel = (decoded.mel - self.normalised(batch.mels)).abs().mean(1)
        f0 = (decoded.f0 - self._deviation(batch.log_f0)).abs()
        voicing = F.binary_cross_entropy_with_logits(decoded.voicing, batch.voiced, reduction="none")
        pitch, energy = ((predicted[i] - target[i]).square() for i in range(2))
        duration = F.huber_loss(predicted.log_duration, target.log_duration, reduction="none")
        return {
            "mel": mean_over(mel, heard),
            "f0": mean_over(f0, voiced),
            "voicing": mean_over(voicing, heard),
            "pitch": mean_over(pitch, inside),
            "energy": mean_over(energy, inside),
            "duration": mean_over(duration, inside),
        }

    @torch.no_grad()
    def teacher_forced(self, batch: Batch) -> Tensor:
        """Log-mels (B, n_mels, T) made with the recordings' durations, pitch, energy and F0; 0 beyond the lengths.

        They lie on the recordings' frames, so a vocoder can learn on them what this model will send it.
        """
        decoded = self._teach(batch)[0]
        mels = decoded.mel * self.mel_std + self.mel_mean
        return mels.clamp(min=math.log(self.mel.floor)) * mask(batch.mel_lengths, mels.shape[2])[:, None]

    def normalised(self, mels: Tensor) -> Tensor:
        return (mels - self.mel_mean) / self.mel_std

    def _deviation(self, log_f0: Tensor) -> Tensor:
        return (log_f0 - self.pitch_mean) / self.pitch_std

    def targets(self, batch: Batch) -> Prosody:
        """What the recordings say."""
        if batch.durations is None:
            raise ValueError("FastSpeech trains on aligned batches; run the aligner first and give its durations")
        energy = (frame_energy(batch.mels) - self.energy_mean) / self.energy_std
        return Prosody(
            symbol_means(self._deviation(batch.log_f0), batch.durations),
            symbol_means(energy, batch.durations),
            (batch.durations + 1).float().log(),
        )

    def _teach(self, batch: Batch) -> tuple[Decoded, Prosody, Prosody]:
        """Decode with the recordings' prosody: (decoded, predicted, target)."""
        target = self.targets(batch)
        assert batch.durations is not None
        encoded, predicted = self._encode(batch.phones, batch.phone_lengths)
        stretched = self._prosodic(encoded, target.pitch, target.energy, batch.phone_lengths)
        frames = batch.mels.shape[2]
        inputs = self.decoder.stretch(stretched, target.pitch, batch.durations, frames)
        decoded = self.decoder(inputs, given=(self._deviation(batch.log_f0), batch.voiced), f0_scale=self._f0_scale())[
            0
        ]
        return Decoded(*(x[..., :frames] for x in decoded)), predicted, target

    def _f0_scale(self) -> tuple[Tensor, Tensor]:
        return self.pitch_mean, self.pitch_std

    def _encode(self, phones: Tensor, lengths: Tensor) -> tuple[Tensor, Prosody]:
        self.check_ids(phones)
        inside = mask(lengths, phones.shape[1]).unsqueeze(-1)
        encoded = self.encoder(phones, lengths)
        return encoded, Prosody(
            self.pitch(encoded, inside), self.energy(encoded, inside), self.duration(encoded.detach(), inside)
        )

    def _prosodic(self, encoded: Tensor, pitch: Tensor, energy: Tensor, lengths: Tensor) -> Tensor:
        """Encodings that know their pitch and energy."""
        prosody = torch.stack([pitch.clamp(-HIGHEST_DEVIATION, HIGHEST_DEVIATION), energy], 1)
        prosody = prosody * mask(lengths, prosody.shape[2])[:, None]
        return encoded + self.embed_prosody(prosody).transpose(1, 2)

    @torch.no_grad()
    def stream(
        self,
        phones: Sequence[int],
        *,
        controls: Controls = PLAIN,
        chunk: int = 32,
        largest: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Frames]:
        """Frames of one sentence as they are decoded. Draws nothing at random: `generator` changes nothing.

        Controls: `speed` and `pause` stretch durations; `pitch` shifts phone pitch and F0; `variation` scales phone
        pitch about the sentence's mean; `energy` is a gain on the mel, exact in decibels.
        Raises: ValueError: no symbols, or ids outside the table.
        """
        ids, lengths = self.spoken_ids([phones], self.mel_mean.device)
        encoded, prosody = self._encode(ids, lengths)
        durations = self._durations(ids, prosody.log_duration[0], controls)
        frames = int(durations.sum())
        centre = prosody.pitch.mean()
        shift = controls.pitch * math.log(2) / 12 / self.pitch_std
        pitch = centre + controls.variation * (prosody.pitch - centre) + shift
        stretched = self._prosodic(encoded, pitch, prosody.energy, lengths)
        inputs = self.decoder.stretch(stretched, pitch, durations[None], frames)
        gain = controls.energy * math.log(10) / 20
        path = path_symbols(durations[None], frames)[0]
        piece = self.decoder.chunk * self.reduction
        steps = max(1, chunk // piece) * self.decoder.chunk
        most = max(steps, (largest or 0) // piece * self.decoder.chunk)
        state, start = None, 0
        while start < inputs.steps:
            decoded, state = self.decoder(inputs, state, start=start, stop=start + steps, f0_scale=self._f0_scale())
            first = start * self.reduction
            count = min(steps * self.reduction, frames - first)
            mel = (decoded.mel[0, :, :count] * self.mel_std + self.mel_mean + gain).clamp(min=math.log(self.mel.floor))
            f0 = (decoded.f0[0, :count] * self.pitch_std + self.pitch_mean).exp()
            yield Frames(mel, f0 * (decoded.voicing[0, :count] > 0), path[first : first + count])
            start, steps = start + steps, min(2 * steps, most)

    def _durations(self, ids: Tensor, log_duration: Tensor, controls: Controls) -> Tensor:
        """Whole frames per symbol, at least one in all."""
        durations = log_duration.exp().sub(1).clamp(0, LONGEST) / controls.speed
        durations = torch.where(self.marks(ids)[0], durations * controls.pause, durations)
        whole = whole_durations(durations, ~self.pauses(ids)[0])
        if int(whole.sum()) == 0:
            whole[-1] = 1
        return whole


def mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool, true within the lengths."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of `values` where `weights` is 1; 0 if nowhere."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
