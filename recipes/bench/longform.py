"""Hours of conversation: does a recogniser stay as good, as fast and as small as in the first minute?

    python -m melstate.recipes.bench.longform ../shared/data --model default --minutes 1 10 --json results.json

The conversations are those of conversations/*.npz (melstate.recipes.data.conversations says what they are; --plan draws
them anew). Their audio is rebuilt into a temporary file, and every system of `longform_systems` writes it down in a
fresh process, whose peak memory counts. Measured: WER with substitutions, deletions and insertions, its 95 % interval
over speakers; for systems that name speakers cpWER, tcpWER at 5 s and 0.5 s, and MWDE; words per minute of the long
pauses; real-time factor, and CPU seconds a second of audio; peak memory. Conversations of one length are summed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melstate.asr.scoring import Interval, WordErrors, bootstrap, count
from melstate.asr.speaker_scoring import (
    SpeakerErrors,
    SpokenWord,
    align_words,
    cp_word_errors,
    mwde,
    tcp_word_errors,
)
from melstate.recipes.bench.longform_systems import SYSTEMS, Word
from melstate.recipes.bench.table import environment
from melstate.recipes.data.conversations import (
    RATE,
    Conversation,
    clips_to_join,
    plan,
    said,
    samples,
    turn_segments,
    words_in_pauses,
    write_audio,
)

MANIFESTS = Path(__file__).parent / "conversations"
PLANNED = {1: 8, 10: 2, 60: 1, 240: 1}  # minutes → conversations
COLLARS = (5.0, 0.5)


@dataclass
class Measured:
    """One system on conversations of one length; `add` sums."""

    system: str
    minutes: int
    words: WordErrors = field(default_factory=WordErrors)
    by_speaker: dict[str, list[int]] = field(default_factory=dict)  # errors, words
    cp: WordErrors | None = None
    tcp: dict[float, WordErrors] = field(default_factory=dict)
    speakers: SpeakerErrors | None = None
    pause_words: int = 0
    pause_minutes: float = 0.0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    def add(
        self, reference: Sequence[SpokenWord], heard: Sequence[Word], conversation: Conversation, ran: dict[str, float]
    ) -> None:
        """Scores one conversation.

        Args:
            ran: seconds, cpu_seconds, peak_bytes and audio_seconds of the process.
        """
        pairs = align_words(reference, heard)
        self.words += count(pairs, [word.text for word in reference], [word.text for word in heard])
        speaker = str(reference[0].speaker)
        for i, j in pairs:
            # An inserted word counts against whoever spoke before it.
            speaker = speaker if i is None else str(reference[i].speaker)
            sums = self.by_speaker.setdefault(speaker, [0, 0])
            sums[0] += i is None or j is None or reference[i].text != heard[j].text
            sums[1] += i is not None
        if any(word.speaker is not None for word in heard):
            ordered = sorted(heard, key=lambda word: word.start)
            self.cp = cp_word_errors(reference, ordered) + (self.cp or WordErrors())
            self.speakers = mwde(reference, heard, pairs) + (self.speakers or SpeakerErrors())
            for collar in COLLARS:
                found = tcp_word_errors(reference, ordered, collar)
                self.tcp[collar] = self.tcp.get(collar, WordErrors()) + found
        words, minutes = words_in_pauses(heard, conversation)
        self.pause_words += words
        self.pause_minutes += minutes
        self.audio_seconds += ran["audio_seconds"]
        self.seconds += ran["seconds"]
        self.cpu_seconds += ran["cpu_seconds"]
        self.peak_bytes = max(self.peak_bytes, int(ran["peak_bytes"]))

    def interval(self) -> Interval:
        errors, words = zip(*self.by_speaker.values(), strict=True)
        return bootstrap(errors, words)

    def summary(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "minutes": self.minutes,
            "wer": self.interval()._asdict(),
            "substitutions": self.words.substitutions,
            "deletions": self.words.deletions,
            "insertions": self.words.insertions,
            "words": self.words.words,
            "cpwer": self.cp.rate if self.cp else None,
            "tcpwer": {f"{collar:g} s": errors.rate for collar, errors in self.tcp.items()},
            "mwde": self.speakers.rate if self.speakers else None,
            "words_per_minute_of_pause": self.pause_words / self.pause_minutes if self.pause_minutes else None,
            "real_time_factor": self.seconds / self.audio_seconds,
            "cpu_factor": self.cpu_seconds / self.audio_seconds,
            "peak_mebibytes": self.peak_bytes / 2**20,
        }


def run_system(
    system: str, model: str, audio: Path, segments: Sequence[tuple[float, float]], threads: int
) -> dict[str, Any]:
    """A system in a fresh process: its words, seconds, cpu_seconds and peak_bytes.

    Raises: RuntimeError: the process failed, with the last lines it wrote.
    """
    segments_file, words_file = audio.with_suffix(".segments.json"), audio.with_suffix(".words.json")
    segments_file.write_text(json.dumps(segments))
    command = [sys.executable, "-m", "melstate.recipes.bench.longform_systems", system, model]
    command += [str(audio), str(segments_file), str(words_file), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{system} failed ({done.returncode}): " + " / ".join(done.stderr.splitlines()[-3:]))
    return json.loads(words_file.read_text())


def manifests(minutes: Iterable[int], folder: Path = MANIFESTS) -> list[tuple[int, Path]]:
    """(length, file) of the conversations of these lengths, in order. Raises ValueError: there is none of a length."""
    found = []
    for length in minutes:
        files = sorted(folder.glob(f"{length}min-*.npz"))
        if not files:
            raise ValueError(f"{folder}: no conversation of {length} minutes; there are {', '.join(map(str, PLANNED))}")
        found += [(length, file) for file in files]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a length and system."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    lines = [
        f"{'min':>4} {'system':14} {'WER':>6}  {'95 % interval':17} {'S':>5} {'D':>5} {'I':>5} {'cpWER':>6} "
        f"{'tcp 5s':>6} {'.5s':>6} {'MWDE':>6} {'w/min':>5} {'RTF':>6} {'CPU':>6} {'MiB':>6}"
    ]
    for row in rows:
        wer, pause, peak = row["wer"], row["words_per_minute_of_pause"], row["peak_mebibytes"]
        interval = f"{wer['low']:.1%} – {wer['high']:.1%}"
        counts = " ".join(f"{row[key]:5d}" for key in ("substitutions", "deletions", "insertions"))
        tcp = " ".join(f"{percent(row['tcpwer'].get(f'{collar:g} s')):>6}" for collar in COLLARS)
        lines.append(
            f"{row['minutes']:4d} {row['system']:14} {percent(wer['value']):>6}  {interval:17} {counts} "
            f"{percent(row['cpwer']):>6} {tcp} {percent(row['mwde']):>6} {'' if pause is None else f'{pause:.2f}':>5} "
            f"{row['real_time_factor']:6.3f} {row['cpu_factor']:6.3f} {'' if peak is None else f'{peak:.0f}':>6}"
        )
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """WER over length, one line a system: flat is the claim."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        axes.plot([row["minutes"] for row in own], [row["wer"]["value"] for row in own], "o-", label=system)
    axes.set(xscale="log", xlabel="minutes", ylabel="word error rate")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m melstate.recipes.bench.longform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with speechocean762/ and digits/")
    add("--model", help="a shipped model's name, a recogniser's or a run's folder, or a .safetensors")
    add("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    add("--minutes", nargs="+", type=int, default=[1, 10], help="lengths: " + ", ".join(map(str, PLANNED)))
    add("--full-minutes", type=int, default=10, help="`full` is left out beyond: its time grows with the square")
    add("--cache", default="runs/waveforms", help="folder for decoded clips")
    add("--threads", type=int, default=1)
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    add("--add", type=Path, metavar="FILE", help="an earlier --json of other systems, to show and write as well")
    add("--plot", type=Path, metavar="FILE", help="draw WER over length")
    add("--plan", type=Path, metavar="FOLDER", help="only draw the conversations, into this folder")
    args = parser.parse_args(argv)
    try:
        chosen = [] if args.plan else manifests(args.minutes)
        clips = clips_to_join(args.data, args.cache)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if args.plan:
        args.plan.mkdir(parents=True, exist_ok=True)
        for minutes, count_ in PLANNED.items():
            for seed in range(count_):
                plan(clips, minutes, seed).save(args.plan / f"{minutes}min-{seed}.npz")
        return 0
    if not args.model:
        parser.error("--model is needed")
    earlier = json.loads(args.add.read_text("utf-8")) if args.add else {"about": [], "rows": []}
    measured: dict[tuple[int, str], Measured] = {}
    for minutes, manifest in chosen:
        conversation = Conversation.load(manifest)
        reference = said(conversation, clips)
        segments = [(segment.start, segment.end) for segment in turn_segments(conversation, clips)]
        with tempfile.TemporaryDirectory() as folder:
            audio = Path(folder) / "conversation.wav"
            write_audio(conversation, clips, audio)
            for system in args.systems:
                if system == "full" and minutes > args.full_minutes:
                    continue
                ran = run_system(system, args.model, audio, segments, args.threads)
                ran["audio_seconds"] = samples(conversation, clips) / RATE
                heard = [Word(*word) for word in ran.pop("words")]
                row = measured.setdefault((minutes, system), Measured(system, minutes))
                row.add(reference, heard, conversation, ran)
                print(f"{manifest.stem} {system}: {row.words}", file=sys.stderr)
    order = list(SYSTEMS)
    rows = sorted(
        earlier["rows"] + [row.summary() for row in measured.values()],
        key=lambda row: (row["minutes"], order.index(row["system"])),
    )
    print(table(rows))
    if args.json:
        command = "python -m melstate.recipes.bench.longform "
        command += shlex.join(sys.argv[1:] if argv is None else argv)
        about = environment("cpu") | {"threads": args.threads, "command": command}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"about": [*earlier["about"], about], "rows": rows}, indent=1) + "\n", "utf-8")
    if args.plot:
        plot(rows, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
