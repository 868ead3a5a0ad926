"""A voice: text in, speech out, streamed. On disk a voice is a folder (melstate.tts.manifest describes voice.yaml)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from melstate.tts import manifest
from melstate.tts.acoustic import PROSODY, AcousticModel, Controls, Frames, SpeechWarning
from melstate.tts.audio import Audio, SpokenSentence
from melstate.tts.contrast import Contrast
from melstate.tts.manifest import Defaults, Manifest, VoiceError
from melstate.tts.timeline import Timeline
from melstate.tts.voice_folder import (
    ACOUSTIC_MODELS,
    VOCODERS,
    check_model_name,
    load_model,
    save_model,
    write_manifest,
)
from melstate.vocoders.checkpoint import write_atomic
from melstate.vocoders.vocoder import Vocoder

STANDARD = Defaults()
CONTROLS = tuple(field.name for field in fields(Controls) if field.name not in PROSODY)  # those with defaults
LARGEST_CHUNK = 512  # frames: past this, larger chunks do not save time
KNEE = 0.8  # of full scale, where the limiter begins
PARAGRAPH = re.compile(r"\n\s*\n")


class Sentence(Protocol):
    """What the front end gives: see melstate.tts.text."""

    @property
    def text(self) -> str: ...
    @property
    def words(self) -> Sequence[str]: ...
    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def word_of(self) -> Sequence[int]: ...


class FrontEnd(Protocol):
    def sentences(self, text: str) -> Iterator[Sentence]: ...


class Voice:
    """An acoustic model and a vocoder that speak together. Calls share nothing that changes: use it from many threads.

    Args:
        name: [a-z0-9_-].
        acoustic, vocoder: models with equal mel contracts; put into eval mode.
        model: what the voice calls this acoustic model, [a-z0-9_-]; its kind if None.
        language: BCP 47, e.g. "en-US".
        licence: SPDX identifier or short name of the voice's licence.
        description: one line.
        licence_text, card: contents of LICENSE and card.md.
        defaults: how it speaks when nothing is asked.
        contrast: given to the acoustic model's mels before the vocoder reads them; None for none.
        front_end: text → sentences; melstate.tts.text.FrontEnd() if None.
    Raises: VoiceError: the mel contracts differ, or a default is out of range.
    """

    def __init__(
        self,
        name: str,
        acoustic: AcousticModel,
        vocoder: Vocoder,
        *,
        model: str | None = None,
        language: str,
        licence: str,
        description: str,
        licence_text: str,
        card: str = "",
        defaults: Defaults = STANDARD,
        contrast: Contrast | None = None,
        front_end: FrontEnd | None = None,
    ) -> None:
        if different := acoustic.mel.differences(vocoder.mel):
            raise VoiceError(
                f"voice '{name}': acoustic mel and vocoder mel differ: {different}; "
                "retrain one or choose a vocoder with the acoustic model's mel"
            )
        try:
            Controls(**{name: getattr(defaults, name) for name in CONTROLS})
        except ValueError as error:
            raise VoiceError(f"voice '{name}': defaults.{error}") from error
        if front_end is None:
            from melstate.tts.text import FrontEnd as English

            front_end = cast(FrontEnd, English())
        self.name, self.model = name, acoustic.kind if model is None else model
        self.language, self.licence, self.description = language, licence, description
        self.licence_text, self.card, self.defaults = licence_text, card, defaults
        self.acoustic, self.vocoder, self.contrast = acoustic.eval(), vocoder.eval(), contrast
        self.front_end = front_end

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.vocoder.mel.sample_rate

    @property
    def device(self) -> torch.device:
        return next(self.acoustic.parameters()).device

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "kathleen",
        *,
        model: str | None = None,
        device: str | torch.device = "cpu",
        front_end: FrontEnd | None = None,
    ) -> Voice:
        """Load a shipped voice by name, or a voice folder by Path or by a str with a path separator.

        Args:
            model: which of the voice's acoustic models is to speak; its default if None. The others are not read.
        Raises:
            VoiceError (a ValueError): no such voice or model, or a broken one: licence, hash, tensors, symbols or mel
                at fault.
            ValueError: the device cannot be used.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise ValueError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
        folder = manifest.find(name_or_path)
        about = manifest.read(folder)
        model = about.choose(model)
        if about.base is not None:
            from melstate.tts.clone import load_clone

            acoustic, vocoder = load_clone(folder, about, about.models[model])
        else:
            acoustic = load_model(folder, about, about.models[model], ACOUSTIC_MODELS)
            vocoder = load_model(folder, about, about.vocoder, VOCODERS)
        card = folder / "card.md"
        return cls(
            about.name,
            cast(AcousticModel, acoustic.to(device)),
            cast(Vocoder, vocoder.to(device)).for_inference(),
            model=model,
            language=about.language,
            licence=about.licence,
            description=about.description,
            licence_text=(folder / "LICENSE").read_text("utf-8"),
            card=card.read_text("utf-8") if card.is_file() else "",
            defaults=about.defaults,
            contrast=about.models[model].contrast,
            front_end=front_end,
        )

    def save(self, folder: str | Path, *, half: bool = True) -> None:
        """Write a complete voice folder that speaks with this one model; half stores the weights in fp16.

        voice.yaml, which makes the folder a voice, is written last: an interrupted save is refused at load. Model
        files of a voice that was there before are removed.

        Raises: VoiceError: a licence or a name is missing or malformed. ValueError: weights that are not finite.
        """
        folder = Path(folder)
        if not manifest.NAME.fullmatch(self.name):
            raise VoiceError(f"voice {self.name!r}: a name may hold only a-z, 0-9, '-' and '_'")
        check_model_name(self.name, self.model)
        if not self.licence.strip() or not self.licence_text.strip():
            raise VoiceError(f"voice '{self.name}': a voice needs a licence and the licence's text")
        folder.mkdir(parents=True, exist_ok=True)
        models = {self.model: replace(save_model(folder, self.model, self.acoustic, half), contrast=self.contrast)}
        vocoder = save_model(folder, "vocoder", self.vocoder, half)
        write_atomic(folder / "LICENSE", self.licence_text.encode())
        write_atomic(folder / "card.md", self.card.encode())
        write_manifest(
            folder,
            Manifest(self.name, self.language, self.licence, self.description, models, vocoder, self.defaults),
        )

    def synthesize(self, text: str, **controls: Any) -> Audio:
        """The whole speech: `stream`, joined. Takes the same controls."""
        return Audio.join(list(self.stream(text, **controls)))

    def stream(
        self,
        text: str,
        *,
        speed: float | None = None,
        pitch: float | None = None,
        energy: float | None = None,
        pause: float | None = None,
        variation: float | None = None,
        pitch_sd: float = 0.0,
        rate_sd: float = 0.0,
        energy_sd: float = 0.0,
        seed: int = 0,
        chunk: int | None = None,
    ) -> Iterator[Audio]:
        """Speak sentence by sentence, and inside a sentence chunk by chunk, as it is made.

        Args:
            text: any length; sentences are taken from it one at a time.
            speed, pitch, energy, pause, variation: as in melstate.tts.acoustic.Controls; None is the voice's default.
            pitch_sd, rate_sd, energy_sd: likewise, of models that have learned utterances' prosody.
            seed: the same seed gives the same audio, on any thread; the global random state is not touched.
            chunk: frames to make at a time; None starts small and grows. Changes when audio comes, not what it is.
        Returns: pieces of Audio whose word and phone times count from the start of the speech.
        Raises:
            ValueError: a control out of range or that the model does not have, or (at the first piece) text that
                holds nothing to speak.
            RuntimeError: the model gave audio that is not finite; the sentence is named.
        Warns:
            SpeechWarning: the model left out or repeated phones, or cut one that did not end.
        """
        asked = {"speed": speed, "pitch": pitch, "energy": energy, "pause": pause, "variation": variation}
        chosen = {k: getattr(self.defaults, k) if v is None else v for k, v in asked.items()}
        controls = Controls(**chosen, pitch_sd=pitch_sd, rate_sd=rate_sd, energy_sd=energy_sd)
        if not self.acoustic.prosodic and (unknown := [name for name in PROSODY if getattr(controls, name)]):
            raise ValueError(
                f"voice '{self.name}': its model '{self.model}' has not learned {', '.join(unknown)}; "
                "use speed, pitch and energy, or a neural HMM"
            )
        if not isinstance(text, str):
            raise TypeError(f"text must be str, got {type(text).__name__}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1 frame, got {chunk}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in 0..{2**32 - 1}, got {seed}")
        return self._stream(text, controls, seed, chunk)

    def _stream(self, text: str, controls: Controls, seed: int, chunk: int | None) -> Iterator[Audio]:
        samples = 0  # made so far
        silence = 0.0  # seconds owed before the next sentence, so that none trails the last
        number = count()
        for begin, end in _paragraphs(text):
            done = begin
            for sentence in self.front_end.sentences(text[begin:end]):
                before, done = done, min(done + len(sentence.text), end)
                if not sentence.words:
                    continue
                if silence:
                    zeros = np.zeros(round(silence * self.sample_rate), np.float32)
                    samples += len(zeros)
                    yield Audio(zeros, self.sample_rate, progress=before / len(text))
                # one generator a sentence: what was said before does not change how this one is said
                generator = torch.Generator().manual_seed((seed << 31) + next(number))
                for audio in self._speak(sentence, controls, generator, chunk, samples, done / len(text)):
                    samples += len(audio.samples)
                    yield audio
                # a part of a sentence too long for one go ends in a clause mark, which the model has paused at
                cut = _names(sentence)[-2:-1] in ([","], [";"])
                silence = 0.0 if cut else self.defaults.sentence_pause * controls.pause
            if samples:
                silence = self.defaults.paragraph_pause * controls.pause
        if not samples:
            raise ValueError(_why_silent(text))

    def _speak(
        self,
        sentence: Sentence,
        controls: Controls,
        generator: torch.Generator,
        chunk: int | None,
        offset: int,
        progress: float,
    ) -> Iterator[Audio]:
        """One sentence; offset: samples before it."""
        rate, hop = self.sample_rate, self.vocoder.mel.hop
        timeline = Timeline(
            sentence.text, sentence.words, _names(sentence), sentence.word_of, start=offset, hop=hop, rate=rate
        )
        gain = 10 ** (self.defaults.gain / 20)
        state, samples = None, 0
        for frames, final in _regroup(self._frames(sentence, controls, generator, chunk), chunk or 1):
            timeline.add(frames.symbol)
            spoken = (timeline.finish(),) if final else ()
            if spoken and not spoken[0].coverage.complete:
                _warn_of(spoken[0])
            with torch.inference_mode():
                f0 = frames.f0 if self.vocoder.takes_f0 and self.defaults.f0 == "predicted" else None
                made, state = self.vocoder.stream(
                    frames.mel[None], state, final=final, f0=None if f0 is None else f0[None]
                )
                piece = _limit(made[0].float() * gain).cpu().numpy()
            if not np.isfinite(piece).all():
                raise RuntimeError(
                    f"voice '{self.name}': audio of the sentence {_shorten(sentence.text)!r} is not finite; "
                    "the voice's weights are damaged or unsuitable: export it again"
                )
            samples += len(piece)
            if len(piece) or final:
                words, phones = timeline.release(float("inf") if final else (offset + samples) / rate)
                yield Audio(piece, rate, words, phones, spoken, progress)

    def _frames(
        self, sentence: Sentence, controls: Controls, generator: torch.Generator, chunk: int | None
    ) -> Iterator[Frames]:
        # The vocoder computes no less than a tile, which is little to wait for unless the model is slow.
        soon = min(self.vocoder.tile, self.acoustic.soon or self.vocoder.tile)
        first, largest = (soon, LARGEST_CHUNK) if chunk is None else (chunk, None)
        stream = self.acoustic.stream(
            sentence.ids, controls=controls, chunk=first, largest=largest, generator=generator
        )
        while True:
            # not around a yield: inference mode must not leak into the caller's code
            with torch.inference_mode():
                frames = next(stream, None)
                if frames is not None and self.contrast is not None:
                    frames = frames._replace(mel=self.contrast.apply(frames.mel, self.acoustic.mel.floor))
            if frames is None:
                return
            yield frames


