"""Weights of language model, word bonus, pieces and attention that make the fewest word errors on development speakers.

    python -m melstate.recipes.tune_recognizer MODEL_FOLDER --run runs/recognizer --clips 150

Every clip is decoded into a list of readings by the search's own weights; their scores are then weighed anew for every
setting, in seconds. Copy the result into the export's --decoding, or let --write put it into the folder's model.yaml.
The search wants less weight of the language model than the final choice: compare the errors of the best readings.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from melstate.asr import package
from melstate.asr.beam_listener import BeamListener, Weighed, Weights, make_search
from melstate.asr.decoding import Decoding
from melstate.asr.reading import Search
from melstate.asr.recognizer import Recognizer
from melstate.asr.scoring import WordErrors, word_errors
from melstate.recipes.data.clips import Clip
from melstate.recipes.export_recognizer import run_data

FINAL = {"language": "final_language", "bonus": "final_bonus"}  # in Decoding
LANGUAGE = (0.0, 0.35, 0.5, 0.65, 0.8, 1.0, 1.25)
BONUS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
ATTENTION = (0.0, 0.1, 0.2, 0.3, 0.45)
PIECES = (0.0, 0.1, 0.2, 0.3, 0.4)  # with a search by phones


class Read(NamedTuple):
    """One way to read a clip, what speaks for it, and its errors."""

    weighed: Weighed
    errors: WordErrors


def readings(recognizer: Recognizer, clip: Clip, wide: Decoding, search: Search) -> list[Read]:
    """What a wide beam makes of one clip taken as one segment; the empty reading if it heard nothing."""
    rate = recognizer.parts.model.mel.sample_rate
    listener = BeamListener(recognizer.parts, rate, wide, search=search)
    listener.feed(np.pad(clip.waveform.audio, (0, rate)))  # fills the last chunk
    return [Read(weighed, word_errors(clip.text, weighed.reading.text)) for weighed in listener.readings()]


def best(clips: Sequence[Sequence[Read]], weights: Weights) -> WordErrors:
    """The errors when each clip's best reading under these weights is taken."""
    return sum((max(rows, key=lambda row: weights.total(row.weighed)).errors for rows in clips), WordErrors())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", help="a recogniser's folder")
    add("--run", required=True, help="the training run, whose development clips are used")
    add("--set", dest="names", nargs="*", help="which development sets; all but digits by default")
    add("--clips", type=int, default=150, help="of each set, spread evenly")
    add("--width", type=int, default=32, help="readings a clip")
    add("--write", action="store_true", help="put the best weights into the folder's model.yaml")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recognizer = Recognizer.load(args.model if "/" in args.model else f"./{args.model}")
    data = run_data(args.run)
    names = args.names or [name for name in data.dev if name != "digits"]
    width = max(args.width, recognizer.decoding.width)
    wide = replace(recognizer.decoding, width=width, readings=args.width, pause=60.0, longest=120.0)
    chosen = [
        clips[i * len(clips) // count]
        for clips in (data.dev[name] for name in names)
        for count in [min(args.clips, len(clips))]
        for i in range(count)
    ]
    by_phones = recognizer.decoding.method == "words"
    grid = itertools.product(LANGUAGE, BONUS, PIECES if by_phones else (0.0,), ATTENTION)
    settings = [Weights(*weights) for weights in grid if weights[2] + weights[3] < 1]
    search = make_search(recognizer.parts, wide)
    found = [readings(recognizer, clip, wide, search) for clip in chosen]
    oracle = sum((min((r.errors for r in rows), key=lambda e: e.errors) for rows in found), WordErrors())
    print(f"{len(chosen)} clips, {oracle.words} words; the best reading of each has {oracle.rate:.1%} errors")
    ranked = sorted(settings, key=lambda weights: best(found, weights).errors)
    for weights in (*ranked[:5], Weights(0.0, 0.0, 0.0, 0.0)):
        shown = "  ".join(f"{name} {value:4.2f}" for name, value in weights._asdict().items())
        print(f"{shown}: {best(found, weights).rate:.1%}")
    if args.write:
        folder = package.find(args.model if "/" in args.model else f"./{args.model}")
        manifest = package.read(folder)
        found_weights = ranked[0]._asdict()
        chosen_weights = {FINAL.get(name, name): value for name, value in found_weights.items()}
        package.write(folder, replace(manifest, decoding={**manifest.decoding, **chosen_weights}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
