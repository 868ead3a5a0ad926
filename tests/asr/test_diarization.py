"""Speakers from embeddings: numbered as they appear, bounded memory, and an encoder that can be trained and trusted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.asr.diarization import SpeakerTracker, cluster
from melstate.asr.speaker_encoder import LEAST_SECONDS, SpeakerEncoder
from melstate.vocoders import checkpoint


def voices(speakers, turns, noise, seed=0, dim=32):
    """(embeddings, who): unit vectors around one random direction a speaker."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:speakers]
    who = rng.integers(speakers, size=turns)
    points = centres[who] + rng.normal(0, noise / dim**0.5, (turns, dim))
    return torch.from_numpy(points / np.linalg.norm(points, axis=1, keepdims=True)).float(), who


def in_order(labels):
    """Renamed 0, 1, … by first appearance."""
    names = {}
    return [names.setdefault(int(label), len(names)) for label in labels]


def track(tracker, embeddings, seconds=1.0, state=None):
    state, found = tracker.start() if state is None else state, []
    for embedding in embeddings:
        number, state = tracker.assign(embedding, state, seconds)
        found.append(number)
    return found, state


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10**6))
def test_well_separated_voices_are_told_apart(speakers, turns, seed):
    embeddings, who = voices(speakers, turns, 0.4, seed)
    assert track(SpeakerTracker(32), embeddings)[0] == in_order(who)
    assert cluster(embeddings) == in_order(who)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 100.0))
def test_lengths_of_embeddings_do_not_matter(seed, scale):
    embeddings, _ = voices(4, 20, 0.9, seed)
    assert track(SpeakerTracker(32), embeddings)[0] == track(SpeakerTracker(32), embeddings * scale)[0]
    assert cluster(embeddings) == cluster(embeddings * scale)


def test_the_state_never_grows_and_is_never_changed():
    tracker = SpeakerTracker(32, max_speakers=3)
    embeddings, _ = voices(8, 300, 0.5)
    start = tracker.start()
    found, state = track(tracker, embeddings, state=start)
    assert set(found) == {0, 1, 2} and state.met == 3
    assert [x.shape for x in state[:2]] == [x.shape for x in start[:2]]
    assert not start.sums.any() and start.met == 0
    assert state.weights.max() <= tracker.memory + 1e-3


def test_a_centroid_follows_a_voice_that_changes():
    angles = torch.linspace(0, 2.5, 200)
    drifting = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert set(track(SpeakerTracker(2, threshold=0.8, memory=10), drifting)[0]) == {0}
    assert len(set(track(SpeakerTracker(2, threshold=0.8, memory=1e9), drifting)[0])) > 1


def test_short_stretches_do_not_open_speakers():
    embeddings, who = voices(3, 30, 0.3, seed=1)
    tracker = SpeakerTracker(32, seconds_to_open=0.5)
    assert set(track(tracker, embeddings, seconds=0.3)[0]) == {0}
    assert track(tracker, embeddings, seconds=0.5)[0] == in_order(who)


def test_enrolled_speakers_keep_their_numbers():
    embeddings, who = voices(3, 30, 0.4, seed=2)
    centres = [embeddings[who == n].mean(0) for n in range(3)]
    closed = SpeakerTracker(32, max_speakers=3)
    assert track(closed, embeddings, state=closed.start(centres))[0] == who.tolist()
    with pytest.raises(ValueError, match="3 speakers enrolled, at most 2"):
        SpeakerTracker(32, max_speakers=2).start(centres)


def test_clusters_can_be_limited():
    embeddings, who = voices(5, 60, 0.3, seed=3)
    assert max(cluster(embeddings)) == len(set(who)) - 1
    assert set(cluster(embeddings, max_speakers=2)) == {0, 1}
    assert cluster(embeddings[:1]) == [0] and cluster(embeddings[:0]) == []


def test_impossible_embeddings_are_refused():
    tracker = SpeakerTracker(4)
    for bad in (torch.zeros(4), torch.full((4,), float("nan")), torch.ones(3), torch.full((4,), float("inf"))):
        with pytest.raises(ValueError, match=r"shape \(4,\), finite and not zero"):
            tracker.assign(bad, tracker.start())
    with pytest.raises(ValueError, match="embedding 1 is zero"):
        cluster(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="expected"):
        cluster(torch.ones(3))
    with pytest.raises(ValueError, match="threshold=2"):
        SpeakerTracker(4, threshold=2)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return SpeakerEncoder(dim=16, width=16, joined=24, dilations=(1, 2)).eval()


def test_embeddings_are_unit_whatever_the_level_and_length(encoder):
    audio = torch.randn(24000) * 0.1
    one = encoder.embed(audio)
    assert one.shape == (16,) and float(one.norm()) == pytest.approx(1, abs=1e-5)
    assert float(one @ encoder.embed(audio.numpy() * 5)) > 0.999
    for samples in (1, 7, 100, int(LEAST_SECONDS * 16000) - 1, 40001):
        assert torch.isfinite(encoder.embed(audio[:samples] if samples < 24000 else torch.randn(samples))).all()
    assert torch.isfinite(encoder.embed(torch.zeros(16000))).all()


def test_the_encoder_refuses_what_is_not_speech_audio(encoder):
    for bad in (torch.zeros(0), torch.zeros(2, 100)):
        with pytest.raises(ValueError, match="expected"):
            encoder.embed(bad)
    with pytest.raises(ValueError, match="NaN or infinite"):
        encoder.embed(torch.tensor([0.0, float("nan")]))


def test_a_saved_encoder_embeds_alike(encoder, tmp_path):
    checkpoint.save(tmp_path / "speaker.safetensors", encoder)
    loaded = SpeakerEncoder.load(tmp_path / "speaker.safetensors")
    audio = torch.randn(16000)
    assert torch.equal(loaded.embed(audio), encoder.embed(audio))
