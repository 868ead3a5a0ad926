"""How far behind the speaker are words when they are first shown, and when they are final?

    python -m melstate.recipes.bench.streaming ../shared/data --model default --minutes 10 --json results.json

A conversation of the long-form benchmark is fed in blocks, as a microphone would. A word is shown when any word stands
at its place in the partial text or in a finished segment, and settled when it is the word that stays: the delay is the
sound fed by then minus the time at which the word ends, plus what the feed took to compute.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from melstate.asr.recognizer import Recognizer
from melstate.recipes.bench.longform import manifests
from melstate.recipes.bench.synthesis import machine
from melstate.recipes.data.conversations import RATE, Conversation, blocks, clips_to_join
from melstate.recipes.evaluate_recognizer import installed
from melstate.recipes.recognizers import read_recognizer


class Delays(NamedTuple):
    """Seconds behind each word's end when a word was shown for it, when that was the right one, and when it was final;
    and seconds of all computing."""

    shown: list[float]
    settled: list[float]
    final: list[float]
    computing: float


def delays(recognizer: Recognizer, audio: Iterable[np.ndarray], block: float, *, method: str | None = None) -> Delays:
    """Feed the audio, at 16 kHz, `block` seconds at a time."""
    listener = recognizer.listener(RATE, method=method)
    found = Delays([], [], [], 0.0)
    history: list[tuple[float, list[str]]] = []  # when, and the partial words then, of the open segment
    computing = fed = 0.0
    size = round(block * RATE)
    for samples in (long[i : i + size] for long in audio for i in range(0, len(long), size)):
        began = time.perf_counter()
        segments = listener.feed(samples)
        partial = listener.partial.split()
        took = time.perf_counter() - began
        computing += took
        fed += len(samples) / RATE
        now = fed + took
        for segment in segments:
            for place, word in enumerate(segment.words):
                any_word = next((when for when, words in history if len(words) > place), now)
                this_word = next((when for when, words in history if words[place : place + 1] == [word.text]), now)
                found.shown.append(max(0.0, any_word - word.end))
                found.settled.append(max(0.0, this_word - word.end))
                found.final.append(now - word.end)
        if segments:
            history = []
        history.append((now, partial))
    return found._replace(computing=computing)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and the greatest, in seconds, and how many of them are a second or less."""
    middle, high = np.percentile(values, [50, 95])
    soon = float(np.mean(np.asarray(values) <= 1.0))
    return {"median": float(middle), "p95": float(high), "most": float(max(values)), "within_a_second": soon}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path, help="folder with speechocean762/ and digits/")
    add("--model", default="default", help="a shipped model's name, or a recogniser's folder")
    add("--method", help="the model's own by default")
    add("--minutes", type=int, default=10, help="of the conversation")
    add("--block", type=float, default=0.1, help="seconds fed at a time")
    add("--cache", default="runs/waveforms", help="folder for decoded clips")
    add("--threads", type=int, default=2)
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        recognizer = read_recognizer(args.model)
        conversation = Conversation.load(manifests([args.minutes])[0][1])
        clips = clips_to_join(args.data, args.cache)
        found = delays(recognizer, blocks(conversation, clips), args.block, method=args.method)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if not found.final:
        parser.error("not a word was heard; there is nothing to time")
    result: dict[str, Any] = {
        "command": "python -m melstate.recipes.bench.streaming " + shlex.join(sys.argv[1:] if argv is None else argv),
        "words": len(found.final),
        "shown": summary(found.shown),
        "settled": summary(found.settled),
        "final": summary(found.final),
        "real_time_factor": found.computing / (60 * args.minutes),
        "machine": machine("cpu", args.threads),
        "versions": {name: installed(name) for name in ("melstate", "torch", "numpy")},
    }
    for name in ("shown", "settled", "final"):
        median, high, most, soon = result[name].values()
        print(f"{name}: median {median:.2f} s, p95 {high:.2f} s, most {most:.2f} s behind, {soon:.1%} within a second")
    print(f"{result['words']} words, real-time factor {result['real_time_factor']:.3f} on {args.threads} threads")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
