"""Find every phone and word of a text in its recording.

    melstate align clip.wav "What is said in it." -o clip.TextGrid
    melstate align clip.wav -f clip.txt -o clip.json --aligner runs/kathleen-aligner

A neural HMM is an aligner: by the path through its states that is likeliest (--method viterbi), or by the one that has
most frames in the right state on average over all paths (--method posterior). It knows best the voice it was trained
on. A .TextGrid has the tiers "words" and "phones", in ARPAbet, without gaps; silence and pauses have no label.

Exit codes: 2 usage, 3 the audio or the text, 4 the voice or aligner, 5 the file cannot be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from melstate.recipes import textgrid
from melstate.recipes.data.batches import Clip, collate, join_sentences
from melstate.recipes.data.features import FeatureConfig, analyse, level, spoken_part
from melstate.recipes.models import ALIGNERS, Aligner, read_aligner
from melstate.tts import manifest
from melstate.tts.audio import Span
from melstate.tts.length import path_symbols
from melstate.tts.text import FrontEnd, symbols
from melstate.tts.timeline import Timeline
from melstate.tts.timestamps import span_dict
from melstate.tts.voice_folder import ACOUSTIC_MODELS, load_model
from melstate.vocoders import wav
from melstate.vocoders.checkpoint import write_atomic
from melstate.vocoders.command import INPUT, MODEL, RESOURCES

SUFFIXES = (".textgrid", ".json")
MOST_PAIRS = 20_000_000  # of frames and symbols: about two minutes of speech, a gigabyte


@dataclass(frozen=True)
class Aligned:
    """Where the words and phones of a text are in a recording of `seconds`; pauses are in neither."""

    words: list[Span]
    phones: list[Span]
    seconds: float


def align(aligner: Aligner, front_end: FrontEnd, audio: str | Path, text: str, **options: Any) -> Aligned:
    """Align a recording with its text.

    Args:
        aligner: a neural HMM, or what recipes/lit_aligner.py trains.
        audio: a file that soundfile reads, of any sample rate.
        options: of the aligner's `durations`.
    Raises:
        FileNotFoundError: no such audio.
        ValueError: not audio, or silent; a text without words; too short for its text, or too long to align at once.
    """
    rate, hop = aligner.mel.sample_rate, aligner.mel.hop
    samples, _ = wav.read(audio, rate)
    config = FeatureConfig(mel=aligner.mel)
    try:
        start, stop = spoken_part(samples, config)
    except ValueError as error:
        raise ValueError(f"{audio}: {error}; there is nothing to align") from error
    sentences = list(front_end.sentences(text))
    if not sentences:
        raise ValueError(f"nothing to align: {text[:60]!r} holds no word that can be spoken")
    ids = join_sentences([sentence.ids for sentence in sentences])
    words = [word for sentence in sentences for word in sentence.words]
    frames, least = (stop - start) // hop, aligner.frames_per_symbol * len(ids)
    if frames < least:
        raise ValueError(
            f"{audio}: {frames} frames of speech ({frames * hop / rate:.2f} s) for {len(ids)} symbols, which need at "
            f"least {least} ({least * hop / rate:.2f} s); is this its text?"
        )
    if frames * len(ids) > MOST_PAIRS:
        raise ValueError(
            f"{audio}: {frames} frames × {len(ids)} symbols are more than the {MOST_PAIRS:,} that are aligned at once; "
            "cut it between sentences"
        )
    features = analyse(level(samples[start:stop], config), config)
    batch = collate([Clip(Path(audio).name, 0, features, ids)])
    durations = cast(Any, aligner).durations(batch, **options)
    timeline = Timeline(text, words, symbols.to_symbols(ids), _word_of(sentences), start=start, hop=hop, rate=rate)
    timeline.add(path_symbols(durations, int(batch.mel_lengths[0]))[0])
    timeline.finish()
    found_words, found = timeline.release(float("inf"))
    phones = [span for span in found if span.text in symbols.PHONES]
    return Aligned(list(found_words), phones, len(samples) / rate)


def _word_of(sentences: Sequence[Any]) -> list[int]:
    """For each symbol of the joined sentences the index of its word among all of theirs; −1 for edges and marks."""
    found, before = [-1], 0
    for sentence in sentences:
        found += [word if word < 0 else before + word for word in sentence.word_of[1:-1]]
        before += len(sentence.words)
    return [*found, -1]


def voice_aligner(voice: str, model: str | None = None) -> Aligner:
    """One of a voice's models that can align: `model`, or the first that can. Raises VoiceError: there is none."""
    folder = manifest.find(voice)
    about = manifest.read(folder)
    able = [name for name, file in about.models.items() if file.kind in ALIGNERS]
    chosen = about.choose(model) if model is not None or not able else able[0]
    if chosen not in able:
        raise manifest.VoiceError(
            f"voice '{about.name}': its model '{chosen}' cannot align; "
            f"those that can: {', '.join(able) or 'none'}; or give --aligner RUN"
        )
    return cast(Aligner, load_model(folder, about, about.models[chosen], ACOUSTIC_MODELS))


