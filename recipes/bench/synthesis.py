"""How fast does a voice speak? Real-time factor, time to first sound, cold start and memory.

    python -m melstate.recipes.bench.synthesis --voice kathleen --threads 2
    python -m melstate.recipes.bench.synthesis --voice kathleen --model neural_hmm --minutes 60

Each figure is p50 and p95 over twenty sentences of twenty words. "whole" makes a sentence in one piece, the baseline
that "streamed" is compared with. A cold start is `synthesize "Hello, world."` in a process of its own, all of it.
--minutes makes the long text long enough for so much speech at the pace of the sentences before it.
Results go to recipes/bench/results/synthesis_<voice>[_<model>]_<device>_<threads>.json unless --json says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melstate.tts import manifest
from melstate.tts.audio import Coverage
from melstate.tts.voice import Voice

RESULTS = Path(__file__).parent / "results"
SENTENCES = (
    "The old keeper climbed the narrow stairs every evening and lit the great lamp before the first ships went past.",
    "When the rain stopped at last, the children ran out and jumped into every puddle between school and the park.",
    "She wrote a long letter to her sister about the garden, the new neighbours, and the strange weather that spring.",
    "Nobody in the village could recall a colder winter, and even the fishermen stayed close to their old warm fires.",
    "The train left the station twenty minutes late, but the driver promised that he would make up for lost time.",
    "A good map is worth more than a fast horse when you travel alone through mountains that you barely know.",
    "He opened the wooden box carefully and found three silver coins, a broken watch, and a photograph of his mother.",
    "Every morning the baker carries warm bread across the square, and the smell wakes half the people who live there.",
    "The committee will meet again on Thursday to decide whether the bridge should be rebuilt or replaced by a tunnel.",
    "If you listen closely at night, you can hear the river moving the small stones along its bed for miles.",
    "Our teacher explained that light from the nearest star needs more than four years to reach the planet we share.",
    "The cat slept on the warm bonnet of the car until the owner came back with two heavy shopping bags.",
    "They planted apple trees along the southern wall because the bricks keep the heat of the sun until late evening.",
    "I would rather walk home through the forest than wait another hour for a bus that may never arrive tonight.",
    "The recipe calls for four eggs, a cup of sugar, some fresh butter, and as much patience as you have.",
    "During the concert the lights went out, yet the orchestra played on from memory until the very last quiet note.",
    "Doctors advise that adults drink plenty of water, sleep for eight hours, and take a short walk after each meal.",
    "The museum keeps its oldest books in a dark room where the air is always cool, dry, and perfectly still.",
    "My grandfather built this table from a single oak that had fallen across the road during a great autumn storm.",
    "Please leave your muddy boots beside the door, hang up your coat, and join us for some tea and cake.",
)  # fmt: skip


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95)), "runs": len(values)}


def resident() -> float:
    """MB of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def speaking(voice: Voice, sentences: Sequence[str], chunk: int | None) -> dict[str, Any]:
    """Real-time factor and time to first sound, sentence by sentence; chunk as in Voice.stream."""
    factors, firsts = [], []
    for sentence in sentences:
        started = time.perf_counter()
        first, samples = 0.0, 0
        for audio in voice.stream(sentence, chunk=chunk):
            samples += len(audio.samples)
            first = first or time.perf_counter() - started
        factors.append((time.perf_counter() - started) * voice.sample_rate / samples)
        firsts.append(1000 * first)
    return {"real_time_factor": percentiles(factors), "first_sound_ms": percentiles(firsts)}


def characters_for(voice: Voice, minutes: float) -> int:
    """Length of a text that takes so long to say, by the first sentences."""
    seconds = sum(voice.synthesize(sentence).seconds + voice.defaults.sentence_pause for sentence in SENTENCES[:5])
    return round(60 * minutes * sum(len(sentence) + 1 for sentence in SENTENCES[:5]) / seconds)


