"""Neural HMM: text → mel as a left-to-right hidden Markov model that can neither skip nor repeat a symbol.

Every symbol is a few states; emissions and the probability of moving on follow from the state's encoding and from all
frames before, read by a prenet and a recurrent mixer. Training maximises the exact likelihood over all alignments: it
needs no aligner. Synthesis walks through the states one group of frames at a time, with a state of constant size.

Source: Mehta et al. 2021 (Neural HMMs are all you need, arXiv:2108.13320); Lameris et al. 2022 (arXiv:2211.13533) for
utterance-level prosody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from melstate.kernels.emission import emissions
from melstate.kernels.hmm import Convention, hmm_log_likelihood, hmm_posteriors, hmm_viterbi
from melstate.kernels.monotonic import monotonic_alignment
from melstate.mixers.mixer import create
from melstate.tts.acoustic import Batch, Controls, Frames
from melstate.tts.conv_lstm_encoder import ConvLSTMEncoder
from melstate.tts.encoder import Encoder
from melstate.tts.neural_hmm_decoding import decode
from melstate.tts.prenet import Prenet
from melstate.tts.symbol_model import SymbolModel
from melstate.tts.text import symbols as table
from melstate.tts.variance import frame_energy
from melstate.vocoders.mel import MelConfig

FURTHEST = 3.0  # corpus deviations of prosody that are shown to the model
PLAIN = Controls()


class NeuralHMM(SymbolModel):
    """Neural HMM on any mixer.

    Args:
        symbols: size of the symbol table.
        mel: mel contract, as MelConfig or its dict; the default contract if None.
        dim, hidden, encoder_blocks, encoder_mixer, encoder_options, kernel, dropout: of the encoder.
        encoder: "mixers", or "conv_lstm" for the published model's, where encoder_blocks counts its convolutions.
        states: HMM states a symbol.
        reduction: frames a step; an utterance's last step is completed by its last frame.
        prenet, prenet_dropout: width, and probability of dropping a unit, in synthesis too.
        context: width of the mixer that reads the past; mixer, mixer_options: see melstate.mixers.mixer.create.
        output: width of the output network's hidden layer.
        floor: least standard deviation, in corpus deviations.
        convention: which frame decides a move; see melstate.kernels.hmm.
        temperature: 0 speaks the means; 1 samples the emissions as they are.
        threshold: a state ends once the probability of still being in it falls below; 0.5 is the median duration.
        pausing: symbol ids that `Controls.pause` stretches; None for punctuation and edges.
        stand_ins: id spoken in place of an id that training hardly saw, as pairs.
    """

    kind: ClassVar[str] = "neural_hmm"
    prosodic: ClassVar[bool] = True
    whole: ClassVar[bool] = False  # whether frames can be told only once all steps are made
    mel_mean: Tensor
    mel_std: Tensor
    prosody_mean: Tensor
    prosody_std: Tensor

    def __init__(
        self,
        symbols: int = len(table.SYMBOLS),
        mel: MelConfig | Mapping[str, Any] | None = None,
        dim: int = 192,
        hidden: int = 384,
        encoder_blocks: int = 3,
        encoder_mixer: str = "gla",
        encoder_options: Mapping[str, Any] | None = None,
        kernel: int = 7,
        dropout: float = 0.05,
        states: int = 2,
        reduction: int = 1,
        prenet: int = 128,
        prenet_dropout: float = 0.5,
        context: int = 256,
        mixer: str = "gla",
        mixer_options: Mapping[str, Any] | None = None,
        output: int = 256,
        floor: float = 0.01,
        convention: Convention = "generative",
        temperature: float = 0.0,
        threshold: float = 0.5,
        pausing: Sequence[int] | None = None,
        stand_ins: Sequence[Sequence[int]] = (),
        encoder: str = "mixers",
    ) -> None:
        if encoder not in ("mixers", "conv_lstm"):
            raise ValueError(f"encoder must be 'mixers' or 'conv_lstm', got {encoder!r}")
        for name, value in (("states", states), ("reduction", reduction)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not (floor > 0 and temperature >= 0 and 0 < threshold < 1):
            raise ValueError(
                f"need floor > 0, temperature >= 0, 0 < threshold < 1, got {floor:g}, {temperature:g}, {threshold:g}"
            )
        config = {
            "dim": dim,
            "hidden": hidden,
            "encoder_blocks": encoder_blocks,
            "encoder_mixer": encoder_mixer,
            "encoder_options": dict(encoder_options or {}),
            "kernel": kernel,
            "dropout": dropout,
            "states": states,
            "reduction": reduction,
            "prenet": prenet,
            "prenet_dropout": prenet_dropout,
            "context": context,
            "mixer": mixer,
            "mixer_options": dict(mixer_options or {}),
            "output": output,
            "floor": floor,
            "convention": convention,
            "temperature": temperature,
            "threshold": threshold,
            "encoder": encoder,
        }
        super().__init__(symbols, mel, config, pausing=pausing, stand_ins=stand_ins)
        self.states, self.reduction = states, reduction
        self.floor, self.convention = floor, convention
        self.temperature, self.threshold = temperature, threshold
        self.bands = self.mel.n_mels * reduction
        self.unit = reduction  # frames: utterances are completed to a multiple of it by their last frame
        self.encoder: nn.Module
        if encoder == "conv_lstm":
            self.encoder = ConvLSTMEncoder(symbols, dim, encoder_blocks, kernel, dropout)
        else:
            self.encoder = Encoder(
                symbols, dim, hidden, encoder_blocks, encoder_mixer, dict(encoder_options or {}), kernel, dropout
            )
        self.prenet = Prenet(self.bands, prenet, prenet_dropout)
        self.enter = nn.Linear(prenet, context)
        self.mixer = create(mixer, context, **dict(mixer_options or {}))
        # The output network's first layer, split by what it reads: its past, its state, its prosody.
        self.from_past = nn.Linear(context, output, bias=False)
        self.from_symbol = nn.Linear(dim, states * output)
        self.from_prosody = nn.Linear(3, output, bias=False)
        self.out = nn.Linear(output, 2 * self.bands + 1)
        self.go = nn.Parameter(0.1 * torch.randn(self.bands))
        nn.init.zeros_(self.from_prosody.weight)
        self.register_buffer("mel_mean", torch.full((self.mel.n_mels, 1), -5.0))
        self.register_buffer("mel_std", torch.full((self.mel.n_mels, 1), 2.0))
        self.register_buffer("prosody_mean", torch.tensor([5.0, -2.0, -3.5]))
        self.register_buffer("prosody_std", torch.tensor([0.1, 0.2, 0.3]))
        self._flat_start(0.1)

    @torch.no_grad()
    def _flat_start(self, move: float) -> None:
        """Every state alike: standard normal emissions, probability `move` of moving on."""
        self.out.weight.zero_()
        self.out.bias.zero_()
        self.out.bias[self.bands : -1] = math.log(math.e - 1)
        self.out.bias[-1] = math.log(move / (1 - move))

    @torch.no_grad()
    def set_statistics(
        self, mel_mean: Tensor, mel_std: Tensor, prosody: Tensor, first_frame: Tensor, symbol_rate: float
    ) -> None:
        """What the corpus looks like; before training. Starts the output network anew, all states alike.

        Args:
            mel_mean, mel_std: (n_mels,) of log-mel.
            prosody: (U, 3) `utterance_prosody` of the training utterances.
            first_frame: (n_mels,) mean log-mel of the utterances' first frames.
            symbol_rate: symbols per frame.
        Raises: ValueError unless all are finite and deviations and rate positive.
        """
        spread = prosody.std(0, unbiased=False).clamp(min=1e-3)
        if not (mel_std > 0).all() or symbol_rate <= 0:
            raise ValueError(f"mel_std and symbol_rate must be positive, got {mel_std.tolist()} and {symbol_rate:g}")
        for name, value in (("mel_mean", mel_mean), ("mel_std", mel_std), ("prosody", prosody), ("first", first_frame)):
            if not value.isfinite().all():
                raise ValueError(f"{name} must be finite, got {value.tolist()}")
        self.mel_mean.copy_(mel_mean[:, None])
        self.mel_std.copy_(mel_std[:, None])
        self.prosody_mean.copy_(prosody.mean(0))
        self.prosody_std.copy_(spread)
        self.go.copy_(((first_frame - mel_mean) / mel_std).repeat(self.reduction))
        self._flat_start(min(0.9, symbol_rate * self.states * self.reduction))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """likelihood: −log p(mel | text) in nats a mel value.

        Raises: ValueError: ids outside the symbol table, or fewer groups of frames than states; names the utterance.
        """
        return {"likelihood": -self.log_likelihood(batch).sum() / (batch.mel_lengths.sum() * self.mel.n_mels)}

    def log_likelihood(self, batch: Batch, *, dropout: bool | None = None) -> Tensor:
        """(B,) log-density of each utterance's normalised mels, in nats. dropout: the prenet's; on if None, as ever."""
        *terms, volume = self._terms(batch, True if dropout is None else dropout)
        return hmm_log_likelihood(*terms, convention=self.convention, names=batch.ids) + volume

    @property
    def frames_per_symbol(self) -> int:
        """Frames that every symbol takes at least."""
        return self.states * self.reduction

    @torch.no_grad()
    def durations(self, batch: Batch, method: str = "viterbi") -> Tensor:
        """(B, N) frames per symbol, at least one each, summing to mel_lengths.

        Args:
            method: "viterbi": on the likeliest path; "posterior": on the path with most frames in the right state, in
                expectation over all paths.
        """
        if method not in ("viterbi", "posterior"):
            raise ValueError(f"method must be 'viterbi' or 'posterior', got {method!r}")
        *terms, _ = self._terms(batch, False)
        if method == "viterbi":
            found = hmm_viterbi(*terms, convention=self.convention, names=batch.ids)
        else:
            found = monotonic_alignment(
                hmm_posteriors(*terms, convention=self.convention, names=batch.ids), terms[2], terms[3]
            )
        durations = self.reduction * found.unflatten(1, (-1, self.states)).sum(2)
        # What completed the last group was not in the recording.
        added = self.reduction * self._groups(batch.mel_lengths) - batch.mel_lengths
        durations[torch.arange(len(durations)), batch.phone_lengths - 1] -= added
        return durations

    def _groups(self, frames: Tensor) -> Tensor:
        return (frames + self.unit - 1) // self.unit * (self.unit // self.reduction)

    def _terms(self, batch: Batch, dropout: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Emissions, transitions, steps and states of teacher-forced utterances, and what `_observed` adds."""
        steps, states = self._groups(batch.mel_lengths), batch.phone_lengths * self.states
        observed, volume = self._observed(batch.mels, batch.mel_lengths)
        before = torch.cat([self.go.expand(len(observed), 1, -1), observed[:, :-1]], 1)
        # Without lengths: mixers are causal, nothing reads past a row's end, and packed LSTMs train thrice as slowly.
        context = self.mixer(self.enter(self.prenet(before, dropout=dropout)))[0]
        prosody = (utterance_prosody(batch) - self.prosody_mean) / self.prosody_std
        by_state = self.by_state(batch.phones, batch.phone_lengths, prosody)
        emission, transition = emissions(
            self.from_past(context), by_state, self.out.weight, self.out.bias, observed, steps, states, floor=self.floor
        )
        return emission, transition, steps, states, volume

    def _observed(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n_mels, T) log-mels → what the HMM emits (B, steps, bands), and the log-volume change on the way (B,)."""
        return self._grouped(self._completed(mels, frames)), mels.new_zeros(len(mels))

    def _completed(self, mels: Tensor, frames: Tensor) -> Tensor:
        """Normalised, with rows continued by their last frame to a whole number of units."""
        total = self.unit * -(-mels.shape[2] // self.unit)
        at = torch.minimum(torch.arange(total, device=mels.device), frames[:, None] - 1)
        normal = (mels - self.mel_mean) / self.mel_std
        return normal.gather(2, at[:, None].expand(-1, normal.shape[1], -1))

    def _grouped(self, frames: Tensor) -> Tensor:
        """(B, n_mels, T) → (B, steps, n_mels · reduction)."""
        return frames.transpose(1, 2).reshape(len(frames), -1, self.bands)

    def by_state(self, phones: Tensor, lengths: Tensor, prosody: Tensor) -> Tensor:
        """(B, N · states, output): what the output network's first layer makes of states and prosody (B, 3)."""
        self.check_ids(phones)
        encoded = self.from_symbol(self.encoder(phones, lengths))
        prosody = self.from_prosody(prosody.clamp(-FURTHEST, FURTHEST))
        return encoded.unflatten(2, (self.states, -1)).flatten(1, 2) + prosody[:, None]

    @torch.no_grad()
    def stream(
        self,
        phones: Sequence[int],
        *,
        controls: Controls = PLAIN,
        chunk: int = 32,
        largest: int | None = None,
        generator: torch.Generator | None = None,
        durations: str = "quantile",
    ) -> Iterator[Frames]:
        """Frames of one sentence as they are decoded; f0 is None, symbols come in order and every one comes.

        Args:
            controls: `speed` multiplies the rate at which states end, `pause` divides that of punctuation's; `pitch`
                and `energy` become corpus deviations of the utterance's mean beside those asked for as such, what
                lies beyond 3 of energy a plain gain; `variation` multiplies the temperature.
            generator: of the prenet's dropout, sampled emissions and sampled durations.
            durations: "quantile" ends a state at the threshold, "sampled" draws its end.
        Raises: ValueError: no symbols, ids outside the table, or unknown `durations`.
        """
        held: list[Tensor] = []
        at: list[int] = []
        for spoken, index in decode(self, [phones], self._shown(controls), controls, generator, durations):
            held.append(spoken[0])
            at.append(int(index[0]) // self.states)
            if len(held) * self.reduction >= chunk and not self.whole:
                yield self._frames(held, at, controls)
                held, at = [], []
                chunk = max(chunk, min(2 * chunk, largest or 0))
        if held:
            yield self._frames(held, at, controls)

    @torch.no_grad()
    def speak(
        self,
        sentences: Sequence[Sequence[int]],
        *,
        controls: Controls = PLAIN,
        generator: torch.Generator | None = None,
        durations: str = "quantile",
    ) -> list[Frames]:
        """Whole sentences, decoded together until the last is done; arguments as `stream`."""
        held: list[Tensor] = []
        at: list[Tensor] = []
        for spoken, index in decode(self, sentences, self._shown(controls), controls, generator, durations):
            held.append(spoken)
            at.append(index)
        frames = []
        for row, phones in enumerate(sentences):
            alive = [int(index[row]) // self.states for index in at if int(index[row]) < len(phones) * self.states]
            frames.append(self._frames([spoken[row] for spoken in held[: len(alive)]], alive, controls))
        return frames

    def _frames(self, held: list[Tensor], at: list[int], controls: Controls) -> Frames:
        mel = self._spoken(torch.stack(held).view(-1, self.mel.n_mels).T) * self.mel_std + self.mel_mean
        asked = controls.energy * math.log(10) / 20 + controls.energy_sd * float(self.prosody_std[2])
        excess = asked - self._shown(controls)[2] * float(self.prosody_std[2])
        symbol = torch.tensor(at, device=mel.device).repeat_interleave(self.reduction)
        return Frames((mel + excess).clamp(min=math.log(self.mel.floor)), None, symbol)

    def _spoken(self, emitted: Tensor) -> Tensor:
        """What the HMM emitted (n_mels, T) → normalised log-mels."""
        return emitted

    def _shown(self, controls: Controls) -> tuple[float, float, float]:
        """Prosody in corpus deviations that the controls ask the model for."""
        pitch = controls.pitch * math.log(2) / 12 / float(self.prosody_std[0])
        energy = controls.energy * math.log(10) / 20 / float(self.prosody_std[2]) + controls.energy_sd
        return pitch + controls.pitch_sd, controls.rate_sd, max(-FURTHEST, min(FURTHEST, energy))


def utterance_prosody(batch: Batch) -> Tensor:
    """(B, 3): mean log F0 over voiced frames (over all where none is), log of symbols per frame, mean log energy."""
    heard = torch.arange(batch.mels.shape[2], device=batch.mels.device) < batch.mel_lengths[:, None]
    voiced = (batch.voiced > 0.5) & heard
    voiced = torch.where(voiced.any(1, keepdim=True), voiced, heard).float()
    pitch = (batch.log_f0 * voiced).sum(1) / voiced.sum(1)
    energy = torch.where(heard, frame_energy(batch.mels), 0.0).sum(1) / batch.mel_lengths
    return torch.stack([pitch, (batch.phone_lengths / batch.mel_lengths).log(), energy], 1)
