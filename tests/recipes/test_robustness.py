"""The benchmarks of steadiness: slips are told from mumbling, the sentences are there, a tiny voice goes through."""

import json

import pytest
import torch

from melstate.recipes.bench import robustness, steady
from melstate.recipes.reader import words


@pytest.mark.parametrize(
    ("written", "read", "missed", "skip", "repeat"),
    [
        ("a b c d e f", "a b c d e f", 0, 0, 0),
        ("a b c d e f", "a e f", 3, 3, 0),
        ("a b c d e f", "a c e f", 2, 1, 0),
        ("a b c d e f", "a b c b c d e f", 0, 0, 2),
        ("a b c d e f", "a b c x y d e f", 0, 0, 0),
        ("a b", "", 2, 2, 0),
    ],
)
def test_slips_are_runs_of_words(written, read, missed, skip, repeat):
    found = robustness.slips(written, read)
    assert (found.words, found.missed, found.longest_skip, found.longest_repeat) == (
        len(written.split()),
        missed,
        skip,
        repeat,
    )


def test_nothing_written_is_refused():
    with pytest.raises(ValueError, match="without words"):
        robustness.slips("", "a")


def test_there_are_a_hundred_sentences_that_can_all_be_compared():
    sentences = robustness.SENTENCES.read_text("utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 100
    counts = [len(words(sentence).split()) for sentence in sentences]
    assert min(counts) >= 1 and sum(count > 50 for count in counts) >= 25


def test_a_voice_is_listened_to(tiny):
    class Deaf:
        def read(self, samples, rate):
            return "hello there"

    found = robustness.listen(tiny, ["Hello there.", "No no no no no."], Deaf(), None, 0)
    assert found["skipping"] == 0.5 and found["missed"] == pytest.approx(3 / 7) and found["coverage"]["complete"]
    assert "skipping" in robustness.table({"tiny": found})
    json.dumps(found)


def test_steadiness_is_measured(tiny):
    found = steady.measure(tiny, 0.05)
    assert 0 < found["minutes"] < 0.2 and found["last_symbol"] == found["symbols"] - 1 and found["ratio"] > 0
    assert found["tensor_bytes_at_the_end"] > 4 * sum(p.numel() for p in tiny.acoustic.parameters())


def test_tensors_are_counted_once():
    before = steady.tensor_bytes()
    held = torch.zeros(1000, 1000)
    view = held[:10]
    assert steady.tensor_bytes() - before == 4_000_000 and view is not None
