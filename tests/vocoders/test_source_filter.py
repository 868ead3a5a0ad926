import pytest
import torch

from melstate.vocoders.checkpoint import read, restore, save
from melstate.vocoders.consistency import MelConsistency
from melstate.vocoders.excitation import noise, pulse_train
from melstate.vocoders.f0 import PitchEstimator, PitchLogits
from melstate.vocoders.mel import MelConfig, log_mel
from melstate.vocoders.source_filter import SourceFilter, envelope_matrix
from melstate.vocoders.spectral import overlap_add
from melstate.vocoders.vocoder import VocoderBatch


def small(**options) -> SourceFilter:
    torch.manual_seed(0)
    return SourceFilter(**{"dim": 24, "layers": 2, "pitch_dim": 16, "pitch_layers": 2, **options}).eval()


def speech_like(frames, batch=1):
    return -4 + 1.5 * torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(0))


def whole(vocoder, mel, f0, lead):
    """The definition: every layer over the whole utterance at once. `lead`: intervals before the first frame over which
    the tiles have already run the phase."""
    frames = mel.shape[2]
    around = torch.cat([f0[:, :1].expand(-1, lead), f0, f0[:, -1:].expand(-1, 2)], 1)
    pulses, _ = pulse_train(around, torch.zeros(len(mel), dtype=torch.float64), 256, 22050)
    pulses = pulses[:, lead - 2 :]
    hiss = noise(-2, frames + 3, 256, vocoder.seed, mel.device).expand_as(pulses)
    voiced = f0 > 0
    tone = torch.where(voiced, (f0.clamp(min=1) / 200).log(), 0.0)
    features = torch.cat([(mel.mT + 5) / 2, tone[..., None], voiced[..., None].float()], 2)
    windows = vocoder._windows(mel.mT, vocoder.trunk(features), pulses, hiss)
    power = overlap_add(vocoder.window.square().expand(1, frames, -1), 4).clamp(min=1e-3)
    audio = overlap_add(windows, 4) / power
    for _ in range(vocoder.corrections):
        audio = overlap_add(vocoder.consistency.windows(audio, mel.mT, vocoder.window), 4) / power
    return audio.flatten(1)[:, 384:-384].clamp(-1, 1)


@torch.no_grad()
@pytest.mark.parametrize("corrections", [0, 1, 3])
def test_tiles_compute_the_definition(corrections):
    vocoder, mel = small(corrections=corrections), speech_like(75, 2)
    vocoder.tile = 32
    f0 = vocoder.estimate_f0(mel)
    assert 0 < float((f0 > 0).float().mean()) < 1
    expected = whole(vocoder, mel, f0, vocoder.pitch.trunk.lookahead + 1)
    torch.testing.assert_close(vocoder(mel), expected, atol=2e-4, rtol=0)


@torch.no_grad()
def test_f0_overrides_the_estimate():
    vocoder, mel = small(), speech_like(75)
    f0 = vocoder.estimate_f0(mel)
    own, given, other = vocoder(mel), vocoder(mel, f0), vocoder(mel, 1.5 * f0)
    # The same pulses but for the phase at which they start, so the same envelope.
    assert float((log_mel(own, vocoder.mel) - log_mel(given, vocoder.mel)).abs().mean()) < 0.3
    assert not torch.allclose(given, other, atol=1e-2)
    pieces, state = [], None
    for at in range(0, 75, 10):
        part, state = vocoder.stream(mel[..., at : at + 10], state, final=at == 70, f0=f0[:, at : at + 10])
        pieces.append(part)
    assert torch.equal(torch.cat(pieces, 1), given)


def test_the_filter_starts_from_the_envelope_of_the_mel():
    """Before any training, noise comes out with about the mel that was asked for."""
    config = MelConfig()
    vocoder = small()
    torch.nn.init.zeros_(vocoder.head.weight)
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 200 * 256, generator=generator)
    audio = torch.cumsum(audio - audio.mean(), 1) * 0.002  # pink enough to have a slope
    mel = log_mel(audio, config)
    again = log_mel(vocoder(mel, torch.zeros(1, 200)), config)
    difference = (again - mel)[..., 5:-5].mean(2)
    assert float(difference.abs().max()) < 0.8 and float(difference.abs().mean()) < 0.25


def test_flat_noise_is_closer_to_the_mel_it_was_asked_for():
    """The filter is all that says how loud a frequency is, so the copy of noise is a better one; phases stay random."""
    generator = torch.Generator().manual_seed(0)
    mel = log_mel(0.1 * torch.randn(1, 100 * 256, generator=generator), MelConfig())
    errors = []
    for flat in (False, True):
        vocoder = small(flat_noise=flat)
        torch.nn.init.zeros_(vocoder.head.weight)
        audio = vocoder(mel, torch.zeros(1, 100))
        again = log_mel(audio, vocoder.mel)
        errors.append(float((again - mel)[..., 5:-5].std()))
        assert abs(float((again - mel)[..., 5:-5].mean())) < 0.25
        # Noise still: no sample tells the next period's.
        shifted = float((audio[0, 2560:20480] * audio[0, 2560 - 512 : 20480 - 512]).mean() / audio.square().mean())
        assert abs(shifted) < 0.2
    assert errors[1] < 0.8 * errors[0]


