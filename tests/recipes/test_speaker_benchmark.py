"""Speaker labels of known turns: what is counted as wrong."""

import pytest
import torch

from melstate.asr.diarization_error import Segment
from melstate.recipes.bench.speakers import SYSTEMS, Labelled, label, table
from melstate.recipes.data.conversations import SaidWord


@pytest.fixture
def conversation():
    """Four turns of two seconds; x says three words a turn, y one."""
    turns = [Segment(2.0 * n, 2.0 * n + 1, who) for n, who in enumerate("xyxy")]
    spoken = []
    for turn in turns:
        count = 3 if turn.speaker == "x" else 1
        for n in range(count):
            spoken.append(SaidWord("word", turn.start + n / count, turn.start + (n + 1) / count, turn.speaker))
    return turns, spoken


@pytest.mark.parametrize(
    ("labels", "wrong", "found"),
    [([0, 1, 0, 1], 0, 2), ([7, 3, 7, 3], 0, 2), ([0, 0, 0, 0], 2, 1), ([0, 1, 2, 1], 3, 3), ([0, 1, 0, 2], 1, 3)],
)
def test_words_of_wrong_turns_are_counted_under_the_best_map(conversation, labels, wrong, found):
    turns, spoken = conversation
    row = Labelled("online", 1)
    row.add(turns, spoken, labels)
    summary = row.summary()
    assert summary["speaker_error"]["value"] == wrong / 8
    assert (summary["speakers_found"], summary["speakers"], summary["words"]) == (found, 2, 8)
    # Turns are equally long, and every wrong one is one of four.
    wrong_turns = {0: 0, 2: 2, 3: 1, 1: 1}[wrong]
    assert summary["diarization_error"] == pytest.approx(wrong_turns / 4)
    assert "online" in table([{"threshold": 0.5} | summary])


def test_enrolled_speakers_are_compared_by_name(conversation):
    turns, spoken = conversation
    row = Labelled("enrolled", 1)
    row.add(turns, spoken, ["y", "x", "y", "x"])
    assert row.summary()["speaker_error"]["value"] == 1


def test_every_system_labels_voices_that_are_far_apart():
    axes = torch.eye(3)
    embeddings = [axes[n] + 0.05 * torch.ones(3) for n in (0, 1, 0, 2, 1)]
    for system in SYSTEMS:
        assert label(system, embeddings, [1.0] * 5, list(axes), 0.5) == [0, 1, 0, 2, 1], system
