"""Does a voice skip or repeat? A hundred long and odd sentences, read back by a recogniser.

    python -m melstate.recipes.bench.robustness --voice kathleen --model fastspeech --model lina

The sentences (odd_sentences.txt) have up to 57 words, numbers, words said over and over, and tongue twisters. A word
that the recogniser misses may have been mumbled; three in a row were skipped. Words it hears that nobody wrote may be
noise; two in a row that were written just before or after were repeated. The recogniser's own errors are in every row:
compare with a model that cannot skip, such as fastspeech. Seconds a phone tell of cuts and babble.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from melstate.recipes import reader
from melstate.recipes.bench.synthesis import RESULTS, machine
from melstate.tts.acoustic import SpeechWarning
from melstate.tts.audio import Coverage
from melstate.tts.manifest import VoiceError
from melstate.tts.voice import Voice

SENTENCES = Path(__file__).with_name("odd_sentences.txt")
SKIP, REPEAT = 3, 2  # words in a row
NEAR = 6  # words around a place in which a repeated word was written


class Slips(NamedTuple):
    """Of one sentence: words written, words missed and added by the reader, and longest runs that count as slips."""

    words: int
    missed: int
    added: int
    longest_skip: int
    longest_repeat: int


def slips(written: str, read: str) -> Slips:
    """Align what was written with what was read, both as `reader.words` gives them. Raises ValueError: no words."""
    import jiwer

    if not written:
        raise ValueError("a sentence without words cannot be read back")
    found = jiwer.process_words(written, read)
    words, heard = written.split(), read.split()
    skip = repeat = 0
    for chunk in found.alignments[0]:
        if chunk.type == "delete":
            skip = max(skip, chunk.ref_end_idx - chunk.ref_start_idx)
        elif chunk.type == "insert":
            place = chunk.ref_start_idx
            near = words[max(0, place - NEAR) : place + NEAR]
            run = 0
            for word in heard[chunk.hyp_start_idx : chunk.hyp_end_idx]:
                run = run + 1 if word in near else 0
                repeat = max(repeat, run)
    return Slips(len(words), found.deletions, found.insertions, skip, repeat)


def listen(voice: Voice, sentences: Sequence[str], read: reader.Reader, keep: Path | None, seed: int) -> dict[str, Any]:
    """Everything measured of one model."""
    each: list[dict[str, Any]] = []
    coverage = Coverage()
    for number, sentence in enumerate(sentences):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SpeechWarning)
            said = voice.synthesize(sentence, seed=seed)
        coverage += said.coverage
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            said.save(keep / f"{number:03d}.wav")
        transcript = read.read(said.samples, said.sample_rate)
        phones = sum(s.coverage.phones for s in said.sentences)
        each.append(
            {
                "text": sentence,
                "read": transcript,
                **slips(reader.words(sentence), transcript)._asdict(),
                "seconds_a_phone": said.seconds / max(phones, 1),
                "warnings": [str(warning.message) for warning in caught if issubclass(warning.category, SpeechWarning)],
            }
        )
    words = sum(row["words"] for row in each)
    pace = np.array([row["seconds_a_phone"] for row in each])
    score = reader.score([row["text"] for row in each], [row["read"] for row in each])
    return {
        "sentences": len(each),
        "word_error_rate": reader.word_error_rate(score)._asdict(),
        "missed": sum(row["missed"] for row in each) / words,
        "added": sum(row["added"] for row in each) / words,
        "skipping": sum(row["longest_skip"] >= SKIP for row in each) / len(each),
        "repeating": sum(row["longest_repeat"] >= REPEAT for row in each) / len(each),
        "warned": sum(bool(row["warnings"]) for row in each) / len(each),
        "seconds_a_phone": {"least": float(pace.min()), "median": float(np.median(pace)), "most": float(pace.max())},
        "coverage": coverage.to_dict(),
        "each": each,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The summary as lines of text."""
    heading = ("WER", "missed", "added", "skipping", "repeating", "warned")
    lines = [f"{'model':14}" + "".join(f"{name:>11}" for name in heading) + "   seconds a phone"]
    for name, found in results.items():
        values = [found["word_error_rate"]["value"], *(found[key] for key in heading[1:])]
        pace = found["seconds_a_phone"]
        lines.append(
            f"{name:14}"
            + "".join(f"{100 * value:9.1f} %" for value in values)
            + f"   {pace['least']:.3f} – {pace['median']:.3f} – {pace['most']:.3f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--voice", default="kathleen", help="a shipped voice's name or a voice folder's path")
    add("--model", action="append", metavar="NAME", help="one of its models (again for more); its default")
    add("--sentences", default=str(SENTENCES), help="a file with one sentence a line")
    add("--limit", type=int, help="use only the first N")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--cache", default="runs/evaluate/transcripts.jsonl", help="transcripts by content; '' reads all anew")
    add("--keep", help="folder to keep the audio in")
    add("--json", help="where the result goes; recipes/bench/results/robustness_<voice>.json by default")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        sentences = [line for line in Path(args.sentences).read_text("utf-8").splitlines() if line.strip()][
            : args.limit
        ]
        voices = [Voice.load(args.voice, model=name) for name in args.model or [None]]
    except (VoiceError, OSError) as error:
        parser.error(str(error))
    read = reader.Reader(args.cache or None)
    results = {}
    for voice in voices:
        keep = Path(args.keep) / voice.model if args.keep else None
        results[voice.model] = listen(voice, sentences, read, keep, args.seed)
    print(table(results))
    target = Path(args.json) if args.json else RESULTS / f"robustness_{voices[0].name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine("cpu", args.threads), "voice": voices[0].name, "models": results}
    target.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
