"""Conversations: planned the same from the same seed, kept whole in their manifest, rebuilt alike in any blocks."""

from pathlib import Path

import numpy as np
import pytest

from melstate.recipes.data.conversations import (
    RATE,
    Conversation,
    blocks,
    plan,
    said,
    samples,
    turn_segments,
    words_in_pauses,
    write_audio,
)
from melstate.recipes.data.recordings import Recording
from melstate.recipes.data.waveforms import Waveform


@pytest.fixture(scope="module")
def clips():
    """Six speakers of tones: two say single words, four say sentences."""
    rng, made = np.random.default_rng(0), {}
    for speaker in range(6):
        for number in range(5):
            text = "one" if speaker < 2 else " ".join(["four", "words", "are", "enough"][: 1 + number])
            length = int(RATE * rng.uniform(0.4, 1.2))
            tone = 0.2 * np.sin(2 * np.pi * 200 * (speaker + 1) * np.arange(length) / RATE)
            audio = np.concatenate([np.zeros(800), tone, np.zeros(800)])
            name = f"{number}_speaker{speaker}"
            recording = Recording(name, Path("x.wav"), text, f"speaker{speaker}")
            made[name] = Waveform(recording, (audio * 32767).astype(np.int16), 800, 800 + length)
    return made


@pytest.fixture(scope="module")
def conversation(clips):
    return plan(clips, 12, seed=4)


def test_a_plan_is_its_seeds(clips, conversation):
    assert plan(clips, 12, seed=4) == conversation != plan(clips, 12, seed=5)
    assert 12 * 60 <= samples(conversation, clips) / RATE < 14 * 60
    assert list(conversation.starts) == sorted(conversation.starts)


def test_turns_are_short_and_apart(clips, conversation):
    segments = turn_segments(conversation, clips)
    gaps = [after.start - before.end for before, after in zip(segments, segments[1:], strict=False)]
    assert min(gaps) > 0.09 and np.median(gaps) < 2
    reference = said(conversation, clips)
    by_turn = {}
    for name, turn in zip(conversation.clips, conversation.turns, strict=True):
        by_turn[turn] = by_turn.get(turn, 0) + len(clips[name].recording.text.split())
        assert (
            len(
                {
                    clips[n].recording.speaker
                    for n, t in zip(conversation.clips, conversation.turns, strict=True)
                    if t == turn
                }
            )
            == 1
        )
    assert set(by_turn.values()) <= set(range(1, 9)) and len(by_turn) == len(segments)
    assert sum(by_turn.values()) == len(reference)
    assert all(a.end <= b.start + 1e-6 for a, b in zip(reference, reference[1:], strict=False))
    changes = np.mean([a.speaker != b.speaker for a, b in zip(segments, segments[1:], strict=False)])
    assert 0.7 < changes < 0.9


def test_nobody_speaks_in_long_pauses(clips, conversation):
    kinds = [stretch.kind for stretch in conversation.stretches]
    assert {"silence", "noise"} == set(kinds)
    reference = said(conversation, clips)
    assert words_in_pauses(reference, conversation)[0] == 0
    word = reference[0]._replace(
        start=conversation.stretches[0].start / RATE + 1, end=conversation.stretches[0].start / RATE + 2
    )
    count, minutes = words_in_pauses([word, *reference], conversation)
    assert count == 1 and minutes == pytest.approx(sum(s.end - s.start for s in conversation.stretches) / RATE / 60)
    assert words_in_pauses([], conversation) == (0, minutes)


def test_a_manifest_keeps_everything_in_little(clips, conversation, tmp_path):
    conversation.save(tmp_path / "c.npz")
    assert Conversation.load(tmp_path / "c.npz") == conversation
    assert (tmp_path / "c.npz").stat().st_size < 8000


def test_blocks_of_any_size_make_the_same_audio(clips):
    short = plan(clips, 0.3, seed=1)
    whole = np.concatenate(list(blocks(short, clips, 1e6)))
    assert len(whole) == samples(short, clips) and np.isfinite(whole).all() and np.abs(whole).max() <= 1
    for seconds in (0.37, 5.0):
        np.testing.assert_array_equal(np.concatenate(list(blocks(short, clips, seconds))), whole)


def test_audio_is_where_the_plan_says(clips, conversation, tmp_path):
    short = Conversation(
        1, 4, conversation.clips[:40], conversation.starts[:40], conversation.turns[:40], conversation.stretches[:1]
    )
    write_audio(short, clips, tmp_path / "c.wav")
    import soundfile

    audio, rate = soundfile.read(tmp_path / "c.wav", dtype="float32")
    assert rate == RATE and len(audio) == samples(short, clips)
    background = float(np.sqrt(np.mean(audio[: RATE // 4] ** 2)))
    for segment in turn_segments(short, clips):
        spoken = audio[int(segment.start * RATE) : int(segment.end * RATE)]
        assert np.sqrt(np.mean(spoken**2)) > 3 * background
    (stretch,) = short.stretches
    inside = audio[stretch.start : stretch.end]
    quiet = float(np.sqrt(np.mean(inside**2)))
    assert quiet == 0 if stretch.kind == "silence" else quiet == pytest.approx(10**0.5 * background, rel=0.2)


def test_too_few_speakers_are_refused(clips):
    few = {name: clip for name, clip in clips.items() if clip.recording.speaker in ("speaker0", "speaker1")}
    with pytest.raises(ValueError, match="4 speakers or more, got 2"):
        plan(few, 1, seed=0)
