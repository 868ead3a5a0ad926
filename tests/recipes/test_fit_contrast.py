"""The command compares a voice with its recordings and writes what it found into the voice."""

from pathlib import Path

import numpy as np
import pytest
import tiny_voice
import torch

from melstate.recipes.fit_contrast import fit, main
from melstate.tts import manifest
from melstate.tts.contrast import cepstral_rows
from melstate.tts.voice import Voice

SPEECH = Path(__file__).parents[1] / "speech"


def test_a_voice_is_given_contrast_and_loses_it_again(tiny, tiny_kinds, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("melstate.tts.text.FrontEnd", lambda lexicon=None: tiny_voice.TinyFrontEnd())
    folder = tmp_path / "voice"
    tiny.save(folder)
    options = [str(folder), str(SPEECH), "--dev-prompts", "1", "--prompts", "3", "--coefficients", "4"]
    assert main(options) == 0
    assert "model 'tiny_acoustic', gains" in capsys.readouterr().out
    found = manifest.read(folder).models["tiny_acoustic"].contrast
    assert found is not None and len(found.gains) == 4 and len(set(found.gains)) > 1
    assert Voice.load(folder).contrast == found
    assert main([*options, "--amount", "0"]) == 0
    assert manifest.read(folder).models["tiny_acoustic"].contrast is None
    for wrong in (["--model", "other"], ["--coefficients", "80"], ["--amount", "-1"]):
        with pytest.raises(SystemExit):
            main([*options, *wrong])
    assert manifest.read(folder).models["tiny_acoustic"].contrast is None


ROWS = cepstral_rows(80).numpy()


def speech_like(seed):
    """Loud frames whose cepstra vary less and less with their order, then a tenth of silence."""
    rng = np.random.default_rng(seed)
    cepstra = rng.standard_normal((80, 4000)) * 3 / np.sqrt(1 + np.arange(80))[:, None]
    cepstra[0] -= 4 * np.sqrt(80)
    mel = ROWS.T @ cepstra
    mel[:, -400:] = -11.4
    return mel


def test_a_fit_restores_what_was_flattened():
    """A model whose cepstra have shrunk by known factors, speaking other sentences than those recorded."""
    recorded, other = speech_like(0), speech_like(1)
    shrink = np.ones((80, 1))
    shrink[1:11] = np.linspace(1, 0.5, 10)[:, None]
    cepstra = ROWS @ other
    loud = other.mean(0) > -8
    flat = np.where(loud, ROWS.T @ (shrink * cepstra), other)
    found = fit([flat], [recorded], coefficients=12, amount=1.0)
    np.testing.assert_allclose(found.gains[:10], 1 / shrink[1:11, 0], rtol=0.06)
    assert fit([flat], [recorded], coefficients=12, amount=2.0).gains[8] > found.gains[8] ** 1.9
    again = found.apply(torch.from_numpy(flat), 1e-5).numpy()
    spreads = [(ROWS @ x[:, loud]).std(1) for x in (again, other)]
    np.testing.assert_allclose(spreads[0][1:13], spreads[1][1:13], rtol=0.06)


def test_what_cannot_be_fitted_is_refused():
    mel = speech_like(0)
    for spoken, options, message in (
        ([], {}, "needs mels"),
        ([mel], {"coefficients": 80}, "coefficients < 80"),
        ([mel[:, :50]], {}, "frames of speech"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(spoken, [mel], **options)
