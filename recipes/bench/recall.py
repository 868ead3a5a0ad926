"""What each mixer can remember: associative recall, copying and next-frame mel prediction at equal parameters.

    python -m melstate.recipes.bench.recall --out recall.json
    python -m melstate.recipes.bench.recall --task mel --clips FOLDER_OF_AUDIO

Small on purpose: it tells mixers apart in minutes on one core. It does not tell how they scale.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.memory import keep_freed_memory
from melstate.mixers.block import build
from melstate.mixers.mixer import Mixer, names
from melstate.recipes.bench.table import environment, table
from melstate.vocoders import mel, wav

TASKS = "recall", "copy", "mel"
# Not a mixer one would build a model from alone: its memory is its width.
MIXERS = tuple(name for name in names() if name != "short_conv")


def recall_batch(batch: int, generator: torch.Generator, pairs: int = 8) -> tuple[Tensor, Tensor]:
    """Keys and values, then the keys again in another order: each asks for its value.

    Returns: tokens (B, 4 pairs) below 32, and targets of that shape, -100 where nothing is asked.
    """
    keys = torch.rand(batch, 16, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(16, 32, (batch, pairs), generator=generator)
    order = torch.rand(batch, pairs, generator=generator).argsort(1)
    first = torch.stack([keys, values], 2).flatten(1)
    second = torch.stack([keys.gather(1, order), values.gather(1, order)], 2)
    targets = torch.full_like(second, -100)
    targets[..., 0] = second[..., 1]
    return torch.cat([first, second.flatten(1)], 1), torch.cat([torch.full_like(first, -100), targets.flatten(1)], 1)


def copy_batch(batch: int, generator: torch.Generator, length: int = 12) -> tuple[Tensor, Tensor]:
    """Random tokens, a mark, and the tokens again. Shapes as for `recall_batch`, (B, 2 length + 1)."""
    tokens = torch.randint(0, 16, (batch, length), generator=generator)
    mark = torch.full((batch, 1), 16)
    blank = torch.full_like(tokens, -100)
    return torch.cat([tokens, mark, tokens], 1), torch.cat([blank, tokens, torch.full((batch, 1), -100)], 1)


def clips_to_mels(folder: Path, count: int) -> list[Tensor]:
    """(T, n_mels) normalised log-mels of the first `count` audio files, by name."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac", ".mp3", ".ogg"))[:count]
    if len(files) < 10:
        raise ValueError(f"{folder} holds {len(files)} audio files; mel prediction needs at least 10")
    config = mel.MelConfig()
    found = [mel.log_mel(torch.from_numpy(wav.read(p, config.sample_rate)[0]), config).t() for p in files]
    mean, std = torch.cat(found).mean(), torch.cat(found).std()
    return [(x - mean) / std for x in found]


def mel_batch(mels: list[Tensor], batch: int, generator: torch.Generator, frames: int = 128) -> Tensor:
    """(B, frames + 1, n_mels) from random places."""
    usable = [x for x in mels if x.shape[0] > frames]
    rows = []
    for index in torch.randint(len(usable), (batch,), generator=generator).tolist():
        clip = usable[index]
        start = int(torch.randint(clip.shape[0] - frames, (1,), generator=generator))
        rows.append(clip[start : start + frames + 1])
    return torch.stack(rows)


class Model(nn.Module):
    """Tokens or frames in, scores of the next out, around a stack whose GLUs fill up to `parameters` weights."""

    def __init__(self, mixer: str, width: int, *, tokens: int | None, parameters: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"window": 16} if mixer == "window_attention" else {}
        bare = sum(p.numel() for p in build(width, 2, mixer, hidden=0, **options).parameters())
        # Two GLUs of 3·width·hidden weights, their biases and norms.
        hidden = round((parameters - bare - 4 * width) / (2 * (3 * width + 2)))
        if hidden < 1:
            raise ValueError(f"{mixer} alone has {bare} parameters at width {width}, more than {parameters}")
        self.stack = build(width, 2, mixer, hidden=hidden, **options)
        self.enter = nn.Embedding(tokens, width) if tokens else nn.Linear(80, width)
        self.leave = nn.Linear(width, tokens or 80)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.stack(self.enter(x))[0])


def measure(task: str, mixer: str, steps: int, mels: list[Tensor], seed: int = 0) -> dict[str, object]:
    """Trains one model and returns its held-out loss with what it costs."""
    torch.manual_seed(seed)
    generator, held_out = torch.Generator().manual_seed(seed + 1), torch.Generator().manual_seed(seed + 2)
    width, batch = (96, 8) if task == "mel" else (64, 32)
    model = Model(mixer, width, tokens=None if task == "mel" else 32, parameters=400_000 if task == "mel" else 150_000)
    split = len(mels) * 9 // 10

    def score(generator: torch.Generator, rows: int, training: bool) -> tuple[Tensor, float, int]:
        if task == "mel":
            frames = mel_batch(mels[:split] if training else mels[split:], rows, generator)
            guess = model(frames[:, :-1])
            return F.l1_loss(guess, frames[:, 1:]), math.nan, guess.shape[0] * guess.shape[1]
        tokens, targets = (recall_batch if task == "recall" else copy_batch)(rows, generator)
        guess = model(tokens)
        asked = targets != -100
        right = (guess.argmax(-1) == targets)[asked].float().mean()
        return F.cross_entropy(guess.flatten(0, 1), targets.flatten()), float(right), tokens.numel()

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    count, begun = 0, time.process_time()
    for _ in range(steps):
        loss, _, tokens = score(generator, batch, True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        count += tokens
    spent = time.process_time() - begun
    with torch.no_grad():
        loss, accuracy, _ = score(held_out, 64, False)
    return {
        "task": task,
        "mixer": mixer,
        "loss": round(float(loss), 4),
        "accuracy": None if math.isnan(accuracy) else round(accuracy, 3),
        "parameters": sum(p.numel() for p in model.stack.parameters()),
        "state_bytes": _state_bytes(model),
        "train_tokens_per_cpu_second": round(count / spent),
        "steps": steps,
    }


def _state_bytes(model: Model) -> int | None:
    """Of the whole stack for one stream; None where it grows."""
    layers = [m for m in model.stack.modules() if isinstance(m, Mixer)]
    return model.stack.state_bytes() if all(layer.constant_state for layer in layers) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all that need no clips")
    parser.add_argument("--mixer", choices=MIXERS, action="append", help="default: all")
    parser.add_argument("--clips", type=Path, help="folder of audio for the mel task")
    parser.add_argument("--count", type=int, default=60, help="clips to read")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON; rows of other tasks and mixers already in it are kept")
    arguments = parser.parse_args()
    tasks = arguments.task or [task for task in TASKS if task != "mel" or arguments.clips]
    if "mel" in tasks and arguments.clips is None:
        parser.error("--task mel needs --clips FOLDER")
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    mels = clips_to_mels(arguments.clips, arguments.count) if "mel" in tasks else []
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out and arguments.out.exists() else []
    for task in tasks:
        for mixer in arguments.mixer or MIXERS:
            row = measure(task, mixer, arguments.steps, mels)
            print(row, flush=True)
            rows = [r for r in rows if (r["task"], r["mixer"]) != (task, mixer)] + [row]
            if arguments.out:
                arguments.out.write_text(json.dumps({**environment("cpu"), "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
