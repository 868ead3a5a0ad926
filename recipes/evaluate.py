"""How well can a voice be understood? An independent recogniser reads the voice and the recordings of the same prompts.

    python -m melstate.recipes.evaluate ../shared/data/kathleen --voice kathleen --dev-prompts 40
    python -m melstate.recipes.evaluate ../shared/data/kathleen --voice kathleen --model fastspeech --model neural_hmm
    python -m melstate.recipes.evaluate ../shared/data/kathleen --vocoder runs/vocoder/model.safetensors

Prompts are the development prompts that training holds out (same count and seed: recipes/data/split.py), one recording
of each, or the ids of --ids. Conditions: the recordings, the voice speaking the prompts with each of the models that
are asked for, and copy synthesis (the recordings' mels through the vocoder alone). Word error rates come with 95 %
intervals over prompts; the ratio to the recordings is the figure to compare, since the recogniser's own errors are in
both. Of a voice are measured too: real-time factor, time to the first sound (median, streamed), parameters, and
coverage, the share of phones that were spoken, which is 100 % only if all were, in order and once.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import l1_loss

from melstate.recipes import reader
from melstate.recipes.data.corpus import Utterance, read_ljspeech
from melstate.recipes.data.split import prompt_key, split_by_prompt
from melstate.recipes.models import read_vocoder
from melstate.tts.audio import Audio, Coverage
from melstate.tts.voice import Voice
from melstate.vocoders import wav
from melstate.vocoders.mel import log_mel
from melstate.vocoders.vocoder import Vocoder

Speak = Callable[[Utterance], Iterator[Audio]]


@dataclass
class Condition:
    """One way to say all prompts: its audio, what was read, and how long it took to make.

    Attributes:
        first_sounds: seconds to the first piece of each prompt.
        coverage: of the prompts' phones.
        parameters: of the models that speak; None for recordings.
        mel_l1: between copies and recordings.
    """

    name: str
    transcripts: list[str]
    score: reader.Score
    audio_seconds: float
    making_seconds: float
    first_sounds: list[float]
    coverage: Coverage
    parameters: int | None = None
    mel_l1: float | None = None

    @property
    def real_time_factor(self) -> float:
        return self.making_seconds / self.audio_seconds


def choose(
    folder: str | Path, dev_prompts: int, seed: int, ids: str | Path | None = None, limit: int | None = None
) -> list[Utterance]:
    """The recordings to compare with: one of each prompt.

    Raises: ValueError: an id of the list is not in the corpus, or nothing is left.
    """
    utterances = read_ljspeech(folder).utterances
    if ids is None:
        _, chosen = split_by_prompt(utterances, dev_prompts, seed)
    else:
        by_id = {utterance.id: utterance for utterance in utterances}
        wanted = Path(ids).read_text("utf-8").split()
        if unknown := [name for name in wanted if name not in by_id]:
            raise ValueError(f"{ids}: {len(unknown)} ids are not in {folder}, the first '{unknown[0]}'")
        chosen = [by_id[name] for name in wanted]
    first = {prompt_key(utterance.text): utterance for utterance in reversed(chosen)}
    kept = sorted(first.values(), key=lambda utterance: utterance.id)[:limit]
    if not kept:
        raise ValueError(f"{folder}: no prompts chosen")
    return kept


def speak_with(voice: Voice, seed: int = 0) -> Speak:
    """The voice says the prompt."""

    return lambda utterance: voice.stream(utterance.text, seed=seed)


def copy_with(vocoder: Vocoder) -> Speak:
    """The vocoder says the recording's own mel."""

    def speak(utterance: Utterance) -> Iterator[Audio]:
        audio, rate = wav.read(utterance.audio, vocoder.mel.sample_rate)
        with torch.inference_mode():
            made = vocoder(log_mel(torch.from_numpy(audio), vocoder.mel)[None])[0]
        yield Audio(made.float().numpy(), rate)

    return speak


def recording(utterance: Utterance) -> Iterator[Audio]:
    yield Audio(*wav.read(utterance.audio))


def run(
    name: str,
    speak: Speak,
    utterances: Sequence[Utterance],
    read: Callable[[np.ndarray, int], str],
    keep: Path | None = None,
    vocoder: Vocoder | None = None,
    parameters: int | None = None,
) -> Condition:
    """Say and read every prompt.

    Args:
        keep: folder for the audio, <name>/<id>.wav.
        vocoder: given for copy synthesis: mel L1 between copy and recording is measured too.
        parameters: of what speaks, to be reported.
    """
    from rich.progress import track

    transcripts, audio_seconds, making, distances = [], 0.0, 0.0, []
    first_sounds, coverage = [], Coverage()
    for utterance in track(utterances, description=name, disable=not sys.stderr.isatty()):
        started = time.perf_counter()
        pieces: list[Audio] = []
        for piece in speak(utterance):
            if not pieces:
                first_sounds.append(time.perf_counter() - started)
            pieces.append(piece)
        making += time.perf_counter() - started
        said = Audio.join(pieces)
        samples, rate = said.samples, said.sample_rate
        audio_seconds += said.seconds
        coverage += said.coverage
        if keep is not None:
            (keep / name).mkdir(parents=True, exist_ok=True)
            wav.write(keep / name / f"{utterance.id}.wav", samples, rate)
        if vocoder is not None:
            original = torch.from_numpy(wav.read(utterance.audio, rate)[0][: len(samples)])
            pair = log_mel(torch.stack([torch.from_numpy(samples[: len(original)]), original]), vocoder.mel)
            distances.append(float(l1_loss(pair[0], pair[1])))
        transcripts.append(read(samples, rate))
    scored = reader.score([utterance.text for utterance in utterances], transcripts)
    distance = float(np.mean(distances)) if distances else None
    return Condition(name, transcripts, scored, audio_seconds, making, first_sounds, coverage, parameters, distance)


