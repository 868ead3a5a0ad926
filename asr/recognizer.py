"""Recognizer: load, transcribe, listen, save. A recogniser is a folder, see `package`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from melstate.asr import package
from melstate.asr.beam_listener import BeamListener
from melstate.asr.decoding import METHODS, Decoding
from melstate.asr.language_model import LanguageModel
from melstate.asr.listener import Listener, Parts
from melstate.asr.model import SpeechModel
from melstate.asr.package import Manifest, ModelError
from melstate.asr.sound import Sound, array_sound, open_sound
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.striding_listener import StridingListener
from melstate.asr.tokens import Tokens
from melstate.asr.transcript import Segment, Transcript
from melstate.vocoders import checkpoint

KINDS = {"recognizer": "melstate.asr.model:SpeechModel"}


class Recognizer:
    """English speech → text.

        Recognizer.load("default").transcribe("talk.ogg").text

    Args:
        parts: the models, in eval mode.
        manifest: name, licence and the like.
        decoding: how text is found.
    """

    def __init__(self, parts: Parts, manifest: Manifest, decoding: Decoding | None = None) -> None:
        self.parts, self.manifest, self.decoding = parts, manifest, decoding or Decoding()

    @classmethod
    def load(cls, name_or_path: str | Path = "default", device: str = "cpu") -> Recognizer:
        """A shipped recogniser by name, or a folder (a Path, or a str with a slash).

        Raises: ModelError: missing or broken. RuntimeError: no such device.
        """
        folder = package.find(name_or_path)
        manifest = package.read(folder)
        try:
            decoding = Decoding(**manifest.decoding)
            saved = checkpoint.read(folder / package.MODEL)
            model = cast(SpeechModel, checkpoint.build(saved, KINDS))
            tokens = Tokens.from_dict(saved.extra.get("tokens", {}))
            language, voices = folder / package.LANGUAGE, folder / package.VOICES
            if len(tokens) != model.config["tokens"]:
                raise ValueError(f"{folder}: {len(tokens)} tokens, the model was trained on {model.config['tokens']}")
            parts = Parts(
                model.to(device),
                tokens,
                LanguageModel.load(language) if package.LANGUAGE in manifest.files else None,
                SpeakerEncoder.load(voices).to(device) if package.VOICES in manifest.files else None,
            )
            if model.decoder is None and decoding.method == "striding":
                raise ValueError(f"{folder}: decoding by striding needs an attention decoder, the model has none")
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise ModelError(f"model '{manifest.name}': {error}") from error
        return cls(parts, manifest, decoding)

    def save(self, folder: str | Path, licence_text: str, card: str = "", *, half: bool = True) -> None:
        """Write the folder; `load` gives the same recogniser (weights rounded to fp16 if `half`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        extra = {"tokens": self.parts.tokens.to_dict()}
        checkpoint.save(folder / package.MODEL, self.parts.model, half=half, extra=extra)
        for name, part in ((package.LANGUAGE, self.parts.language), (package.VOICES, self.parts.voices)):
            (folder / name).unlink(missing_ok=True)
            if isinstance(part, LanguageModel):
                part.save(folder / name)
            elif part is not None:
                checkpoint.save(folder / name, part, half=half)
        for name, text in ((package.LICENCE, licence_text), (package.CARD, card)):
            checkpoint.write_atomic(folder / name, text.encode())
        standard = asdict(Decoding())
        chosen = {key: value for key, value in asdict(self.decoding).items() if value != standard[key]}
        package.write(folder, replace(self.manifest, decoding=chosen))

    @property
    def can_tell_speakers(self) -> bool:
        return self.parts.voices is not None

    @property
    def methods(self) -> tuple[str, ...]:
        """What `method` may be."""
        return METHODS if self.parts.model.decoder is not None else METHODS[:1]

    def listener(self, sample_rate: int, *, speakers: bool = False, method: str | None = None) -> Listener:
        """A new stream to feed samples of `sample_rate` Hz to; see `listen` for the rest."""
        decoding = self.decoding if method is None else replace(self.decoding, method=method)
        kind = StridingListener if decoding.method == "striding" else BeamListener
        return kind(self.parts, sample_rate, decoding, speakers=speakers)

    def listen(
        self,
        source: str | Path | IO[bytes] | np.ndarray,
        sample_rate: int | None = None,
        *,
        speakers: bool = False,
        method: str | None = None,
    ) -> Iterator[Segment]:
        """Segments of a file, a binary stream or an array, in constant memory.

        Args:
            sample_rate: of an array, in Hz; files know theirs.
            speakers: tell speakers apart.
            method: "ctc" or "striding", see Decoding; the recogniser's own by default.
        Raises: FileNotFoundError. SoundError: not audio, or damaged. ValueError: an array without sample rate, or
            speakers or a method that this recogniser has no model for.
        """
        with _sound(source, sample_rate) as sound:
            listener = self.listener(sound.sample_rate, speakers=speakers, method=method)
            for block in sound.blocks:
                yield from listener.feed(block)
            yield from listener.finish()

    def transcribe(
        self,
        source: str | Path | IO[bytes] | np.ndarray,
        sample_rate: int | None = None,
        *,
        speakers: bool = False,
        method: str | None = None,
    ) -> Transcript:
        """All of `listen` at once, and how long the recording was."""
        segments: list[Segment] = []
        with _sound(source, sample_rate) as sound:
            listener = self.listener(sound.sample_rate, speakers=speakers, method=method)
            for block in sound.blocks:
                segments += listener.feed(block)
            segments += listener.finish()
        return Transcript(tuple(segments), listener.seconds)


def _sound(source: Any, sample_rate: int | None) -> AbstractContextManager[Sound]:
    if isinstance(source, str | Path) or hasattr(source, "read"):
        return open_sound(source)
    if sample_rate is None:
        raise ValueError("give the sample_rate of an array of samples")
    return nullcontext(array_sound(np.asarray(source), sample_rate))
