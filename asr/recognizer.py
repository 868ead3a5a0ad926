"""Recognizer: load, transcribe, listen, save. A recogniser is a folder, see `package`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from melstate.asr import package
from melstate.asr.beam_listener import BeamListener, make_search
from melstate.asr.decoding import METHODS, Decoding
from melstate.asr.language_model import LanguageModel
from melstate.asr.listener import Listener, Parts
from melstate.asr.model import SpeechModel
from melstate.asr.package import Manifest, ModelError
from melstate.asr.pronunciations import Pronunciations
from melstate.asr.reading import Search
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
        self._searches: dict[Decoding, Search] = {}

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
            language, voices, spoken = (folder / n for n in (package.LANGUAGE, package.VOICES, package.PRONUNCIATIONS))
            if len(tokens) != model.config["tokens"]:
                raise ValueError(f"{folder}: {len(tokens)} tokens, the model was trained on {model.config['tokens']}")
            parts = Parts(
                model.to(device),
                tokens,
                LanguageModel.load(language) if package.LANGUAGE in manifest.files else None,
                SpeakerEncoder.load(voices).to(device) if package.VOICES in manifest.files else None,
                Pronunciations.load(spoken) if package.PRONUNCIATIONS in manifest.files else None,
            )
            if parts.spoken and max(parts.spoken.phones) >= model.config["phones"]:
                raise ValueError(
                    f"{spoken}: phones up to {max(parts.spoken.phones)}, the model knows {model.config['phones']}"
                )
            recognizer = cls(parts, manifest, decoding)
            recognizer.check_method(decoding.method)
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise ModelError(f"model '{manifest.name}': {error}") from error
        return recognizer

    def save(self, folder: str | Path, licence_text: str, card: str = "", *, half: bool = True) -> None:
        """Write the folder; `load` gives the same recogniser (weights rounded to fp16 if `half`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        extra = {"tokens": self.parts.tokens.to_dict()}
        checkpoint.save(folder / package.MODEL, self.parts.model, half=half, extra=extra)
        parts = self.parts
        named = (
            (package.LANGUAGE, parts.language),
            (package.PRONUNCIATIONS, parts.spoken),
            (package.VOICES, parts.voices),
        )
        for name, part in named:
            (folder / name).unlink(missing_ok=True)
            if isinstance(part, LanguageModel | Pronunciations):
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
        parts = self.parts
        by_words = parts.spoken is not None and parts.language is not None and parts.model.phones is not None
        able = {"words": by_words, "ctc": True, "striding": parts.model.decoder is not None}
        return tuple(method for method in METHODS if able[method])

    def check_method(self, method: str) -> None:
        """Raises ValueError: unknown, or nothing here to listen with that way."""
        Decoding(method=method)
        if method not in self.methods:
            needs = {"words": "pronunciations and a phone head", "striding": "an attention decoder"}[method]
            raise ValueError(f"method '{method}' needs {needs}; this recogniser has {', '.join(self.methods)}")

    def listener(self, sample_rate: int, *, speakers: bool = False, method: str | None = None) -> Listener:
        """A new stream to feed samples of `sample_rate` Hz to; see `listen` for the rest."""
        decoding = self.decoding if method is None else replace(self.decoding, method=method)
        self.check_method(decoding.method)
        if decoding.method == "striding":
            return StridingListener(self.parts, sample_rate, decoding, speakers=speakers)
        if decoding not in self._searches:
            self._searches[decoding] = make_search(self.parts, decoding)
        search = self._searches[decoding]
        return BeamListener(self.parts, sample_rate, decoding, speakers=speakers, search=search)

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
            method: "words", "ctc" or "striding", see Decoding; the recogniser's own by default.
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
