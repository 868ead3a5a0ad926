"""Streams equal offline bit for bit, for every vocoder and any chunks."""

import resource

import pytest
import torch

from melstate.vocoders.hifigan import V3, HiFiGAN, ISTFTNet
from melstate.vocoders.istft import Vocos
from melstate.vocoders.melgan import MelGAN
from melstate.vocoders.source_filter import SourceFilter

KINDS = {
    "source_filter": lambda: SourceFilter(dim=24, layers=3, pitch_dim=16, pitch_layers=2),
    "source_filter wide": lambda: SourceFilter(
        dim=16, layers=2, kernel=5, lookahead=2, pitch_dim=16, pitch_layers=1, flat_noise=True, corrections=2
    ),
    "hifigan": lambda: HiFiGAN(channels=16),
    "hifigan V3": lambda: HiFiGAN(**{**V3, "channels": 16}),
    "hifigan bf16": lambda: HiFiGAN(channels=16).for_inference("bf16"),
    "source_filter bf16": lambda: SourceFilter(dim=24, layers=3, pitch_dim=16, pitch_layers=2).for_inference("bf16"),
    "vocos bf16": lambda: Vocos(dim=24, layers=2).for_inference("bf16"),
    "istftnet": lambda: ISTFTNet(channels=16),
    "melgan": lambda: MelGAN(channels=32),
    "multi-band melgan": lambda: MelGAN(channels=32, strides=(8, 4, 2), stacks=4, bands=4),
    "vocos": lambda: Vocos(dim=24, layers=2),
}


def build(name):
    torch.manual_seed(0)
    vocoder = KINDS[name]().eval()
    for parameter in vocoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3 / max(1.0, parameter[0].numel() ** 0.5))
    vocoder.tile = 16
    return vocoder


