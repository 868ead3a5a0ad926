"""Random conversations with a noisy transcript each, the same on every machine, and what meeteval says of them.

python tests/asr/conversation_cases.py     # needs meeteval; rewrites meeteval_answers.json
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

ANSWERS = Path(__file__).parent / "meeteval_answers.json"
COLLARS = (0.5, 5.0)
CASES = 40


class Said(NamedTuple):
    text: str
    start: float
    end: float
    speaker: str


def pick(random_number, items):
    return items[int(random_number() * len(items))]


def conversation(seed):
    """(reference, hypothesis): 1-4 speakers, at most 60 words, dropped, changed, repeated, late, misattributed."""
    number = random.Random(seed).random  # random() alone is the same in every Python
    speakers, vocabulary = "abcd"[: 1 + int(number() * 4)], ["one", "two", "three", "four", "five"]
    reference, hypothesis, now, speaker = [], [], 0.0, speakers[0]
    for _ in range(int(number() * 60)):
        if number() < 0.25:
            speaker, now = pick(number, speakers), now + 2 * number()
        said = Said(pick(number, vocabulary), round(now, 3), round(now + 0.1 + number() / 2, 3), speaker)
        now = said.end
        reference.append(said)
        late = 3 * number() if number() < 0.1 else 0.3 * number()
        who = said.speaker.upper() if number() < 0.9 else pick(number, "ABCDE")
        what = said.text if number() < 0.8 else pick(number, vocabulary)
        for _ in range(0 if number() < 0.1 else 1 + (number() < 0.1)):
            hypothesis.append(Said(what, round(said.start + late, 3), round(said.end + late, 3), who))
    return reference, sorted(hypothesis, key=lambda word: word.start)


def ask_meeteval(reference, hypothesis):
    """[cpWER errors, tcpWER errors for each collar] as meeteval counts them."""
    import meeteval
    from meeteval.io.seglst import SegLST

    def rows(said):
        return SegLST(
            [
                {"session_id": "s", "speaker": w.speaker, "words": w.text, "start_time": w.start, "end_time": w.end}
                for w in said
            ]
        )

    r, h = rows(reference), rows(hypothesis)
    answers = [meeteval.wer.wer.cp.cp_word_error_rate(r, h).errors]
    for collar in COLLARS:
        options = {
            "collar": collar,
            "reference_pseudo_word_level_timing": None,
            "hypothesis_pseudo_word_level_timing": None,
        }
        found = meeteval.wer.wer.time_constrained.time_constrained_minimum_permutation_word_error_rate(r, h, **options)
        answers.append(found.errors)
    return answers


if __name__ == "__main__":
    import importlib.metadata

    cases = [ask_meeteval(*conversation(seed)) for seed in range(CASES)]
    ANSWERS.write_text(json.dumps({"meeteval": importlib.metadata.version("meeteval"), "errors": cases}) + "\n")
