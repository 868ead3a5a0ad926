"""Read recognisers from where they are: shipped ones by name, folders, and what training leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from melstate.asr import package
from melstate.asr.listener import Parts
from melstate.asr.model import SpeechModel
from melstate.asr.package import Manifest
from melstate.asr.recognizer import KINDS, Recognizer
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.tokens import Tokens
from melstate.vocoders import checkpoint


def weights(model: str | Path) -> Path:
    """The .safetensors of a recogniser: that file itself, a run's or a recogniser's folder, or a shipped name.

    Raises: ModelError: no such recogniser.
    """
    path = Path(model)
    if path.suffix == ".safetensors":
        return path
    if (path / package.MODEL).is_file() and not (path / package.MANIFEST).is_file():
        return path / package.MODEL
    return package.find(model) / package.MODEL


def read_model(*models: str | Path) -> tuple[SpeechModel, Tokens]:
    """The bare model in eval mode, and its vocabulary; of several, the mean of their weights.

    Raises: ValueError, FileNotFoundError: missing, unreadable, not a recogniser's, or without a mean.
    """
    saved = checkpoint.read_mean([weights(model) for model in models])
    built = checkpoint.build(saved, KINDS)
    assert isinstance(built, SpeechModel)
    return built, Tokens.from_dict(saved.extra.get("tokens", {}))


def read_recognizer(model: str | Path, voices: str | Path | None = None) -> Recognizer:
    """A recogniser; weights that were not packaged yet are used with plain CTC and attention, no language model.

    Args:
        voices: a speaker encoder's .safetensors, for weights that were not packaged.
    Raises: ValueError, FileNotFoundError: missing, unreadable, or not a recogniser's.
    """
    path = weights(model)
    if (path.parent / package.MANIFEST).is_file() and path != Path(model):
        return Recognizer.load(model)
    plain = read_mean_recognizer([path])
    if voices is None:
        return plain
    return Recognizer(plain.parts._replace(voices=SpeakerEncoder.load(voices)), plain.manifest)


def read_mean_recognizer(models: Sequence[str | Path], like: Recognizer | None = None) -> Recognizer:
    """The mean of the weights of one or more.

    Args:
        like: hear as it does, with its language model, pronunciations and settings; None: plain CTC and attention.
    Raises: ValueError: weights of another vocabulary than `like` has; what `read_model` raises.
    """
    built, tokens = read_model(*models)
    if like is None:
        name = weights(models[0]).parent.name
        return Recognizer(Parts(built, tokens), Manifest(name, "en", "not stated", "weights of a training run", {}))
    if tokens.to_dict() != like.parts.tokens.to_dict():
        raise ValueError(
            f"{models[0]}: its pieces of words are not those of '{like.manifest.name}', nor can be heard so"
        )
    return Recognizer(like.parts._replace(model=built, tokens=tokens), like.manifest, like.decoding)
