"""`melstate clone CLIPS --base VOICE -o FOLDER`: another speaker's voice from one to a few minutes of speech.

Only the low-rank states that VOICE's Lina starts from are learned, some thousand numbers; all else stays as it is. The
clone's folder holds these and refers to its base by hash. A part of the clips is held out and judges the result.

Source: Lemerle et al. 2024, Lina-Speech (arXiv:2410.23320), initial-state tuning.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from melstate.recipes import similarity
from melstate.recipes.data.batches import Clip, UtteranceBatches, collate
from melstate.recipes.data.corpus import Utterance
from melstate.recipes.data.module import AcousticData
from melstate.tts.acoustic import Batch
from melstate.tts.clone import LinaStart, continued, load_base, save_clone
from melstate.tts.lina import Lina
from melstate.tts.voice import Voice

CONTOUR_WEIGHT = 0.1
SAID = 12  # sentences spoken to judge similarity
LEAST = 4  # clips


class Tuned(NamedTuple):
    """What was learned, how long it took, and the held-out loss (nats a mel value) before and after."""

    start: LinaStart
    seconds: float
    before: float
    after: float

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.start.parameters())


def tune(
    model: Lina,
    clips: Sequence[Clip],
    held: Sequence[Clip],
    *,
    rank: int = 4,
    steps: int = 150,
    lr: float = 0.03,
    batch_size: int = 8,
    seed: int = 1,
) -> Tuned:
    """Learn initial states from clips. Afterwards `model` speaks from them; nothing else of it has changed.

    Args:
        held: clips to judge by; nothing is learned from them.
        rank: of the states, at least the base's.
        lr: of Adam, falling to 0 along a line.
    Raises: ValueError: a rank below the base's, or no clips.
    """
    if not clips or not held:
        raise ValueError(f"{len(clips)} clips to learn from and {len(held)} to judge by: both are needed")
    began = time.perf_counter()
    with _seeded(seed):
        start = continued(model, rank)
    model.requires_grad_(False).eval()
    model.speak_from(start.starts.requires_grad_(True))
    one = [clip._replace(speaker=0) for clip in clips]
    judge = collate([clip._replace(speaker=0) for clip in held])
    batches = UtteranceBatches(one, batch_size=min(batch_size, len(one)), seed=seed)
    optimizer = torch.optim.Adam(start.parameters(), lr, betas=(0.9, 0.99))
    before = _judged(model, judge)
    with _seeded(seed):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps)
            optimizer.zero_grad()
            _loss(model, batches.batch(step)).backward()
            optimizer.step()
    after = _judged(model, judge)
    start.requires_grad_(False)
    return Tuned(start, time.perf_counter() - began, before, after)


def _loss(model: Lina, batch: Batch) -> Tensor:
    losses = model.losses(batch)
    return losses["mel"] + CONTOUR_WEIGHT * losses.get("contour", torch.zeros(()))


@torch.no_grad()
def _judged(model: Lina, batch: Batch) -> float:
    with _seeded(0):
        return float(model.losses(batch)["mel"])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global random state, which the prenet's dropout draws from, set for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def read_clips(folder: str | Path, cache: str | Path, held: float) -> tuple[list[Clip], list[Clip], list[Utterance]]:
    """Clips to tune on and to judge by, and the utterances of the latter. Raises ValueError: fewer than 4 clips."""
    data = AcousticData([{"folder": str(folder), "speaker": "clone"}], cache=str(cache), batch_size=1, dev_prompts=0)
    train, _ = data.utterances()
    clips = {}
    if len(train) >= LEAST:
        data.prepare_data()
        clips = {clip.id: clip for clip in data.load(train)}
    usable = [utterance for utterance in train if utterance.id in clips]
    if len(usable) < LEAST:
        count = len(usable if clips else train)
        raise ValueError(f"{folder}: {count} clips that can be used; at least {LEAST} are needed, best some minutes")
    count = max(1, round(held * len(usable)))
    kept, judged = usable[:-count], usable[-count:]
    return [clips[u.id] for u in kept], [clips[u.id] for u in judged], judged


def judge_similarity(
    choice: str, base: Voice, clone: Voice, clips: Sequence[Clip], held: Sequence[Clip], texts: Sequence[str]
) -> similarity.Similarity:
    """Texts spoken by base and clone, beside the speaker's own clips."""
    embed = similarity.encoder(choice)
    rate = base.sample_rate

    def heard(group: Sequence[Clip]) -> list[np.ndarray]:
        return [embed(clip.features.audio.astype(np.float32) / 32767.0, rate) for clip in group]

    spoken = [[embed(voice.synthesize(text).samples, rate) for text in texts] for voice in (base, clone)]
    return similarity.compare(heard(clips), heard(held), *spoken)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate clone", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("clips", metavar="CLIPS", help="folder with metadata.csv (id|text) and wavs/ (wav or flac)")
    add("--base", default="kathleen", metavar="VOICE", help="voice to clone from (default kathleen)")
    add("--model", help="which of its models; its first lina by default")
    add("-o", "--output", required=True, metavar="FOLDER", help="the clone's folder")
    add("--name", help="of the clone, [a-z0-9_-]; the folder's name by default")
    add("--licence", required=True, help="SPDX identifier of the clone's licence; ask the speaker first")
    add("--licence-file", required=True, help="its text")
    add("--description", default="", help="one line about the voice")
    add("--rank", type=int, default=4, help="of the states (default 4)")
    add("--steps", type=int, default=150, help="of learning (default 150)")
    add("--lr", type=float, default=0.03, help="rate of learning (default 0.03)")
    add("--batch-size", type=int, default=8, help="clips a step (default 8)")
    add("--held", type=float, default=0.2, help="share of the clips that judge the result (default 0.2)")
    add("--speaker-encoder", metavar="WHICH", help="'resemblyzer' or an encoder's file: similarity before and after")
    add("--cache", default="runs/features", help="folder for features (default runs/features)")
    add("--threads", type=int, default=1)
    add("--json", metavar="FILE", help="write what was measured")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    try:
        _, about, name, model = load_base(given.base, given.model)
        licence_text = Path(given.licence_file).read_text("utf-8")
        clips, held, judged = read_clips(given.clips, given.cache, given.held)
        tuned = tune(model, clips, held, rank=given.rank, steps=given.steps, lr=given.lr, batch_size=given.batch_size)
        size = save_clone(
            given.output,
            tuned.start,
            given.base,
            name,
            name=given.name or Path(given.output).resolve().name.lower(),
            licence=given.licence,
            licence_text=licence_text,
            description=given.description or f"Cloned from {given.clips} on {about.name}.",
        )
        clone = Voice.load(Path(given.output))
        figures: dict[str, Any] = {
            "base": {"voice": about.name, "model": name, "sha256": about.models[name].sha256},
            "clips": len(clips),
            "seconds_of_speech": sum(len(clip.features.audio) for clip in clips) / clone.sample_rate,
            "held_out_clips": len(held),
            "rank": given.rank,
            "parameters": tuned.parameters,
            "seconds": tuned.seconds,
            "bytes": size,
            "loss_before": tuned.before,
            "loss_after": tuned.after,
        }
        if given.speaker_encoder:
            base = Voice.load(given.base, model=name, front_end=clone.front_end)
            texts = [utterance.text for utterance in judged[:SAID]]
            found = judge_similarity(given.speaker_encoder, base, clone, clips, held, texts)
            figures["speaker_encoder"] = given.speaker_encoder
            figures["similarity"] = {key: value._asdict() for key, value in found._asdict().items()}
    except (ValueError, OSError, RuntimeError) as error:
        print(f"clone: {error}", file=sys.stderr)
        return 1
    print(told(given.output, figures))
    if given.json:
        Path(given.json).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


def told(folder: str | Path, figures: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [
        f"{folder}: {figures['parameters']:,} numbers tuned in {figures['seconds']:.0f} s on {figures['clips']} clips "
        f"({figures['seconds_of_speech'] / 60:.1f} minutes), {figures['bytes'] / 1000:.0f} kB",
        f"held-out loss {figures['loss_before']:.3f} → {figures['loss_after']:.3f} nats a value",
    ]
    if "similarity" in figures:
        cells = [
            f"{name} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
            for name, value in figures["similarity"].items()
        ]
        lines.append(f"similarity to the speaker ({figures['speaker_encoder']}): {', '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
