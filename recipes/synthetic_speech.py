"""A corpus of speech that nobody spoke: random sentences by this project's voices, and by other engines at hand.

    python -m melstate.recipes.synthetic_speech runs/synthetic --english runs/english.npz --sentences 2000

Sentences are drawn from a general model (`recipes.prune_ngrams`), so that their words and phones are as varied as
English, or read from a file; speakers take turns. The folder has LJSpeech's layout:
'+data.corpora.synthetic={layout: ljspeech, folder: …, weight: 0.2, dev_prompts: 0}' adds it to a recogniser's training.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from melstate.asr.backoff import END, BackoffModel
from melstate.asr.tokens import normalize_transcript
from melstate.recipes.data.corpus import write_ljspeech
from melstate.recipes.prune_ngrams import read_ngrams
from melstate.vocoders import wav

Speaker = Callable[[str, np.random.Generator], tuple[np.ndarray, int]]
SHORTEST, LONGEST = 3, 16  # words
PACE = (0.85, 1.2)
FLITE = ("slt", "awb", "rms", "kal16")
ESPEAK = ("en-us", "en-us+f1", "en-us+f2", "en-us+f5", "en-us+m3", "en-us+m7", "en-gb+f3", "en-gb-x-rp", "en-us+klatt2")


def random_sentence(model: BackoffModel, rng: np.random.Generator) -> str:
    """Words drawn one after the other until the sentence ends; too short and too long ones are drawn again."""
    symbols = np.arange(END, len(model.words) + 2)
    while True:
        history, words = model.start, list[str]()
        while len(words) <= LONGEST:
            table = np.column_stack([np.tile(history, (len(symbols), 1)), symbols])
            chances = np.exp(model.log_probabilities(table))
            symbol = int(rng.choice(symbols, p=chances / chances.sum()))
            if symbol == END:
                break
            words.append(model.words[symbol - 2])
            history = (history[1], symbol)
        if SHORTEST <= len(words) <= LONGEST:
            return " ".join(words)


def own_speaker(name: str, model: str | None = None) -> Speaker:
    """A voice of this project."""
    from melstate.tts import Voice

    voice = Voice.load(name, model=model) if model else Voice.load(name)

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        audio = voice.synthesize(text, speed=float(rng.uniform(*PACE)))
        return audio.samples, audio.sample_rate

    return speak


def flite(voice: str) -> Speaker:
    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        stretch = f"duration_stretch={1 / rng.uniform(*PACE):.2f}"
        return by_command("flite", "-voice", voice, "--setf", stretch, "-t", text, "-o")

    return speak


def espeak(voice: str) -> Speaker:
    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        return by_command("espeak-ng", "-v", voice, "-s", str(round(150 * rng.uniform(*PACE))), text, "-w")

    return speak


def by_command(*command: str) -> tuple[np.ndarray, int]:
    """The samples, and their rate, that a command writes into the file that it is given last.

    Raises: RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
        if done.returncode or not path.is_file():
            raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[:200]}")
        return wav.read(path)


def speakers(voices: Sequence[str], engines: Sequence[str], variants: Sequence[str] = ESPEAK) -> dict[str, Speaker]:
    """By name; voices are names, or names and models as in kathleen:neural_hmm; variants are espeak-ng's voices.

    Raises: FileNotFoundError: an engine that is not installed.
    """
    found: dict[str, Speaker] = {}
    for named in voices:
        name, _, model = named.partition(":")
        found[named.replace(":", "-")] = own_speaker(name, model or None)
    made = {"flite": (flite, FLITE), "espeak-ng": (espeak, variants)}
    for engine in engines:
        if not shutil.which(engine):
            raise FileNotFoundError(f"{engine} is not installed; apt install {engine}, or leave it out of --engines")
        make, names = made[engine]
        found |= {f"{engine}-{name}": make(name) for name in names}
    return found


def texts_of(path: str | Path) -> list[str]:
    """A file's lines as a transcript has them. Raises: OSError. ValueError: none says anything."""
    texts = [normalize_transcript(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if not any(texts):
        raise ValueError(f"{path}: no line with words")
    return [text for text in texts if text]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path, help="the folder to write")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--english", metavar="FILE", help="what recipes.prune_ngrams made")
    source.add_argument("--texts", metavar="FILE", help="a sentence a line; all speakers say one, then the next")
    add("--sentences", type=int, default=2000)
    add("--voices", nargs="*", default=["kathleen", "kathleen:neural_hmm"], help="this project's: NAME or NAME:MODEL")
    add("--engines", nargs="*", default=[], choices=("flite", "espeak-ng"), help="others, where they are installed")
    add("--espeak-voices", nargs="+", default=list(ESPEAK), metavar="VOICE", help="of espeak-ng, as its -v takes them")
    add("--rate", type=int, help="Hz of the files; each engine's own by default, 8000 sounds like a telephone")
    add("--full-stops", action="store_true", help="end every sentence in one, as the texts that a voice learns from do")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    try:
        model = read_ngrams(args.english) if args.english else None
        texts = texts_of(args.texts) if args.texts else []
        turns = list(speakers(args.voices, args.engines, args.espeak_voices).items())
        if not turns:
            raise ValueError("nobody speaks; name --voices or --engines")

        def clip(number: int) -> tuple[str, str, np.ndarray, int]:
            name, speak = turns[number % len(turns)]
            text = random_sentence(model, rng) if model else texts[number // len(turns) % len(texts)]
            text += "." * args.full_stops
            samples, rate = speak(text, rng)
            if args.rate:
                samples, rate = wav.resample(samples, rate, args.rate), args.rate
            peak = max(float(np.abs(samples).max(initial=0.0)), 1e-9)
            return f"{name}-{number:05d}", text, 0.5 * samples / peak, rate

        numbers = track(range(args.sentences), "speaking", console=Console(stderr=True))
        count, seconds = write_ljspeech(args.output, map(clip, numbers))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"synthetic-speech: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {count} sentences of {len(turns)} speakers, {seconds / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
