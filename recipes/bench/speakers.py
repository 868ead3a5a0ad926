"""Who spoke in a conversation whose turns are known: speakers tracked online, clustered offline, or known beforehand.

    python -m melstate.recipes.bench.speakers ../shared/data --encoder runs/speaker/model.safetensors --minutes 1 10

Conversations as in `longform`; none of their speechocean762 speakers was trained on. `online` is SpeakerTracker, which
never takes back a decision; `offline` clusters all turns at once; `enrolled` is SpeakerTracker with one embedding of
each speaker from clips outside the conversations (a closed set). Measured: MWDE (the words of wrongly labelled turns,
under the best map of labels; for `enrolled` by name, WDER) with its 95 % interval over speakers, the diarisation error
rate of the turns, and how many speakers were found. Choose a threshold on other conversations than are reported.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melstate.asr.diarization import SpeakerTracker, cluster
from melstate.asr.diarization_error import DiarizationErrors, Segment, diarization_errors
from melstate.asr.scoring import bootstrap, words
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.speaker_scoring import best_speaker_map
from melstate.recipes.bench.longform import PLANNED, manifests
from melstate.recipes.bench.longform_systems import read_audio
from melstate.recipes.data.conversations import (
    MOST_WORDS,
    RATE,
    Conversation,
    SaidWord,
    clips_to_join,
    said,
    turn_segments,
    write_audio,
)
from melstate.recipes.data.recordings import is_digit_test, read_digits, read_speechocean
from melstate.vocoders import wav

SYSTEMS = ("online", "offline", "enrolled")
MOST_SPEAKERS = 32
ENROLLED_SECONDS = 10.0


def label(
    system: str, embeddings: Sequence[Tensor], seconds: Sequence[float], enrolled: Sequence[Tensor], threshold: float
) -> list[int]:
    """A speaker's number for every turn."""
    if system == "offline":
        return cluster(torch.stack(list(embeddings)), threshold)
    known = enrolled if system == "enrolled" else ()
    tracker = SpeakerTracker(len(embeddings[0]), threshold, max_speakers=len(known) or MOST_SPEAKERS)
    state, labels = tracker.start(known), []
    for embedding, length in zip(embeddings, seconds, strict=True):
        number, state = tracker.assign(embedding, state, length)
        labels.append(number)
    return labels


@dataclass
class Labelled:
    """One system on conversations of one length; `add` sums."""

    system: str
    minutes: int
    by_speaker: dict[str, list[int]] = field(default_factory=dict)  # wrong words, words
    time: DiarizationErrors = field(default_factory=DiarizationErrors)
    found: int = 0
    there: int = 0

    def add(self, turns: Sequence[Segment], spoken: Sequence[SaidWord], labels: Sequence[Any]) -> None:
        """Scores one conversation.

        Args:
            spoken: the words, in order. labels: of the turns; names of speakers where they were enrolled.
        """
        which = (
            np.searchsorted([turn.start for turn in turns], [word.start + 1e-4 for word in spoken], side="right") - 1
        )
        heard = [word._replace(speaker=labels[turn]) for word, turn in zip(spoken, which, strict=True)]
        pairs = [(n, n) for n in range(len(spoken))]
        named: Mapping[Any, Any] = best_speaker_map(spoken, heard, pairs)
        if self.system == "enrolled":
            named = {name: name for name in set(labels)}
        for word, other in zip(spoken, heard, strict=True):
            sums = self.by_speaker.setdefault(word.speaker, [0, 0])
            sums[0] += named.get(other.speaker) != word.speaker
            sums[1] += 1
        labelled = [turn._replace(speaker=name) for turn, name in zip(turns, labels, strict=True)]
        self.time += diarization_errors(turns, labelled)
        self.found += len(set(labels))
        self.there += len({turn.speaker for turn in turns})

    def summary(self) -> dict[str, Any]:
        wrong, total = zip(*self.by_speaker.values(), strict=True)
        return {
            "system": self.system,
            "minutes": self.minutes,
            "speaker_error": bootstrap(wrong, total)._asdict(),
            "diarization_error": self.time.rate,
            "speakers_found": self.found,
            "speakers": self.there,
            "words": sum(total),
        }


def enrol(encoder: SpeakerEncoder, data: Path) -> dict[str, Tensor]:
    """An embedding of each speaker from about ten seconds outside the conversations."""
    dev = read_speechocean(data / "speechocean762", "dev").recordings
    digits = read_digits(data / "digits").recordings
    others = [r for r in dev if len(words(r.text)) > MOST_WORDS] + [r for r in digits if not is_digit_test(r)]
    audio: dict[str, list[np.ndarray]] = {}
    for recording in others:
        heard = audio.setdefault(recording.speaker, [])
        if sum(map(len, heard)) < ENROLLED_SECONDS * RATE:
            heard.append(wav.read(recording.path, RATE)[0])
    return {speaker: encoder.embed(np.concatenate(heard)) for speaker, heard in audio.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m melstate.recipes.bench.speakers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with speechocean762/ and digits/")
    add("--encoder", required=True, help="a speaker encoder's .safetensors")
    add("--minutes", nargs="+", type=int, default=[1, 10], help="lengths: " + ", ".join(map(str, PLANNED)))
    add("--thresholds", nargs="+", type=float, default=[0.5], help="cosines to try")
    add("--cache", default="runs/waveforms", help="folder for decoded clips")
    add("--threads", type=int, default=1)
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        chosen = manifests(args.minutes)
        encoder = SpeakerEncoder.load(args.encoder)
        clips = clips_to_join(args.data, args.cache)
        enrolled = enrol(encoder, args.data)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    measured: dict[tuple[float, int, str], Labelled] = {}
    for minutes, manifest in chosen:
        conversation = Conversation.load(manifest)
        turns, spoken = turn_segments(conversation, clips), said(conversation, clips)
        cast = sorted({str(turn.speaker) for turn in turns} & set(enrolled))
        with tempfile.TemporaryDirectory() as folder:
            audio = Path(folder) / "conversation.wav"
            write_audio(conversation, clips, audio)
            embeddings = [encoder.embed(read_audio(audio, RATE, turn.start, turn.end)) for turn in turns]
        seconds = [turn.end - turn.start for turn in turns]
        for threshold in args.thresholds:
            for system in SYSTEMS:
                labels: list[Any] = label(system, embeddings, seconds, [enrolled[name] for name in cast], threshold)
                if system == "enrolled":
                    labels = [cast[number] for number in labels]
                row = measured.setdefault((threshold, minutes, system), Labelled(system, minutes))
                row.add(turns, spoken, labels)
    rows = [{"threshold": threshold} | row.summary() for (threshold, _, _), row in measured.items()]
    print(table(rows))
    if args.json:
        command = "python -m melstate.recipes.bench.speakers " + shlex.join(sys.argv[1:] if argv is None else argv)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"about": {"command": command}, "rows": rows}, indent=1) + "\n", "utf-8")
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a threshold, length and system."""
    lines = [
        f"{'cosine':>6} {'min':>4} {'system':9} {'error':>6}  {'95 % interval':17} {'DER':>6} {'found':>5} {'there':>5}"
    ]
    for row in rows:
        error = row["speaker_error"]
        interval = f"{error['low']:.1%} – {error['high']:.1%}"
        lines.append(
            f"{row['threshold']:6.2f} {row['minutes']:4d} {row['system']:9} {error['value']:6.1%}  {interval:17} "
            f"{row['diarization_error']:6.1%} {row['speakers_found']:5d} {row['speakers']:5d}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