def long_text(voice: Voice, characters: int) -> dict[str, float]:
    """Memory while a long text is streamed: MB after the first tenth and at the end, and the most in between."""
    text = " ".join(SENTENCES[number % len(SENTENCES)] for number in range(characters // 100 + 1))[:characters]
    marks, samples, words = [], 0, 0
    coverage = Coverage()
    for audio in voice.stream(text):
        samples += len(audio.samples)
        words += len(audio.words)
        coverage += audio.coverage
        if audio.progress >= 0.1:
            marks.append(resident())
    spoken = sum(len(sentence.words) for sentence in voice.front_end.sentences(text))
    return {
        "characters": len(text),
        "minutes_of_speech": samples / voice.sample_rate / 60,
        "words_dropped": spoken - words,
        "phones_dropped": coverage.phones - coverage.spoken,
        "mb_after_a_tenth": marks[0],
        "mb_at_the_end": marks[-1],
        "mb_most": max(marks),
        "growth": marks[-1] / marks[0] - 1,
    }


def cold_start(voice: str, model: str, threads: int, runs: int) -> dict[str, Any]:
    """Seconds that a whole `synthesize` process takes for a short sentence, and the most memory it held."""
    seconds, megabytes = [], []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "melstate.tts.cli", "Hello, world.", "-o", f"{folder}/x.wav"]
        command += ["--voice", voice, "--model", model, "--threads", str(threads)]
        for _ in range(runs):
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.perf_counter() - started)
            if status:
                raise RuntimeError(f"{' '.join(command)} failed with status {status}")
            megabytes.append(usage.ru_maxrss / 1000)
            if process.stdout is not None:
                process.stdout.close()
    return {"seconds": percentiles(seconds), "mb": percentiles(megabytes)}


def machine(device: str, threads: int) -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else names[0].split(": ")[1],
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "threads": threads,
        "dtype": "float32",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def show(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    about = result["machine"]
    load = about["load_average"]
    lines = [
        f"{about['device']}, {about['cores']} cores (load {load:.1f} at the start), {about['threads']} threads, "
        f"{about['dtype']}, torch {about['torch']}, python {about['python']}",
        f"{'':40} {'p50':>8} {'p95':>8}",
    ]
    rows = []
    for name in ("streamed", "whole"):
        rows.append((f"real-time factor, {name}", result[name]["real_time_factor"], 4))
        rows.append((f"first sound of 20 words, {name}, ms", result[name]["first_sound_ms"], 0))
    rows.append(("cold synthesize, s", result["cold_start"]["seconds"], 2))
    rows.append(("cold synthesize, MB", result["cold_start"]["mb"], 0))
    lines += [f"{name:40} {row['p50']:8.{digits}f} {row['p95']:8.{digits}f}" for name, row, digits in rows]
    text = result["long_text"]
    lines.append(f"{text['characters']} characters, {text['minutes_of_speech']:.1f} minutes of speech:")
    marks = ", ".join(f"{text[key]:.0f} MB {key[3:].replace('_', ' ')}" for key in text if key.startswith("mb_"))
    lines.append(f"  {marks} ({text['growth']:+.2%}); {text['words_dropped']} words dropped")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--voice", default="kathleen", help="a shipped voice's name or a voice folder's path")
    add("--model", metavar="NAME", help="one of the voice's models; its default")
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=2, help="times each sentence is spoken")
    add("--cold", type=int, default=5, help="fresh processes")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--characters", type=int, default=20000, help="length of the long text (default 20000)")
    length.add_argument("--minutes", type=float, help="length of its speech instead, about")
    add("--json", help="where the result goes")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        about = machine(args.device, args.threads)
        voice = Voice.load(args.voice, model=args.model, device=args.device)
    except manifest.VoiceError as error:
        parser.error(str(error))
    for sentence in SENTENCES[:3]:
        voice.synthesize(sentence)
    sentences = SENTENCES * args.rounds
    result = {
        "machine": about,
        "voice": voice.name,
        "model": voice.model,
        "streamed": speaking(voice, sentences, None),
        "whole": speaking(voice, sentences, 100_000),
        "long_text": long_text(voice, characters_for(voice, args.minutes) if args.minutes else args.characters),
        "cold_start": cold_start(args.voice, voice.model, args.threads, args.cold),
    }
    print(show(result))
    model = f"_{args.model}" if args.model else ""
    name = f"synthesis_{voice.name}{model}_{args.device.replace(':', '')}_{args.threads}.json"
    target = Path(args.json) if args.json else RESULTS / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