def write(path: Path, aligned: Aligned, about: dict[str, Any]) -> None:
    """A TextGrid, or JSON headed by `about`, by suffix. Raises OSError: the file cannot be written."""
    if path.suffix.lower() == ".textgrid":
        textgrid.write(path, {"words": aligned.words, "phones": aligned.phones}, aligned.seconds)
        return
    spans = {name: [span_dict(span) for span in getattr(aligned, name)] for name in ("words", "phones")}
    record = json.dumps({**about, "seconds": aligned.seconds, **spans}, ensure_ascii=False, indent=1)
    write_atomic(path, f"{record}\n".encode())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate align", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("audio", metavar="AUDIO", help="the recording: wav, flac, ogg, mp3")
    add("text", nargs="?", metavar="TEXT", help="what is said in it")
    add("-f", "--input-file", metavar="FILE", help="read the text from a UTF-8 file")
    add("-o", "--output", metavar="FILE", required=True, help=".TextGrid or .json")
    add("--voice", default="kathleen", help="a shipped voice's name or a voice folder's path, whose model aligns")
    add("--model", metavar="NAME", help="which of its models; the first that can align by default")
    add("--aligner", metavar="RUN", help="align with a run's model instead: a neural HMM's or an aligner's")
    add("--method", choices=("viterbi", "posterior"), help="of a neural HMM; viterbi by default")
    add("--lexicon", metavar="FILE", help="your own pronunciations: lines of WORD, spaces, PHONES")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    target = Path(args.output)
    if (args.text is None) == (args.input_file is None):
        parser.error("give either TEXT or -f FILE")
    if target.suffix.lower() not in SUFFIXES:
        parser.error(f"-o {target}: unknown suffix '{target.suffix}'; use .TextGrid or .json")
    torch.set_num_threads(args.threads)
    try:
        aligner = read_aligner(args.aligner) if args.aligner else voice_aligner(args.voice, args.model)
    except (ValueError, OSError) as error:
        return _fail(MODEL, error)
    if args.method is not None and aligner.kind == "aligner":
        parser.error("--method is of neural HMMs; leave it out")
    try:
        text = args.text if args.text is not None else Path(args.input_file).read_text("utf-8-sig")
        options = {"method": args.method} if args.method else {}
        aligned = align(aligner, FrontEnd(args.lexicon), args.audio, text, **options)
    except UnicodeDecodeError as error:
        return _fail(INPUT, f"{args.input_file}: not UTF-8 text (byte {error.start})")
    except (ValueError, OSError) as error:
        return _fail(INPUT, error)
    try:
        write(target, aligned, {"audio": Path(args.audio).name, "text": text, "aligner": aligner.kind})
    except OSError as error:
        return _fail(RESOURCES, f"{target}: cannot be written: {error.strerror or error}")
    print(f"{target}: {len(aligned.words)} words, {len(aligned.phones)} phones in {aligned.seconds:.2f} s")
    return 0


def _fail(code: int, message: object) -> int:
    print(f"align: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
