"""Contrast is an affine map of each frame that gives mels the spread they were asked for, and leaves silence alone."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_voice
import torch
import yaml

from melstate.tts import manifest
from melstate.tts.contrast import Contrast, cepstral_rows
from melstate.tts.manifest import VoiceError
from melstate.tts.voice import Voice

BANDS, FLOOR = 80, 1e-5
SPEECH = Contrast((1.0, 1.5, 2.0), (3.0, -1.0, 0.5), -8.0)


ROWS = cepstral_rows(BANDS).numpy()


def speech_like(frames, seed=0):
    """Loud frames whose cepstra vary less and less with their order, then a tenth of silence."""
    rng = np.random.default_rng(seed)
    cepstra = rng.standard_normal((BANDS, frames)) * 3 / np.sqrt(1 + np.arange(BANDS))[:, None]
    cepstra[0] -= 4 * np.sqrt(BANDS)
    mel = ROWS.T @ cepstra
    mel[:, -frames // 10 :] = -11.4
    return mel


def test_the_cepstrum_is_an_orthonormal_dct():
    from scipy.fft import dct

    mel = speech_like(5)
    np.testing.assert_allclose(ROWS @ mel, dct(mel, axis=0, norm="ortho"), atol=1e-12)


def test_each_coefficient_is_spread_about_its_mean():
    mel = torch.from_numpy(speech_like(200)[:, :150])
    changed = SPEECH.apply(mel, FLOOR)
    before, after = (ROWS @ x.numpy() for x in (mel, changed))
    expected = before.copy()
    for row, (gain, mean) in enumerate(zip(SPEECH.gains, SPEECH.means, strict=True), start=1):
        expected[row] = mean + gain * (before[row] - mean)
    np.testing.assert_allclose(after, expected, atol=0.01)  # these frames count for all but a thousandth


def test_silence_stays_and_the_floor_holds():
    silent = torch.full((BANDS, 7), -11.4)
    torch.testing.assert_close(SPEECH.apply(silent, FLOOR), silent, atol=0.02, rtol=0)
    strong = Contrast((4.0,), (-50.0,), -20.0)
    assert float(strong.apply(torch.full((BANDS, 3), -9.0), FLOOR).min()) == pytest.approx(np.log(FLOOR))


def test_frames_do_not_know_their_neighbours():
    mel = torch.from_numpy(speech_like(100)).float()
    whole = SPEECH.apply(mel, FLOOR)
    for size in (1, 7, 32):
        assert torch.equal(torch.cat([SPEECH.apply(part, FLOOR) for part in mel.split(size, dim=1)], 1), whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1.0,), (0.0, 1.0), -8.0), "1 gains and 2 means"),
        (((), (), -8.0), "0 gains"),
        (((float("nan"),), (0.0,), -8.0), "finite"),
        (((11.0,), (0.0,), -8.0), "0..10, got 11"),
    ],
)
def test_impossible_contrasts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Contrast(*arguments)


def test_more_coefficients_than_bands_are_refused():
    with pytest.raises(ValueError, match="fewer than bands"):
        SPEECH.apply(torch.zeros(3, 5), FLOOR)


def test_a_voice_keeps_and_uses_its_contrast(tiny, tiny_kinds, tmp_path):
    voice = Voice.load(saved(tiny, tmp_path / "plain"), front_end=tiny_voice.TinyFrontEnd())
    assert voice.contrast is None
    voice.contrast = Contrast((2.0,) * 5, (0.5,) * 5, -30.0)
    voice.save(tmp_path / "sharp")
    again = Voice.load(tmp_path / "sharp", front_end=tiny_voice.TinyFrontEnd())
    assert again.contrast == voice.contrast
    said = voice.synthesize("One two. Three").samples
    np.testing.assert_array_equal(again.synthesize("One two. Three").samples, said)
    voice.contrast = None
    assert not np.array_equal(voice.synthesize("One two. Three").samples, said)
    again.contrast = replace(again.contrast, gains=(1.0,) * 5)
    np.testing.assert_allclose(
        again.synthesize("One two. Three").samples, voice.synthesize("One two. Three").samples, atol=1e-4
    )


@pytest.mark.parametrize("wrong", [3, {"gains": [1.0]}, {"gains": ["a"], "means": [0.0], "quiet": -8.0}])
def test_a_malformed_contrast_is_refused(tiny, tiny_kinds, tmp_path, wrong):
    folder = saved(tiny, tmp_path / "voice")
    values = yaml.safe_load((folder / "voice.yaml").read_text())
    next(iter(values["models"].values()))["contrast"] = wrong
    (folder / "voice.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(VoiceError, match="contrast"):
        manifest.read(folder)


def saved(voice, folder):
    voice.save(folder)
    return folder
