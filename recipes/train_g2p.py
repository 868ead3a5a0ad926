"""Train the network that pronounces words the dictionary does not hold.

    python -m melstate.recipes.train_g2p CMUDICT_FOLDER --run runs/g2p [--out tts/text/data/g2p.safetensors]

5,000 words, drawn by a fixed seed, are kept out; the error on them is printed after every epoch, and at the end against
the first pronunciation alone too. A run that was stopped goes on after its last finished epoch. One thread is enough.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

from melstate.recipes.compile_lexicon import read_cmudict
from melstate.tts.text import g2p, symbols
from melstate.tts.text.lexicon import Phones

HELD_OUT = 5000
INDEX = {phone: index for index, phone in enumerate(symbols.PHONES, 1)}
Entries = dict[str, list[Phones]]


def split(entries: Entries) -> tuple[Entries, Entries]:
    """Training and held-out words: letters and apostrophes only, long enough for their phones in the slots."""
    usable = {
        word: spoken
        for word, spoken in sorted(entries.items())
        if len(word) > 1 and set(word) <= set(g2p.LETTERS) and 2 * len(spoken[0]) <= g2p.SLOTS * len(word)
    }
    held = set(random.Random(0).sample(list(usable), HELD_OUT))
    return (
        {word: spoken for word, spoken in usable.items() if word not in held},
        {word: spoken for word, spoken in usable.items() if word in held},
    )


def batches(entries: Entries, letters: int, generator: random.Random) -> Iterator[tuple[list[str], list[Phones]]]:
    """Shuffled batches of words of one length, about `letters` letters each; the first pronunciation is the target."""
    by_length: dict[int, list[str]] = {}
    for word in entries:
        by_length.setdefault(len(word), []).append(word)
    groups = []
    for length, words in by_length.items():
        generator.shuffle(words)
        size = max(1, letters // length)
        groups += [words[start : start + size] for start in range(0, len(words), size)]
    generator.shuffle(groups)
    for group in groups:
        yield group, [entries[word][0] for word in group]


def loss(net: g2p.LetterNet, words: list[str], spoken: list[Phones]) -> Tensor:
    """Negative log-likelihood per phone."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(g2p.encode(words)).float()
    targets = torch.tensor([INDEX[phone] for phones in spoken for phone in phones])
    lengths = torch.tensor([len(phones) for phones in spoken])
    slots = torch.full((len(words),), logits.shape[1])
    total = ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), targets, slots, lengths, reduction="sum", zero_infinity=True
    )
    return total / lengths.sum()


def edits(a: Phones, b: Phones) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def without_stress(phones: Iterable[str]) -> Phones:
    """Phones with the stress digits dropped."""
    return tuple(phone.rstrip("012") for phone in phones)


def evaluate(net: g2p.LetterNet, entries: Entries) -> dict[str, float]:
    """Word and phone error in percent, against the nearest listed pronunciation and against the first alone."""
    net.eval()
    guesses = g2p.predict(net, list(entries))
    result = {}
    for stress, view in (("", tuple), ("_no_stress", without_stress)):
        for which in ("any", "first"):
            wrong = errors = phones = 0
            for guess, spoken in zip(guesses, entries.values(), strict=True):
                references = [view(one) for one in (spoken if which == "any" else spoken[:1])]
                distance, length = min((edits(view(guess), reference), len(reference)) for reference in references)
                wrong, errors, phones = wrong + (distance > 0), errors + distance, phones + length
            result[f"wer{stress}_{which}"] = 100 * wrong / len(entries)
            result[f"per{stress}_{which}"] = 100 * errors / phones
    return result


def export(net: g2p.LetterNet, path: Path) -> None:
    """Half-precision safetensors with letters, phones and configuration in the header."""
    header = {
        "kind": net.kind,
        "config": net.config,
        "letters": g2p.LETTERS,
        "slots": g2p.SLOTS,
        "phones": symbols.PHONES,
    }
    tensors = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata={"melstate": json.dumps(header)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CMUDICT_FOLDER")
    parser.add_argument("--run", type=Path, default=Path("runs/g2p"), help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, default=g2p.PATH)
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--letters", type=int, default=2048, help="letters in a batch")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--limit", type=int, help="train on this many words only, to try the recipe")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, held = split(read_cmudict(options.folder / "cmudict.dict"))
    train = dict(list(train.items())[: options.limit])
    net = g2p.LetterNet(dropout=options.dropout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    steps = options.epochs * sum(1 for _ in batches(train, options.letters, random.Random(0)))
    warm_up = max(1, min(300, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))
    )
    options.run.mkdir(parents=True, exist_ok=True)
    checkpoint = options.run / "last.pt"
    parts: dict[str, Any] = {"net": net, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = saved["epochs"]
    print(f"{len(train)} words, {sum(p.numel() for p in net.parameters())} parameters, {steps} steps", flush=True)
    for epoch in range(first, options.epochs):
        net.train()
        started, total, count = time.monotonic(), 0.0, 0
        for words, spoken in batches(train, options.letters, random.Random(epoch)):
            value = loss(net, words, spoken)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total, count = total + value.item(), count + 1
        torch.save(
            {name: part.state_dict() for name, part in parts.items()} | {"epochs": epoch + 1}, f"{checkpoint}.new"
        )
        os.replace(f"{checkpoint}.new", checkpoint)
        errors = {name: round(value, 2) for name, value in evaluate(net, held).items() if name.endswith("any")}
        print(f"epoch {epoch + 1}: loss {total / count:.4f}, {time.monotonic() - started:.0f} s, {errors}", flush=True)
    export(net.half().float(), options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes; {len(held)} held-out words:")
    for name, error in evaluate(net, held).items():
        print(f"  {name}: {error:.2f} %")


if __name__ == "__main__":
    main()
