"""The delay of words in a stream is counted from their end to where they first stand as they stay."""

import numpy as np
import pytest

from melstate.recipes.bench.streaming import delays, summary


def test_words_are_shown_within_a_chunk_and_final_after_the_pause(recognizer, speak):
    audio, spoken = speak(["a", "b", 1.2, "c", "b", "a", 2.0])
    found = delays(recognizer, [audio[:20000], audio[20000:]], 0.1)
    chunk = recognizer.parts.model.encoder.chunk * 0.04
    assert len(found.shown) == len(found.settled) == len(found.final) == len(spoken) == 5
    # A word is heard when its chunk is full, one block and the front end's reach after that at most.
    assert max(found.shown) < chunk + 0.2 + found.computing
    for shown, settled, final in zip(found.shown, found.settled, found.final, strict=True):
        assert 0 <= shown <= settled <= final
    assert max(found.final) > recognizer.decoding.pause
    assert 0 < found.computing < 60


def test_nothing_said_has_no_delay(recognizer):
    assert delays(recognizer, [np.zeros(16000, np.float32)], 0.1)[:3] == ([], [], [])
    assert summary([0.0, 1.0, 2.0]) == pytest.approx({"median": 1.0, "p95": 1.9, "most": 2.0, "within_a_second": 2 / 3})
