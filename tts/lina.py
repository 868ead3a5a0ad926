"""Lina: a language model of speech over mels cut into a few levels, on recurrent mixers whose state never grows.

The text is encoded whole, in both directions. A decoder reads groups of frames it has spoken, as the sum of an
embedding per channel and level; after half of its blocks it looks up in the text what comes next, and at the end names
a level for every channel of the next group at once: F0 and voicing first, then all bands of the mel, whose harmonics
follow the F0. A speaker is the state the decoder starts from.

Source: Lemerle et al. 2024, Lina-Speech (arXiv:2410.23320), over the mel levels of Bai et al. 2024, dMel
(arXiv:2407.15835).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.mixers.block import GLU, build
from melstate.mixers.mixer import Mixer
from melstate.mixers.norm import HeadNorm
from melstate.tts.acoustic import Batch, Controls, Frames
from melstate.tts.aligner import beta_binomial_prior, forward_sum
from melstate.tts.cross_attention import NOWHERE, Attended, PositionAwareAttention, Text
from melstate.tts.encoder import Encoder
from melstate.tts.initial_state import InitialStates
from melstate.tts.length import path_symbols
from melstate.tts.levels import Levels, level_loss
from melstate.tts.lina_decoding import Report, decode, parts
from melstate.tts.prenet import Prenet
from melstate.tts.symbol_model import SymbolModel
from melstate.tts.tempo import Tempo
from melstate.tts.text import symbols as table
from melstate.tts.variance import harmonic_bands, harmonic_comb
from melstate.vocoders.mel import MelConfig

PLAIN = Controls()
CONTOUR = 2  # channels after the mel's: log F0, voicing


class DecoderState(NamedTuple):
    """All that decoding remembers: the states below, inside and above the cross-attention. Its size never changes."""

    lower: Any
    path: Any
    upper: Any


class Step(NamedTuple):
    """known (B, T, dim): what the decoder knows of the groups that come next, from which `contour_logits` and
    `mel_logits` name levels; stop (B, T): the logit of each being the last."""

    known: Tensor
    stop: Tensor
    attended: Attended


class Lina(SymbolModel):
    """Lina over mels.

    Args:
        symbols: size of the symbol table.
        mel: mel contract, as MelConfig or its dict; the default contract if None.
        contour: whether log F0 and voicing are spoken before the mel, as two more channels.
        levels: per channel.
        group: frames a step; an utterance's last group is completed by its last frame.
        text_dim, text_hidden, text_blocks, kernel: of the text encoder.
        dim, hidden: width of the decoder and of its feed-forwards.
        blocks: decoder blocks below the cross-attention, and as many above.
        mixer, options: of encoder, decoder and position path; see melstate.mixers.mixer.create.
        key_dim, place_dim, path_dim: of the cross-attention.
        embedding, prenet: widths in which a spoken group is read.
        prenet_dropout: of what was spoken, in synthesis too.
        dropout: of the blocks.
        noise: training reads levels disturbed by up to this many (standard deviation, another for every utterance).
        blank: training hides this share of the groups from what is read.
        speakers: initial states to learn, of rank `rank`; `speaker` is the one that speaks.
        offset: training shifts an utterance's places in the text by up to this many symbols.
        temperature, top_p: of the levels that are drawn; temperature may be one number for each channel.
        output: "mean" speaks the expected level, "drawn" the level that was drawn (and is read on). F0 and voicing are
            spoken as expected either way: a level of F0 is a semitone or two.
        back, ahead: symbols by which the attended place may fall behind or move on in one step.
        retries: times a passage that failed is spoken anew before it is cut.
        pausing: symbol ids that `Controls.pause` stretches; None for punctuation and edges.
        stand_ins: id spoken in place of an id that training hardly saw, as pairs.
    """

    kind: ClassVar[str] = "lina"
    soon: ClassVar[int | None] = 24
    temperature: Tensor
    bands: Tensor
    _rows: Tensor

    def __init__(
        self,
        symbols: int = len(table.SYMBOLS),
        mel: MelConfig | Mapping[str, Any] | None = None,
        contour: bool = True,
        levels: int = 16,
        group: int = 3,
        text_dim: int = 192,
        text_hidden: int = 384,
        text_blocks: int = 3,
        kernel: int = 7,
        dim: int = 256,
        hidden: int = 512,
        blocks: int = 2,
        mixer: str = "gla",
        options: Mapping[str, Any] | None = None,
        key_dim: int = 64,
        place_dim: int = 64,
        path_dim: int = 128,
        embedding: int = 128,
        prenet: int = 192,
        prenet_dropout: float = 0.3,
        dropout: float = 0.1,
        noise: float = 1.0,
        blank: float = 0.1,
        speakers: int = 1,
        rank: int = 2,
        speaker: int = 0,
        offset: int = 300,
        temperature: float | Sequence[float] = 0.6,
        top_p: float = 1.0,
        output: str = "mean",
        back: float = 2.0,
        ahead: float = 3.0,
        retries: int = 3,
        pausing: Sequence[int] | None = None,
        stand_ins: Sequence[Sequence[int]] = (),
    ) -> None:
        options = dict(options or {})
        if group < 1 or not 0 <= speaker < speakers:
            raise ValueError(f"need group >= 1 and speaker in 0..{speakers - 1}, got group {group}, speaker {speaker}")
        config = {
            "contour": contour,
            "levels": levels,
            "group": group,
            "text_dim": text_dim,
            "text_hidden": text_hidden,
            "text_blocks": text_blocks,
            "kernel": kernel,
            "dim": dim,
            "hidden": hidden,
            "blocks": blocks,
            "mixer": mixer,
            "options": options,
            "key_dim": key_dim,
            "place_dim": place_dim,
            "path_dim": path_dim,
            "embedding": embedding,
            "prenet": prenet,
            "prenet_dropout": prenet_dropout,
            "dropout": dropout,
            "noise": noise,
            "blank": blank,
            "speakers": speakers,
            "rank": rank,
            "speaker": speaker,
            "offset": offset,
        }
        super().__init__(symbols, mel, config, pausing=pausing, stand_ins=stand_ins)
        channels = self.mel.n_mels + CONTOUR * contour
        self.group, self.channels, self.contour = group, channels, contour
        self.noise, self.blank, self.offset, self.speaker = noise, blank, offset, speaker
        self.levels = Levels(channels, levels)
        self.encoder = Encoder(symbols, text_dim, text_hidden, text_blocks, mixer, options, kernel, dropout)
        self.embedding = nn.EmbeddingBag(group * channels * levels, embedding, mode="sum")
        nn.init.normal_(self.embedding.weight, std=(group * channels) ** -0.5)
        self.go = nn.Parameter(torch.randn(embedding))
        self.prenet = Prenet(embedding, prenet, prenet_dropout)
        self.enter = nn.Linear(prenet, dim)
        self.lower = build(dim, blocks, mixer, hidden=hidden, dropout=dropout, norm=False, **options)
        self.attention = PositionAwareAttention(dim, text_dim, key_dim, place_dim, path_dim, mixer, options)
        self.upper = build(dim, blocks, mixer, hidden=hidden, dropout=dropout, norm=False, **options)
        if not all(_constant(layer) for layer in self.lower.modules()):
            raise ValueError(f"lina: mixer {mixer!r} has a state that grows; choose one whose state does not")
        self.starts = InitialStates((self.lower.init_state(1), self.upper.init_state(1)), speakers, rank)
        self.norm = HeadNorm(dim)
        self.to_stop = nn.Linear(dim, 1)
        self.register_buffer("bands", harmonic_bands(self.mel), persistent=False)
        if contour:
            self.to_contour = nn.Linear(dim, group * CONTOUR * levels)
            self.read_contour = nn.Linear(group * (CONTOUR + len(self.bands)), dim)
        self.write = GLU(dim, dim)
        self.to_mel = nn.Linear(dim, group * self.mel.n_mels * levels)
        offsets = torch.arange(group * channels) * levels
        self.register_buffer("_rows", offsets, persistent=False)
        self.register_buffer("temperature", torch.zeros(channels), persistent=False)
        self.set_decoding(temperature, top_p, output, back, ahead, retries)

    def set_decoding(
        self,
        temperature: float | Sequence[float],
        top_p: float,
        output: str,
        back: float,
        ahead: float,
        retries: int,
    ) -> None:
        """How to speak, as in the class's arguments; may change after training and is part of the configuration.

        Raises: ValueError: out of range, or not a temperature for each channel.
        """
        single = isinstance(temperature, int | float)
        spread = [float(temperature)] * self.channels if single else list(temperature)  # type: ignore[arg-type]
        if len(spread) != self.channels or min(spread) < 0:
            raise ValueError(
                f"temperature must be one number >= 0 or {self.channels} of them, got {len(spread)}, "
                f"the least {min(spread):g}"
            )
        if not 0 < top_p <= 1 or output not in ("mean", "drawn"):
            raise ValueError(f"need 0 < top_p <= 1 and output 'mean' or 'drawn'; got {top_p:g} and {output!r}")
        if back < 0 or ahead < 1 or retries < 0:
            raise ValueError(f"need back >= 0, ahead >= 1 symbols, retries >= 0; got {back:g}, {ahead:g}, {retries}")
        self.temperature.copy_(torch.tensor(spread))
        self.output, self.top_p, self.back, self.ahead, self.retries = output, top_p, back, ahead, retries
        self.config |= {"temperature": temperature if single else spread, "top_p": top_p, "output": output}
        self.config |= {"back": back, "ahead": ahead, "retries": retries}

    def speak_from(self, starts: InitialStates) -> None:
        """Start from the first speaker of other initial states, instead of those that were trained with the rest."""
        self.starts, self.speaker = starts, 0
        self.config |= {"speakers": starts.speakers, "rank": starts.rank, "speaker": 0}

    @torch.no_grad()
    def set_statistics(self, low: Tensor, high: Tensor, rates: Tensor) -> None:
        """What the corpus looks like; before training.

        Args:
            low, high: (channels,) values of the first and of the last level.
            rates: (channels, levels) how often each level occurs, in fractions of frames; biases start from there.
        """
        self.levels.set_limits(low, high)
        bias = rates.clamp(min=1e-4).log()
        self.to_mel.bias.copy_(bias[: self.mel.n_mels].repeat(self.group, 1).flatten())
        if self.contour:
            self.to_contour.bias.copy_(bias[self.mel.n_mels :].repeat(self.group, 1).flatten())
        self.to_stop.bias.fill_(-4.0)

    # --- training

    def losses(self, batch: Batch, *, guide: float = 1.0) -> dict[str, Tensor]:
        """mel, contour: nats a value; stop: nats a step; alignment: of the position attention; content: of the other.

        The alignments are −log attention to the aligned symbol where the batch has durations, else minus the
        log-probability of all monotonic paths, to which a diagonal prior is added with weight `guide`.

        Raises: ValueError: ids outside the symbol table, or a speaker that is not there.
        """
        values = self.values(batch)
        steps = self._steps(batch.mel_lengths)
        said = self.teach(batch, values)
        inside = _mask(steps, values.shape[1])
        place = self.levels.place(values)
        bands = self.mel.n_mels
        contour = values[..., bands:] if self.contour else None
        nats = level_loss(self.mel_logits(said.known, contour).float(), place[..., :bands])
        losses = {"mel": _mean(nats, inside[..., None, None])}
        if self.contour:
            # Where nothing is voiced F0 means nothing.
            counted = torch.stack([values[..., bands + 1] > 0.5, torch.ones_like(values[..., 0], dtype=torch.bool)], -1)
            nats = level_loss(self.contour_logits(said.known).float(), place[..., bands:])
            losses["contour"] = _mean(nats, inside[..., None, None] & counted)
        last = torch.arange(values.shape[1], device=steps.device) == steps[:, None] - 1
        stop = F.binary_cross_entropy_with_logits(said.stop.float(), last.float(), reduction="none")
        losses["stop"] = _mean(stop, inside)
        for name, logits in (("alignment", said.attended.position), ("content", said.attended.content)):
            losses[name] = self._alignment_loss(logits, batch, steps, guide)
        return losses

    def values(self, batch: Batch) -> Tensor:
        """(B, steps, group, channels): the utterances, each continued by its last frame to whole groups."""
        channels = [batch.mels]
        if self.contour:
            channels += [batch.log_f0[:, None], batch.voiced[:, None]]
        frames = torch.cat(channels, 1).transpose(1, 2)
        total = int(self._steps(batch.mel_lengths).max()) * self.group
        at = torch.minimum(torch.arange(total, device=frames.device), batch.mel_lengths[:, None] - 1)
        return frames.gather(1, at[..., None].expand(-1, -1, self.channels)).unflatten(1, (-1, self.group))

    def teach(self, batch: Batch, values: Tensor) -> Step:
        """Decode with the recordings' own past; disturbed by noise while training."""
        before = self.levels.quantise(values[:, :-1])
        hidden = None
        if self.training:
            spread = self.noise * torch.rand(len(values), 1, 1, 1, device=values.device)
            shaken = before + torch.randn(before.shape, device=values.device) * spread
            before = shaken.round().clamp(0, self.levels.levels - 1).long()
            hidden = torch.rand(len(values), before.shape[1] + 1, 1, device=values.device) < self.blank
        read = torch.cat([self.go.expand(len(values), 1, -1), self.read(before.flatten(2))], 1)
        if hidden is not None:
            read = read.masked_fill(hidden, 0.0)
        offset = torch.randint(self.offset + 1, (len(values),), device=values.device) if self.training else 0
        text = self.text(batch.phones, batch.phone_lengths, offset)
        return self(read, text, self.start(batch.speakers))[0]

    def _alignment_loss(self, logits: Tensor, batch: Batch, steps: Tensor, guide: float) -> Tensor:
        scores = logits.log_softmax(-1)
        if batch.durations is None:
            prior = beta_binomial_prior(steps, batch.phone_lengths, logits.shape[1], logits.shape[2])
            scores = (scores + guide * prior).masked_fill(logits <= NOWHERE / 2, NOWHERE)
            return forward_sum(scores, steps, batch.phone_lengths)
        path = path_symbols(batch.durations, logits.shape[1] * self.group).clamp(max=logits.shape[2] - 1)
        path = torch.minimum(path, batch.phone_lengths[:, None] - 1).unflatten(1, (-1, self.group))
        return -_mean(scores.gather(2, path).mean(-1), _mask(steps, logits.shape[1]))

    def _steps(self, frames: Tensor) -> Tensor:
        return (frames + self.group - 1) // self.group

    # --- one decoder for training and synthesis

    def text(self, phones: Tensor, lengths: Tensor, offset: Tensor | int = 0) -> Text:
        """(B, N) symbols → what the decoder reads of them. Raises ValueError: ids outside the symbol table."""
        self.check_ids(phones)
        return self.attention.prepare(self.encoder(phones, lengths), _mask(lengths, phones.shape[1]), offset)

    def read(self, levels: Tensor) -> Tensor:
        """(B, T, group · channels) levels → (B, T, embedding)."""
        flat = (levels + self._rows).flatten(0, 1)
        return self.embedding(flat).unflatten(0, levels.shape[:2])

    def start(self, speakers: Tensor) -> DecoderState:
        """(B,) speakers → the states they speak from."""
        batch = len(speakers)
        lower, upper = self.starts((self.lower.init_state(batch), self.upper.init_state(batch)), speakers)
        return DecoderState(lower, self.attention.path.init_state(batch), upper)

    def forward(
        self,
        read: Tensor,
        text: Text,
        state: DecoderState,
        *,
        allowed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Step, DecoderState]:
        """Groups read so far (B, T, embedding) → what comes after each, and the state to go on from.

        Args:
            allowed: (B, T, N) symbols that may be attended to.
            generator: of the prenet's dropout.
        """
        x = self.enter(self.prenet(read, dropout=True, generator=generator))
        x, lower = self.lower(x, state.lower)
        attended, path = self.attention(x, text, state.path, allowed=allowed)
        x, upper = self.upper(x + attended.read, state.upper)
        known = self.norm(x)
        return Step(known, self.to_stop(known)[..., 0], attended), DecoderState(lower, path, upper)

    def contour_logits(self, known: Tensor) -> Tensor:
        """(B, T, dim) → (B, T, group, 2, levels) of log F0 and voicing."""
        return self.to_contour(known).unflatten(-1, (self.group, CONTOUR, self.levels.levels))

    def mel_logits(self, known: Tensor, contour: Tensor | None) -> Tensor:
        """(B, T, dim) and the contour's values (B, T, group, 2), if it is spoken → (B, T, group, n_mels, levels)."""
        if contour is not None:
            log_f0, voiced = contour[..., 0], (contour[..., 1] > 0.5).to(contour.dtype)
            comb = harmonic_comb(log_f0.exp(), voiced, self.bands)
            low, high = self.levels.low[-2], self.levels.high[-2]
            height = (2 * (log_f0 - low) / (high - low) - 1).clamp(-1, 1) * voiced
            heard = torch.cat([height[..., None], voiced[..., None], comb], -1).flatten(2)
            known = known + self.read_contour(heard)
        known = known + self.write(known, known.new_zeros(len(known), 0, 0))[0]
        return self.to_mel(known).unflatten(-1, (self.group, self.mel.n_mels, self.levels.levels))

    # --- synthesis

    @torch.no_grad()
    def stream(
        self,
        phones: Sequence[int],
        *,
        controls: Controls = PLAIN,
        chunk: int = 32,
        largest: int | None = None,
        generator: torch.Generator | None = None,
        report: Report | None = None,
    ) -> Iterator[Frames]:
        """Frames of one sentence, passage by passage; see melstate.tts.lina_decoding for what happens when one fails,
        and for where a very long one begins anew.

        Args:
            controls: `variation` multiplies the temperature; `speed` and `pause` stretch what was spoken; `pitch`
                shifts the contour and `energy` is a gain on the mel.
            generator: of the prenet's dropout and of the drawn levels.
            report: is filled with what the guard and the retries did.
        Raises:
            ValueError: no symbols, ids outside the table, or `pitch` without a contour.
            RuntimeError: nothing finite came out, however often it was tried.
        """
        if controls.pitch and not self.contour:
            raise ValueError("pitch cannot be shifted: this model was trained with contour=False and speaks no F0")
        pauses = self.marks(torch.tensor([list(phones)]))[0].tolist()
        tempo, report = Tempo(), Report() if report is None else report
        held: list[tuple[Tensor, list[int]]] = []
        for part in parts(phones, pauses):
            text, happened = self.text(*self.spoken_ids([part.ids], self.go.device)), Report()
            for values, spoken in decode(self, text, controls.variation, generator, happened):
                symbol = [min(part.first + i, part.last) for i in spoken]
                lengths = [(controls.pause if pauses[i] else 1.0) / controls.speed for i in symbol]
                held.append(tempo.push(values, symbol, lengths))
                if sum(len(at) for _, at in held) >= chunk:
                    yield self._frames(held, controls)
                    held, chunk = [], max(chunk, min(2 * chunk, largest or 0))
            report.add(happened)
        held.append(tempo.finish())
        if any(at for _, at in held):
            yield self._frames(held, controls)

    def _frames(self, held: list[tuple[Tensor, list[int]]], controls: Controls) -> Frames:
        values = torch.cat([part for part, _ in held])
        symbol = torch.tensor([i for _, at in held for i in at], device=values.device)
        bands, gain = self.mel.n_mels, controls.energy * math.log(10) / 20
        mel = (values[:, :bands].T + gain).clamp(min=math.log(self.mel.floor))
        if not self.contour:
            return Frames(mel, None, symbol)
        f0 = (values[:, bands] + controls.pitch * math.log(2) / 12).exp() * (values[:, bands + 1] > 0.5)
        return Frames(mel, f0, symbol)


def _constant(layer: nn.Module) -> bool:
    return not isinstance(layer, Mixer) or layer.constant_state


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the items for which `counted`, which broadcasts, is true; 0 where there are none."""
    counted = counted.expand_as(values)
    return (values * counted).sum() / counted.sum().clamp(min=1)


def _mask(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=lengths.device) < lengths[:, None]
