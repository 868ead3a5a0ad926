"""Ten minutes of speech as one utterance: does a frame cost more, or the model remember more, as speech goes on?

    python -m melstate.recipes.bench.steady --voice kathleen --model lina --minutes 10

A text that long goes to the acoustic model as one sentence. Time a frame is the median over the first and over the last
tenth of the chunks. Tensor bytes are those of every tensor alive in the process, parameters included, when a chunk has
come out: after the first second and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melstate.recipes.bench.synthesis import RESULTS, SENTENCES, machine, resident
from melstate.tts.acoustic import SpeechWarning
from melstate.tts.manifest import VoiceError
from melstate.tts.voice import Voice

CHUNK = 96  # frames


def tensor_bytes() -> int:
    """Bytes of all storages that live tensors use, each counted once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):  # isinstance asks lazy modules what they are
            storage = thing.untyped_storage()
            try:
                storages[storage.data_ptr()] = storage.nbytes()
            except RuntimeError:  # a tracer's tensor: it has a shape and no memory
                continue
    return sum(storages.values())


def symbols(voice: Voice, minutes: float) -> list[int]:
    """One sentence that takes about so long to say, at 0.09 seconds a symbol."""
    inner: list[int] = []
    ends: tuple[int, int] = (0, 0)
    while len(inner) * 0.09 < 60 * minutes:
        for text in SENTENCES:
            for sentence in voice.front_end.sentences(text):
                inner += sentence.ids[1:-1]
                ends = (sentence.ids[0], sentence.ids[-1])
    return [ends[0], *inner[: round(60 * minutes / 0.09)], ends[1]]


def measure(voice: Voice, minutes: float, seed: int = 0) -> dict[str, Any]:
    """Stream the utterance and watch."""
    phones = symbols(voice, minutes)
    rate = voice.acoustic.mel.sample_rate / voice.acoustic.mel.hop
    stream = voice.acoustic.stream(phones, chunk=CHUNK, generator=torch.Generator().manual_seed(seed))
    costs: list[float] = []  # seconds a frame of each chunk
    frames, early, late, highest = 0, 0, 0, 0.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpeechWarning)
        while True:
            began = time.perf_counter()
            with torch.inference_mode():
                part = next(stream, None)
            if part is None:
                break
            count = part.mel.shape[1]
            costs.append((time.perf_counter() - began) / max(count, 1))
            frames += count
            if len(part.symbol) >= CHUNK:
                late = tensor_bytes() if len(costs) % 16 == 1 else late
            if not early and frames >= rate:
                early = tensor_bytes()
            highest = max(highest, resident())
            reached = int(part.symbol[-1]) if count else 0
            del part
    tenth = max(1, len(costs) // 10)
    first, last = (1000 * float(np.median(part)) for part in (costs[1 : tenth + 1], costs[-tenth:]))
    return {
        "minutes": frames / rate / 60,
        "symbols": len(phones),
        "last_symbol": reached,
        "ms_a_frame_first_tenth": first,
        "ms_a_frame_last_tenth": last,
        "ratio": last / first,
        "tensor_bytes_after_a_second": early,
        "tensor_bytes_at_the_end": late,
        "mb_most": highest,
        "warnings": [str(warning.message) for warning in caught],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--voice", default="kathleen", help="a shipped voice's name or a voice folder's path")
    add("--model", help="one of its models; its default")
    add("--minutes", type=float, default=10.0)
    add("--threads", type=int, default=1)
    add("--json", help="where the result goes; recipes/bench/results/steady_<voice>_<model>.json by default")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        voice = Voice.load(args.voice, model=args.model)
    except VoiceError as error:
        parser.error(str(error))
    about = machine("cpu", args.threads)
    found = measure(voice, args.minutes)
    print(
        f"{voice.name}/{voice.model}: {found['minutes']:.1f} minutes in one utterance of {found['symbols']} symbols\n"
        f"a frame: {found['ms_a_frame_first_tenth']:.3f} ms at first, {found['ms_a_frame_last_tenth']:.3f} ms at last "
        f"(× {found['ratio']:.3f})\n"
        f"tensors: {found['tensor_bytes_after_a_second']:,} bytes after a second, "
        f"{found['tensor_bytes_at_the_end']:,} at the end; process {found['mb_most']:.0f} MB at most"
    )
    target = Path(args.json) if args.json else RESULTS / f"steady_{voice.name}_{voice.model}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps({"machine": about, "voice": voice.name, "model": voice.model, **found}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
