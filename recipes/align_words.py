"""Where the words of a recogniser's training clips are, by its own CTC alignment of their transcripts.

    python -m melstate.recipes.align_words --run runs/recognizer -o runs/recognizer/words.npz

The file is for `data.alignments` of another run on the same clips, whose rows may then begin and end between words
(see experiment=recognizer_shifted). The run needs its model.safetensors: experiment=… export_only=true writes one of
the last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from melstate.asr.ctc import align_words
from melstate.asr.encoder import FACTOR
from melstate.asr.features import perturbed_log_mel
from melstate.asr.model import SpeechModel
from melstate.asr.tokens import Tokens
from melstate.recipes.data.clips import Clip, save_times
from melstate.recipes.data.module import warn_of
from melstate.recipes.export_recognizer import run_data
from melstate.recipes.recognizers import read_model

BATCH_SECONDS = 120.0


def batches(clips: Sequence[Clip], sample_rate: int, seconds: float = BATCH_SECONDS) -> Iterator[list[Clip]]:
    """The clips, short ones first, in groups that are about so many seconds long when padded."""
    group: list[Clip] = []
    for clip in sorted(clips, key=lambda clip: len(clip.waveform.speech)):
        if group and (len(group) + 1) * len(clip.waveform.speech) > seconds * sample_rate:
            yield group
            group = []
        group.append(clip)
    if group:
        yield group


@torch.inference_mode()
def word_times(model: SpeechModel, tokens: Tokens, clips: Sequence[Clip]) -> tuple[dict[str, np.ndarray], list[str]]:
    """(W, 2) start and end of each word in seconds of the clip's speech, by clip id; and a line for every clip that
    cannot be aligned, or has another's id."""
    seconds = FACTOR * model.mel.hop / model.mel.sample_rate
    found: dict[str, np.ndarray] = {}
    problems: list[str] = []
    repeated: set[str] = set()
    groups = list(batches(clips, model.mel.sample_rate))
    for group in track(groups, "aligning", console=Console(stderr=True)):
        mels = [perturbed_log_mel(torch.from_numpy(c.waveform.speech / 32768.0).float(), model.mel) for c in group]
        frames = torch.tensor([len(mel) for mel in mels])
        memory, _ = model.encoder(torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), lengths=frames)
        assert memory.lengths is not None
        log_probs = model.token_log_probs(memory.values)
        for clip, rows, length in zip(group, log_probs, memory.lengths.tolist(), strict=True):
            name = clip.waveform.recording.id
            try:
                words = align_words(rows[:length], tokens.encode(clip.text), tokens)
            except ValueError as error:
                problems.append(f"'{name}': {error}")
                continue
            if name in found:
                repeated.add(name)
            found[name] = seconds * np.array([(w[0].start, w[-1].stop) for w in words], np.float64).reshape(-1, 2)
    for name in sorted(repeated):
        del found[name]
        problems.append(f"'{name}': several clips have this id")
    return found, problems


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="FOLDER", help="a recogniser's training run")
    add("-o", "--output", type=Path, metavar="FILE", help="where to write; words.npz in the run's folder by default")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    output = args.output or args.run / "words.npz"
    try:
        model, tokens = read_model(args.run)
        clips = run_data(args.run).train
        found, problems = word_times(model.eval(), tokens, clips)
        save_times(output, found)
    except (ValueError, OSError) as error:
        print(f"align-words: {error}", file=sys.stderr)
        return 1
    warn_of("clips could not be aligned", problems)
    print(f"{output}: {sum(map(len, found.values()))} words of {len(found)} clips; {len(problems)} clips left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