def _regroup(stream: Iterator[Frames], least: int) -> Iterator[tuple[Frames, bool]]:
    """Join frames into chunks of at least `least`; (frames, is it the last?).

    A chunk goes out as soon as it is full, so the last may be empty: it flushes the vocoder.
    """
    held: list[Frames] = []
    size = 0
    for frames in stream:
        held.append(frames)
        size += len(frames.symbol)
        if size >= least:
            joined = _join(held)
            yield joined, False
            held, size = [_nothing_after(joined)], 0
    if not held:
        raise RuntimeError("the acoustic model gave no frames; the voice is unsuitable")
    yield _join(held), True


def _join(held: list[Frames]) -> Frames:
    f0 = [frames.f0 for frames in held if frames.f0 is not None]
    with torch.inference_mode():
        return Frames(
            torch.cat([frames.mel for frames in held], dim=1),
            torch.cat(f0) if f0 else None,
            torch.cat([frames.symbol for frames in held]),
        )


def _nothing_after(frames: Frames) -> Frames:
    """No frames, in the shape and on the device of these."""
    return Frames(frames.mel[:, :0], None if frames.f0 is None else frames.f0[:0], frames.symbol[:0])


def _limit(samples: Tensor) -> Tensor:
    """Leave what is below KNEE, bend the rest smoothly towards full scale: sample by sample, whatever the chunks."""
    over = (samples.abs() - KNEE).clamp(min=0) / (1 - KNEE)
    return torch.where(over > 0, samples.sign() * (KNEE + (1 - KNEE) * torch.tanh(over)), samples)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the stretches between blank lines."""
    start = 0
    for match in PARAGRAPH.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _why_silent(text: str) -> str:
    if not text:
        return "nothing to speak: the text is empty"
    if text.isspace():
        return "nothing to speak: the text holds only white space"
    return f"nothing to speak: {_shorten(text)!r} holds no word, number or letter that can be spoken"


def _warn_of(sentence: SpokenSentence) -> None:
    found = sentence.coverage
    order = "" if found.in_order else ", out of order"
    warnings.warn(
        f"{_shorten(sentence.text)!r}: {found.spoken} of {found.phones} phones were spoken{order}",
        SpeechWarning,
        stacklevel=2,
    )


def _shorten(text: str, width: int = 60) -> str:
    text = " ".join(text[: 4 * width].split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _names(sentence: Sentence) -> list[str]:
    from melstate.tts.text.symbols import SYMBOLS

    return [SYMBOLS[i] for i in sentence.ids]
