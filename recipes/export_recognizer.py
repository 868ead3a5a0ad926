"""A trained recogniser becomes a folder: weights, vocabulary, language model, speaker encoder, hashes, licence, card.

    python -m melstate.recipes.export_recognizer asr/models/default --run runs/recognizer \\
        --voices runs/speaker/model.safetensors --dictionary ../shared/data/cmudict/cmudict.dict \\
        --english runs/english.npz --licence CC-BY-SA-4.0 --licence-file LICENSE-recognizer --description "…"

The language model is learned from the run's own training transcripts, never from those it is judged by; a dictionary
adds words and how they are spoken, so that the recogniser can search for words by their phones. The folder is loaded
again and listens to a development clip before the command says that it is done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melstate.asr.backoff import BackoffModel
from melstate.asr.decoding import Decoding
from melstate.asr.language_model import LanguageModel
from melstate.asr.listener import Parts
from melstate.asr.package import Manifest
from melstate.asr.recognizer import Recognizer
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.recipes.data.recognition import RecognitionData
from melstate.recipes.prune_ngrams import read_ngrams
from melstate.recipes.recognizers import read_model, weights
from melstate.recipes.vocabulary import pronounce, read_dictionary
from melstate.vocoders import checkpoint

WORD_WIDTH = 100  # hypotheses of a word search, where nothing else is asked for


def run_data(run: str | Path) -> RecognitionData:
    """The data module of a training run, set up, without phone targets."""
    import hydra
    from omegaconf import OmegaConf

    described = Path(run) / "config.yaml"
    if not described.is_file():
        raise FileNotFoundError(f"{described}: missing; give the folder of a training run")
    config = OmegaConf.load(described)
    data = hydra.utils.instantiate(config.data, _convert_="all", phones=False)
    if not isinstance(data, RecognitionData):
        raise ValueError(f"{described}: the run's data is {type(data).__name__}, not that of a recogniser")
    data.setup("fit")
    return data


def assemble(
    runs: Sequence[str | Path],
    data: RecognitionData,
    manifest: Manifest,
    *,
    voices: str | None = None,
    dictionary: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    english: BackoffModel | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> Recognizer:
    """The recogniser of a run with a language model from its training transcripts, or of the mean of several runs.

    Args:
        dictionary: no word outside it and the transcripts is written; with a phone head, words are searched by phones.
        english: a general model to mix in.
        decoding: settings that differ from the standard ones.
    Raises: ValueError: settings that do not fit.
    """
    model, tokens = read_model(*runs)
    # A prompt that was read twenty times is no likelier to be said: each counts once.
    language = LanguageModel.train(data.sentences, spellings=dictionary or (), general=english)
    spoken = None
    settings: dict[str, Any] = {}
    if dictionary and model.phones is not None and language.lexicon is not None:
        spoken = pronounce(language.lexicon.words, dictionary)
        settings = {"method": "words", "width": WORD_WIDTH}
    encoder = SpeakerEncoder.load(voices) if voices else None
    chosen = Decoding(**{**settings, **(decoding or {})})
    return Recognizer(Parts(model, tokens, language, encoder, spoken), manifest, chosen)


def card(recognizer: Recognizer, steps: int, seconds: float, figures: dict[str, Any] | None, commands: str) -> str:
    """card.md: what it is, what it learned from, what it is not, and what was measured."""
    parts, manifest = recognizer.parts, recognizer.manifest
    size = sum(parameter.numel() for parameter in parts.model.parameters())
    lines = [
        f"# {manifest.name}",
        "",
        manifest.description,
        "",
        f"- language: {manifest.language}; writes lower-case words, numbers spelled out, no punctuation",
        f"- licence: {manifest.licence} (the text is in LICENSE)",
        f"- learned from {seconds / 3600:.1f} hours of speech in {steps:,} steps of its last training",
        f"- {size:,} parameters, {len(parts.tokens)} tokens; "
        f"language model of {len(parts.language.words) if parts.language else 0} words from the same transcripts"
        + (
            ", mixed with general English (pocketsphinx's, pruned)" if parts.language and parts.language.general else ""
        ),
        f"- can write {len(parts.spoken.words):,} words" if parts.spoken else "- can write any word by its letters",
        f"- tells speakers apart: {'yes' if parts.voices else 'no'}",
        "",
        "It is a small model of little speech: short read sentences, many by learners of English, one reader of",
        "prompts, and spoken digits. Free conversation, names and rare words will often be wrong. Do not rely on it",
        "where errors matter.",
    ]
    if figures is not None:
        lines += ["", "## Measured", ""]
        for part, row in figures["sets"]["melstate"].items():
            wer = row["wer"]
            lines.append(
                f"- {part}: word error rate {wer['value']:.1%} [{wer['low']:.1%}, {wer['high']:.1%}], "
                f"{row['clips']} clips of {row['speakers']} speakers"
            )
        for kind, rate in figures["words_per_minute"].get("melstate", {}).items():
            lines.append(f"- {kind}: {rate:.1f} words a minute where nobody speaks")
    if commands.strip():
        lines += ["", "## Training", "", *(f"    {line}" for line in commands.strip().splitlines())]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate export-recognizer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", help="the recogniser's folder; it is created, or its files are replaced")
    add("--run", required=True, help="a training run's folder")
    add("--average", action="append", default=[], metavar="RUN", help="another run to average the weights with (again)")
    add("--voices", metavar="FILE", help="a trained speaker encoder (.safetensors), for --speakers")
    add(
        "--dictionary",
        metavar="FILE",
        help="pronunciations in the form of CMUdict: no word outside it and the transcripts is written",
    )
    add(
        "--english",
        metavar="FILE",
        help="what recipes.prune_ngrams made; of the dictionary only its words are kept",
    )
    add("--name", help="[a-z0-9_-]; the folder's name by default")
    add("--licence", required=True, help="SPDX identifier")
    add("--licence-file", required=True, help="its text")
    add("--description", required=True, help="one line")
    add("--decoding", nargs="*", default=[], metavar="KEY=VALUE", help="settings of melstate.asr.decoding.Decoding")
    add("--figures", help="the JSON that melstate evaluate-recognizer wrote, for the card")
    add("--commands", help="a file of the commands that trained it, for the card")
    add("--full", action="store_true", help="store fp32 weights instead of fp16")
    args = parser.parse_args(argv)
    try:
        pairs = dict(pair.split("=", 1) for pair in args.decoding)
        settings: dict[str, Any] = {k: v if k == "method" else float(v) for k, v in pairs.items()}
        settings |= {key: int(settings[key]) for key in ("width", "readings") if key in settings}
        data = run_data(args.run)
        folder = Path(args.folder)
        manifest = Manifest(args.name or folder.resolve().name, "en", args.licence, args.description, {})
        english = read_ngrams(args.english) if args.english else None
        words = english.words if english else None
        made = assemble(
            [args.run, *args.average],
            data,
            manifest,
            voices=args.voices,
            dictionary=read_dictionary(args.dictionary, words) if args.dictionary else None,
            english=english,
            decoding=settings,
        )
        steps = int(checkpoint.read(weights(args.run)).extra.get("steps", 0))
        seconds = sum(len(clip.waveform.audio) for clip in data.train) / data.mel.sample_rate
        figures = json.loads(Path(args.figures).read_text("utf-8")) if args.figures else None
        commands = Path(args.commands).read_text("utf-8") if args.commands else ""
        text = card(made, steps, seconds, figures, commands)
        made.save(folder, Path(args.licence_file).read_text("utf-8"), text, half=not args.full)
        again = Recognizer.load(folder if folder.is_absolute() else Path(".") / folder)
        clip = next(iter(data.dev.values()))[0] if data.dev else data.train[0]
        heard = again.transcribe(clip.waveform.audio, data.mel.sample_rate).text
    except (ValueError, TypeError, OSError) as error:
        print(f"export-recognizer: {error}", file=sys.stderr)
        return 1
    size = sum(entry.stat().st_size for entry in folder.iterdir())
    print(f"{folder}: recogniser '{manifest.name}' ({manifest.licence}), {size / 1e6:.1f} MB, loads and hears")
    print(f"  said: {clip.text}\n  heard: {heard}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
