"""Single words cut out of sentences: a corpus of clips as short as a digit is, in as many voices as the sentences have.

    python -m melstate.recipes.cut_words data/cut-digits --run runs/recognizer-shifted --words digits.txt

The run is one whose `data.alignments` say where the words of its clips are. Words are parted at the quietest place
between them. The folder has LJSpeech's layout and is added to a training as that of recipes.synthetic_speech is:
'+data.corpora.cut={layout: ljspeech, folder: …, weight: 0.2, dev_prompts: 0, speaker: cut, invented: true}'.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from melstate.recipes.data.clips import Clip
from melstate.recipes.data.corpus import write_ljspeech
from melstate.recipes.export_recognizer import run_data
from melstate.recipes.synthetic_speech import texts_of

SHORTEST, LONGEST = 0.12, 1.5  # seconds; alignment failed where a word seems to take less or more


def single_words(
    clips: Iterable[Clip], words: Iterable[str], sample_rate: int, most: int | None = None
) -> Iterator[tuple[str, Clip]]:
    """(id, clip) of each time that one of `words` is said in a clip of several whose words are placed; of each word the
    first `most`."""
    wanted, found = set(words), Counter[str]()
    for clip in clips:
        said = clip.text.split()
        if clip.words is None or len(said) < 2:
            continue
        for place, word in enumerate(said):
            if word not in wanted or found[word] == most:
                continue
            single = clip.after(place) if place else clip
            single = single.before(1) if place + 1 < len(said) else single
            if SHORTEST <= len(single.waveform.speech) / sample_rate <= LONGEST:
                found[word] += 1
                yield f"{word}-{clip.waveform.recording.id}-{place}", single


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path, help="the folder to write")
    add("--run", required=True, type=Path, metavar="FOLDER", help="a training run with data.alignments")
    add("--words", required=True, metavar="FILE", help="a word a line")
    add("--most", type=int, default=60, help="clips of one word at most")
    args = parser.parse_args(argv)
    try:
        words = texts_of(args.words)
        data = run_data(args.run)
        if all(clip.words is None for clip in data.train):
            raise ValueError(
                f"{args.run}: it is not known where its clips' words are; give a run with data.alignments, such as "
                "one of experiment=recognizer_shifted"
            )
        rate = data.mel.sample_rate
        clips = (
            (name, clip.text, clip.waveform.speech.astype(np.float32) / 32768, rate)
            for name, clip in single_words(data.train, words, rate, args.most)
        )
        count, seconds = write_ljspeech(args.output, clips)
    except (ValueError, OSError) as error:
        print(f"cut-words: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {count} clips of {len(words)} words, {seconds / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