@torch.no_grad()
def test_corrections_come_closer_to_the_mel():
    """Each step; silence below the floor, digital zero included, stays finite."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 100 * 256, generator=generator).cumsum(1) * 0.002
    audio[:, 40 * 256 : 60 * 256] = 0
    mel = log_mel(audio, MelConfig())
    errors = []
    for corrections in range(4):
        made = small(corrections=corrections)(mel)
        assert bool(made.isfinite().all())
        errors.append(float((log_mel(made, MelConfig()) - mel).abs().mean()))
    assert all(after < 0.9 * before for before, after in zip(errors, errors[1:], strict=False)), errors


def test_a_correction_that_cannot_converge_is_refused():
    with pytest.raises(ValueError, match="above 0 and below 2, got 2"):
        MelConsistency(MelConfig(), strength=2.0)


def test_envelope_matrix_interpolates():
    matrix, _ = envelope_matrix(MelConfig())
    torch.testing.assert_close(matrix.sum(0), torch.ones(513))
    assert float(matrix.min()) >= 0


def test_training_form_reaches_every_parameter():
    vocoder = small()
    f0 = torch.full((2, 20), 200.0)
    f0[:, ::3] = 0
    audio, losses = vocoder.generate(VocoderBatch(speech_like(20, 2), torch.zeros(2, 20 * 256), f0))
    assert audio.shape == (2, 20 * 256)
    (audio.square().mean() + sum(losses.values())).backward()
    for name, parameter in vocoder.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_pitch_is_decoded_between_bins():
    estimator = PitchEstimator(80, 8, 1, 3, 1, 128, 50.0, 800.0)
    f0 = torch.tensor([[60.0, 123.4, 222.2, 700.0]])
    step = estimator.centres[1] - estimator.centres[0]
    logits = -0.5 * ((f0.log()[..., None] - estimator.centres) / step).square()
    torch.testing.assert_close(estimator.log_f0(logits).exp(), f0, rtol=2e-3, atol=0)
    losses = estimator.losses(PitchLogits(logits, torch.full((1, 4), 9.0)), f0)
    assert float(losses["f0_l1"]) < 2e-3 and float(losses["voicing"]) < 1e-3
    off = estimator.losses(PitchLogits(logits, torch.full((1, 4), 9.0)), 2 * f0)
    assert float(off["f0_bins"]) > float(losses["f0_bins"]) + 1
    silent = estimator.losses(PitchLogits(logits, torch.full((1, 4), -9.0)), torch.zeros(1, 4))
    assert float(silent["f0_bins"]) == 0 and float(silent["voicing"]) < 1e-3


def test_pitch_can_be_learned_from_mels():
    """Pulse trains of known F0, seen only as mels."""
    torch.manual_seed(0)
    config = MelConfig()
    estimator = PitchEstimator(80, 32, 1, 5, 1, 64, 60.0, 500.0)
    optimizer = torch.optim.AdamW(estimator.parameters(), 5e-3)
    for number in range(80):
        f0 = 100 * 3 ** torch.rand(8, 1).expand(8, 25)
        pulses, _ = pulse_train(f0, torch.zeros(8, dtype=torch.float64), 256, 22050)
        mel = log_mel(0.05 * pulses.flatten(1), config)
        logits = estimator((mel.mT + 5) / 2)
        losses = estimator.losses(logits, f0[:, 1:])
        if number < 79:
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    assert float(losses["f0_l1"].detach()) < 0.03


def test_checkpoint_round_trip(tmp_path):
    vocoder, mel = small(seed=5), speech_like(20)
    save(tmp_path / "v.safetensors", vocoder)
    saved = read(tmp_path / "v.safetensors")
    assert saved.kind == "source_filter"
    again = SourceFilter(**saved.config).eval()
    restore(again, saved)
    assert torch.equal(again(mel), vocoder(mel))
    assert not torch.equal(small(seed=6)(mel), vocoder(mel))


def test_contracts_that_cannot_be_framed_are_refused():
    with pytest.raises(ValueError, match="even multiple"):
        SourceFilter(MelConfig(hop=300).to_dict())
    for corrections in (-1, 17):
        with pytest.raises(ValueError, match=f"in 0..16, got {corrections}"):
            small(corrections=corrections)
    with pytest.raises(ValueError, match="looks 1 frames ahead"):
        small(kernel=3, lookahead=0)