def speech_like(frames, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return -4 + 1.5 * torch.randn(batch, 80, frames, generator=generator)


def chunked(vocoder, mel, sizes, f0=None):
    state, at, pieces = None, 0, []
    for size in sizes:
        part = None if f0 is None else f0[:, at : at + size]
        audio, state = vocoder.stream(mel[..., at : at + size], state, f0=part)
        pieces.append(audio)
        at += size
    part = None if f0 is None else f0[:, at:]
    audio, state = vocoder.stream(mel[..., at:], state, final=True, f0=part)
    assert state is None
    return torch.cat([*pieces, audio], 1)


CHUNKS = {
    "1": [1] * 24,
    "3": [3] * 15,
    "7": [7] * 8,
    "32": [32],
    "ragged": [0, 5, 1, 0, 20, 2, 17],
    "all at once, then flush": [61],
}


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", KINDS)
def test_any_chunks_give_the_same_samples(name, chunks):
    vocoder, mel = build(name), speech_like(61)
    whole = vocoder(mel)
    assert whole.shape == (1, 61 * vocoder.mel.hop)
    assert float(whole.abs().max()) > 1e-3
    assert torch.equal(chunked(vocoder, mel, CHUNKS[chunks]), whole)


@pytest.mark.parametrize("name", KINDS)
def test_a_chunk_gives_all_that_its_frames_determine(name):
    """Later frames change none of the samples given out."""
    vocoder, mel = build(name), speech_like(60)
    # An estimated F0 may happen not to change, so it is given where it can be.
    f0 = torch.full((1, 60), 150.0) if vocoder.takes_f0 else None
    early, _ = vocoder.stream(mel[..., :45], f0=None if f0 is None else f0[:, :45])
    assert early.shape[1] == 45 * vocoder.mel.hop - vocoder.delay(80 if f0 is None else 81)
    other = mel.clone()
    other[..., 45:] += 2
    changed = vocoder(other, f0) != vocoder(mel, f0)
    first = int(changed.nonzero()[0, 1])
    assert early.shape[1] <= first


@pytest.mark.parametrize("frames", [0, 1, 16, 17])
@pytest.mark.parametrize("name", KINDS)
def test_short_input(name, frames):
    vocoder, mel = build(name), speech_like(frames, batch=2)
    audio = vocoder(mel)
    assert audio.shape == (2, frames * vocoder.mel.hop)
    assert bool(audio.isfinite().all())
    assert torch.equal(chunked(vocoder, mel, [1] * frames), audio)
    assert vocoder.stream(mel[..., :0])[0].shape == (2, 0)


@pytest.mark.parametrize("name", KINDS)
def test_utterances_of_a_batch_do_not_mix(name):
    vocoder, mel = build(name), speech_like(40, batch=2)
    torch.testing.assert_close(vocoder(mel)[1:], vocoder(mel[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_states_are_not_mutated(name):
    vocoder, mel = build(name), speech_like(50)
    _, state = vocoder.stream(mel[..., :37])
    once = vocoder.stream(mel[..., 37:], state, final=True)[0]
    assert torch.equal(vocoder.stream(mel[..., 37:], state, final=True)[0], once)


@pytest.mark.parametrize("name", KINDS)
def test_bad_mels_are_refused(name):
    vocoder = build(name)
    for value in (float("nan"), float("inf"), -float("inf")):
        mel = speech_like(20)
        mel[0, 3, 7] = value
        with pytest.raises(ValueError, match="NaN or infinity at frame 7"):
            vocoder(mel)
    with pytest.raises(ValueError, match=r"80 bands, frames\), got \(1, 79, 5\)"):
        vocoder(torch.zeros(1, 79, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["source_filter", "hifigan", "melgan", "vocos"])
def test_an_hour_takes_no_more_memory_than_a_minute(name):
    """Streamed; and a convolutional vocoder says at the end what it said at the beginning."""
    vocoder, chunk = build(name), speech_like(512)
    vocoder.tile = 128
    hour = 3600 * 22050 // 256 // 512
    state, samples, early, after_a_minute = None, 0, None, (0, 0)
    for number in range(hour):
        audio, state = vocoder.stream(chunk, state, final=number == hour - 1)
        samples += audio.shape[1]
        assert bool(audio.isfinite().all())
        size = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, numbers_in(state))
        if number == hour // 60:
            early, after_a_minute = audio, size
        elif early is not None and number < hour - 1:
            assert size[1] == after_a_minute[1]
            assert name in ("source_filter",) or torch.equal(audio, early)
    assert samples == hour * 512 * 256
    assert size[0] - after_a_minute[0] < 20_000  # KiB


def numbers_in(state):
    """How many numbers a nested state holds."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(numbers_in(part) for part in state) if isinstance(state, tuple) else 0


@pytest.mark.parametrize("level", [-1e30, 30.0, 1e30])
def test_absurd_levels_stay_finite(level):
    audio = build("source_filter")(torch.full((1, 80, 20), level))
    assert bool(audio.isfinite().all()) and float(audio.abs().max()) <= 1


def test_wrong_shapes_are_refused():
    vocoder = build("source_filter")
    for shape in [(80, 5), (1, 5, 80, 1)]:
        with pytest.raises(ValueError, match="80 bands"):
            vocoder(torch.zeros(shape))
    with pytest.raises(ValueError, match="f0 must be"):
        vocoder(torch.zeros(1, 80, 5), f0=torch.zeros(1, 4))
    for f0 in (-1.0, 12000.0, float("nan")):
        with pytest.raises(ValueError, match="f0 must be in Hz"):
            vocoder(torch.zeros(1, 80, 5), f0=torch.full((1, 5), f0))
    _, state = vocoder.stream(torch.zeros(1, 80, 5))
    with pytest.raises(ValueError, match="keep the batch"):
        vocoder.stream(torch.zeros(2, 80, 5), state)
    with pytest.raises(ValueError, match="f0 always or never"):
        vocoder.stream(torch.zeros(1, 80, 5), state, f0=torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("vocoder", "frames"),
    [
        (HiFiGAN(channels=16), 12.73),
        (HiFiGAN(**{**V3, "channels": 16}), 10.09),
        (ISTFTNet(channels=16), 12.09),
        (MelGAN(channels=32), 5.57),
        (Vocos(dim=24, layers=8), 28.5),
        (SourceFilter(dim=24, pitch_dim=16), 16.5),
    ],
    ids=lambda x: getattr(x, "kind", None),
)
def test_latency_is_the_receptive_field(vocoder, frames):
    assert vocoder.delay(80) / 256 == pytest.approx(frames, abs=0.01)
