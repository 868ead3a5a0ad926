"""Split a corpus by prompt, so that no sentence of the development set was ever trained on in another take."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from melstate.recipes.data.corpus import Utterance


def prompt_key(text: str) -> str:
    """Letters and digits in lower case: takes of one prompt share it whatever their punctuation."""
    return "".join(c for c in text.casefold() if c.isalnum())


def split_by_prompt(
    utterances: Sequence[Utterance], dev_prompts: int, seed: int = 0
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, dev): dev holds all takes of `dev_prompts` prompts, picked by a hash of seed and prompt.

    The pick does not depend on the order of the rows. Raises ValueError if no prompt would be left to train on.
    """
    keys = {utterance.id: prompt_key(utterance.text) for utterance in utterances}
    prompts = sorted(set(keys.values()), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    if dev_prompts >= len(prompts):
        raise ValueError(f"split: {dev_prompts} dev prompts asked of a corpus with {len(prompts)} prompts")
    held = set(prompts[:dev_prompts])
    train = [utterance for utterance in utterances if keys[utterance.id] not in held]
    dev = [utterance for utterance in utterances if keys[utterance.id] in held]
    return train, dev
