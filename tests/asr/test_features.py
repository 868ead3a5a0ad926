"""Features are causal and the same however the audio is cut."""

import pytest
import torch

from melstate.asr.features import SPEECH, RunningNorm, log_mel, perturbed_log_mel

CUTS = [[1] * 50 + [3950], [159, 161, 160, 3520], [4000], [0, 400, 0, 3600]]


@pytest.mark.parametrize("cuts", CUTS)
def test_cut_audio_gives_the_frames_of_the_whole(cuts):
    audio = torch.randn(2, sum(cuts)) * 0.1
    whole, kept = log_mel(audio, SPEECH)
    assert whole.shape == (2, sum(cuts) // 160, 80)
    parts, state = [], None
    for piece in audio.split(cuts, dim=1):
        mel, state = log_mel(piece, SPEECH, state)
        parts.append(mel)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    assert torch.equal(state, kept)


def test_a_frame_ends_where_its_hop_ends():
    audio = torch.zeros(1, 1600)
    audio[0, 480] = 1.0  # the first sample of the fourth hop
    mel, _ = log_mel(audio, SPEECH)
    assert (mel[0].amax(1) > mel.amin() + 1).tolist() == [t in (3, 4) for t in range(10)]


def test_unchanged_tempo_and_pitch_are_the_plain_features():
    audio = torch.randn(5000) * 0.1
    torch.testing.assert_close(perturbed_log_mel(audio, SPEECH), log_mel(audio[None], SPEECH)[0][0])


def test_tempo_and_pitch_equal_a_resampled_clip():
    """A tone of 500 Hz read 1.25 times faster is one of 625 Hz, and takes 0.8 of the frames."""
    time = torch.arange(16000) / 16000
    slow, fast = (0.3 * torch.sin(2 * torch.pi * hz * time) for hz in (500, 625))
    perturbed = perturbed_log_mel(slow, SPEECH, tempo=1.25, pitch=1.25)
    target, _ = log_mel(fast[None], SPEECH)
    assert perturbed.shape == (80, 80)
    assert (perturbed[10:] - target[0, 10:80]).abs().amax(0)[target[0, 20] > -4].max() < 0.05
    higher = perturbed_log_mel(slow, SPEECH, pitch=1.25)
    assert len(higher) == 100 and higher[20].argmax() == target[0, 20].argmax()


def test_a_cutoff_leaves_nothing_above():
    mel = perturbed_log_mel(torch.randn(8000), SPEECH, cutoff=3400.0)
    bare = torch.tensor(SPEECH.floor).log()
    assert torch.all(mel[:, -20:] == bare) and torch.all(mel[:, :40] > bare)


@pytest.mark.parametrize("samples", [0, 1, 159])
def test_less_than_a_frame_is_no_frame(samples):
    mel, state = log_mel(torch.ones(1, samples), SPEECH)
    assert mel.shape == (1, 0, 80) and state.shape == (1, 240 + samples)
    assert perturbed_log_mel(torch.ones(samples), SPEECH, tempo=0.9).shape[1] == 80


def test_running_normalisation_sees_nothing_beyond_its_block_and_streams():
    norm = RunningNorm(3, block=4, prior=2.0, memory=40.0)
    x = torch.randn(2, 22, 3) * 3 + 5
    whole, _ = norm(x)
    changed = x.clone()
    changed[:, 8:] += 7
    assert torch.equal(norm(changed)[0][:, :8], whole[:, :8])
    state, parts = None, []
    for piece in x.split([8, 4, 10], dim=1):
        y, state = norm(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_running_normalisation_ignores_padding():
    norm = RunningNorm(3, block=4)
    x = torch.randn(2, 10, 3)
    padded = x.clone()
    padded[1, 6:] = float("nan")
    y, _ = norm(padded, lengths=torch.tensor([10, 6]))
    alone, _ = norm(x[1:, :6])
    torch.testing.assert_close(y[1:, :6], alone)
    assert torch.all(y[1, 6:] == 0)


def test_running_normalisation_takes_loudness_away():
    norm = RunningNorm(2, block=10, prior=1.0)
    x = torch.randn(1, 400, 2)
    near = (norm(x)[0] - norm(x + 4)[0]).abs()
    assert near[:, 200:].max() < 0.1 < near[:, :10].max()


@pytest.mark.parametrize("gap", [-2.0, -6.0])
def test_long_silence_leaves_no_trace_in_the_normalisation(gap):
    """After twenty blocks of silence, before or within speech, speech is normalised as if there had been none."""
    norm = RunningNorm(3, block=20, prior=20.0, memory=300.0).double()
    speech = torch.randn(1, 200, 3, dtype=torch.float64) + 1
    silence = 0.1 * torch.randn(1, 400, 3, dtype=torch.float64) + 1 + gap * norm.STEP
    alone = norm(speech)[0]
    torch.testing.assert_close(norm(torch.cat([silence, speech], 1))[0][:, 400:], alone)
    within = norm(torch.cat([speech, silence, speech], 1))[0]
    torch.testing.assert_close(within[:, :200], alone)
    short = norm(torch.cat([speech, silence[:, : norm.PAUSE * 20], speech], 1))[0]  # a pause counts, as ever
    torch.testing.assert_close(within[:, 600:], short[:, 200 + norm.PAUSE * 20 :])
    assert (short[:, 280:300] - norm(torch.cat([speech, speech], 1))[0][:, 200:220]).abs().max() > 0.1


def test_a_click_in_silence_is_no_speech():
    norm = RunningNorm(3, block=80)
    silence = torch.full((1, 800, 3), -4.0)
    clicked = silence.clone()
    clicked[:, 600:602] = 0.0
    states = [norm(x)[1] for x in (silence, clicked)]
    assert states[1].blocks == states[0].blocks == 10