def report(utterances: Sequence[Utterance], conditions: Sequence[Condition], about: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, JSON-able. The first condition is what the others are compared with."""
    base = conditions[0].score
    summary = {}
    for condition in conditions:
        figures: dict[str, Any] = {"wer": reader.word_error_rate(condition.score)._asdict()}
        if condition is not conditions[0]:
            figures["ratio"] = reader.ratio(condition.score, base)._asdict()
            figures["real_time_factor"] = condition.real_time_factor
        if condition.coverage.sentences:
            figures["first_sound_ms"] = 1000 * float(np.median(condition.first_sounds))
            figures["coverage"] = condition.coverage.to_dict()
        if condition.parameters is not None:
            figures["parameters"] = condition.parameters
        if condition.mel_l1 is not None:
            figures["mel_l1"] = condition.mel_l1
        figures["audio_seconds"] = condition.audio_seconds
        summary[condition.name] = figures
    prompts = [
        {
            "id": utterance.id,
            "text": utterance.text,
            "words": int(base.words[number]),
            **{
                condition.name: {
                    "read": condition.transcripts[number],
                    "errors": int(condition.score.errors[number]),
                }
                for condition in conditions
            },
        }
        for number, utterance in enumerate(utterances)
    ]
    return {"about": about, "prompts": len(utterances), "conditions": summary, "each": prompts}


def table(result: dict[str, Any]) -> str:
    """The summary as lines of text."""
    lines = [
        f"{'condition':12} {'WER':>6}  {'95 % interval':15} {'ratio':>6}  {'95 % interval':15} {'RTF':>6} "
        f"{'first ms':>8} {'parameters':>11} {'coverage':>9} {'mel L1':>7}"
    ]
    for name, figures in result["conditions"].items():
        wer, to = figures["wer"], figures.get("ratio")
        cells = [f"{name:12} {wer['value']:6.3f}  {wer['low']:.3f} – {wer['high']:.3f}  "]
        cells.append(f"{to['value']:6.2f}  {to['low']:.2f} – {to['high']:.2f}    " if to else " " * 24)
        cells.append(f"{figures['real_time_factor']:6.3f}" if "real_time_factor" in figures else " " * 6)
        cells.append(f"{figures['first_sound_ms']:8.0f}" if "first_sound_ms" in figures else " " * 8)
        cells.append(f"{figures['parameters']:11,}" if "parameters" in figures else " " * 11)
        cells.append(f"{covered(figures['coverage']):>9}" if "coverage" in figures else " " * 9)
        cells.append(f"{figures['mel_l1']:7.3f}" if "mel_l1" in figures else "")
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines)


def covered(coverage: dict[str, Any]) -> str:
    """100 % only where every phone was spoken, in order."""
    order = "" if coverage["in_order"] == coverage["sentences"] else " disordered"
    return f"{math.floor(1000 * coverage['share']) / 10:g} %{order}"


def count(*models: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("corpus", help="folder with metadata.csv and wavs/")
    add("--voice", help="a shipped voice's name or a voice folder's path: measured speaking the prompts")
    add("--model", action="append", metavar="NAME", help="one of the voice's models (again for more); its default")
    add("--vocoder", help="a vocoder's .safetensors, .ckpt or run folder: measured copying the recordings")
    add("--copy", action="store_true", help="measure the voice's own vocoder copying the recordings too")
    add("--dev-prompts", type=int, default=40, help="prompts held out by training (default 40)")
    add("--split-seed", type=int, default=1, help="seed of that split (default 1, as in train.yaml)")
    add("--ids", help="a file of clip ids to use instead of the split")
    add("--limit", type=int, help="use only the first N prompts")
    add("--seed", type=int, default=0, help="seed of the synthesis")
    add("--cache", default="runs/evaluate/transcripts.jsonl", help="transcripts by content; '' reads all anew")
    add("--keep", help="folder to keep the audio in")
    add("--json", metavar="FILE", help="write everything measured")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        utterances = choose(args.corpus, args.dev_prompts, args.split_seed, args.ids, args.limit)
        voices = [Voice.load(args.voice, model=name) for name in args.model or [None]] if args.voice else []
        vocoder = read_vocoder(args.vocoder) if args.vocoder else None
        if args.copy and vocoder is None:
            if not voices:
                parser.error("--copy needs --voice")
            vocoder = voices[0].vocoder
    except (ValueError, OSError) as error:
        parser.error(str(error))
    read = reader.Reader(args.cache or None).read
    keep = Path(args.keep) if args.keep else None
    conditions = [run("recordings", recording, utterances, read)]
    for voice in voices:
        voice.synthesize("Warm up.")
        name, parameters = voice.model if args.model else "voice", count(voice.acoustic, voice.vocoder)
        conditions.append(run(name, speak_with(voice, args.seed), utterances, read, keep, parameters=parameters))
    if vocoder is not None:
        conditions.append(run("copy", copy_with(vocoder), utterances, read, keep, vocoder, count(vocoder)))
    about = {
        "corpus": Path(args.corpus).name,
        "voice": args.voice,
        "models": [voice.model for voice in voices],
        "vocoder": args.vocoder,
        "dev_prompts": None if args.ids else args.dev_prompts,
        "seed": args.seed,
        "recogniser": "pocketsphinx en-us",
        "level": reader.LEVEL,
        "edge": reader.EDGE,
        "threads": args.threads,
    }
    result = report(utterances, conditions, about)
    print(table(result))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
