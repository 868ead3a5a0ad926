"""FastSpeech: padding, streaming, controls, learning, faults. Small models with random weights."""

import math

import pytest
import torch

from melstate.tts.acoustic import Batch, Controls
from melstate.tts.fastspeech import FastSpeech
from melstate.tts.text import symbols as table
from melstate.tts.variance import frame_energy, harmonic_bands, harmonic_comb
from melstate.vocoders.mel import MelConfig

SMALL = {"dim": 32, "hidden": 32, "mixer_options": {"heads": 2}, "encoder_blocks": 2, "decoder_blocks": 2}
HELLO = table.to_ids("^ HH AH0 L OW1 , W ER1 L D . $".split())


def build(**options):
    torch.manual_seed(0)
    model = FastSpeech(**{**SMALL, **options}).eval()
    # Gates that start at zero would hide what they gate.
    torch.nn.init.normal_(model.decoder.comb_gain.weight, std=0.1)
    return model


def make_batch(sizes, seed=0):
    """Random utterances with durations 0..9 (0 on punctuation only), padded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, n):
        return torch.randint(low, high, (n,), generator=generator)

    phones = [torch.tensor([table.ID["^"], *draw(8, len(table.SYMBOLS), n).tolist(), table.ID["$"]]) for n in sizes]
    durations = [draw(1, 9, n + 2) for n in sizes]
    frames = [int(d.sum()) for d in durations]
    pad = torch.nn.utils.rnn.pad_sequence
    return Batch(
        phones=pad(phones, batch_first=True),
        phone_lengths=torch.tensor([len(p) for p in phones]),
        mels=pad([torch.randn(t, 80, generator=generator) - 5 for t in frames], batch_first=True).transpose(1, 2),
        mel_lengths=torch.tensor(frames),
        log_f0=pad([torch.randn(t, generator=generator) * 0.2 + 5 for t in frames], batch_first=True),
        voiced=pad([(torch.rand(t, generator=generator) > 0.4).float() for t in frames], batch_first=True),
        durations=pad(durations, batch_first=True),
        speakers=torch.zeros(len(sizes)).long(),
        ids=tuple(f"clip{i}" for i in range(len(sizes))),
    )


def one(batch, row):
    n, t = int(batch.phone_lengths[row]), int(batch.mel_lengths[row])
    r = slice(row, row + 1)
    return Batch(
        batch.phones[r, :n],
        batch.phone_lengths[r],
        batch.mels[r, :, :t],
        batch.mel_lengths[r],
        batch.log_f0[r, :t],
        batch.voiced[r, :t],
        batch.durations[r, :n],
        batch.speakers[r],
        batch.ids[r],
    )


def spoken(model, phones=HELLO, chunk=32, **controls):
    parts = list(model.stream(phones, controls=Controls(**controls), chunk=chunk))
    return [torch.cat([getattr(p, name) for p in parts], -1) for name in ("mel", "f0", "symbol")]


@pytest.mark.parametrize("options", [{}, {"reduction": 1, "backward": 0}, {"mixer": "rg_lru", "backward": 16}])
def test_padding_changes_nothing(options):
    model = build(**options)
    batch = make_batch([5, 30, 12])
    together, losses = model.teacher_forced(batch), model.losses(batch)
    singles = [one(batch, row) for row in range(3)]
    for row, single in enumerate(singles):
        frames = single.mels.shape[2]
        torch.testing.assert_close(together[row, :, :frames], model.teacher_forced(single)[0], atol=1e-4, rtol=0)
        assert together[row, :, frames:].abs().sum() == 0
    weights = {"f0": batch.voiced.sum(1), "mel": batch.mel_lengths, "voicing": batch.mel_lengths}
    for name, value in losses.items():
        parts = torch.stack([model.losses(single)[name] for single in singles])
        share = weights.get(name, batch.phone_lengths).float()
        torch.testing.assert_close(value, (parts * share / share.sum()).sum(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"reduction": 1}, {"backward": 0, "mixer": "rg_lru"}])
def test_every_chunking_speaks_the_same(options):
    model = build(**{"backward": 8, **options})
    phones = HELLO[:-1] + HELLO[1:-1] * 4 + HELLO[-1:]
    offline = spoken(model, phones, chunk=10**6)
    assert offline[0].shape[1] == len(offline[1]) == len(offline[2]) > 100
    for chunk in (1, 48, 100):
        for a, b in zip(spoken(model, phones, chunk=chunk), offline, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    sizes = [part.mel.shape[1] for part in model.stream(phones, chunk=16)]
    assert len(sizes) > 4 and max(sizes[:-1]) <= 64


def test_state_never_grows():
    model = build(backward=8)
    durations = torch.full((1, 40), 8)
    inputs = model.decoder.stretch(torch.randn(1, 40, 32), torch.zeros(1, 40), durations, 320)
    state, sizes = None, []

    def numbers(x):
        return x.numel() if isinstance(x, torch.Tensor) else sum(numbers(part) for part in x)

    for start in range(0, inputs.steps, 8):
        _, state = model.decoder(
            inputs, state, start=start, stop=start + 8, f0_scale=(torch.tensor(5.0), torch.tensor(0.2))
        )
        sizes.append(numbers(state))
    assert len(set(sizes)) == 1


def test_speed_and_pause_change_the_time():
    model = build()
    plain = spoken(model)[2]
    counts = torch.bincount(plain, minlength=len(HELLO))
    slow = torch.bincount(spoken(model, speed=0.5)[2], minlength=len(HELLO))
    assert abs(int(slow.sum()) - 2 * int(counts.sum())) <= 2
    comma = HELLO.index(table.ID[","])
    for pause in (0.0, 3.0):
        changed = torch.bincount(spoken(model, pause=pause)[2], minlength=len(HELLO))
        assert abs(int(changed[comma]) - pause * int(counts[comma])) <= 2
        assert abs(int(changed[1]) - int(counts[1])) <= 1
    fast = torch.bincount(spoken(model, speed=4.0, pause=0.0)[2], minlength=len(HELLO))
    sounded = torch.tensor([table.SYMBOLS[i] in table.PHONES for i in HELLO])
    assert (fast[sounded] >= 1).all()


def test_pitch_moves_f0_by_semitones():
    model = build()
    torch.nn.init.constant_(model.decoder.contour.bias, 3.0)  # voices everything
    f0, higher = spoken(model)[1], spoken(model, pitch=2.0)[1]
    both = (f0 > 0) & (higher > 0)
    assert both.sum() > 5
    ratio = (higher[both] / f0[both]).log().mean() / math.log(2) * 12
    assert 1.0 < ratio < 3.0  # the random network answers its raised input with some F0 of its own


def test_energy_is_a_gain_in_decibels():
    model = build()
    quiet, loud = spoken(model)[0], spoken(model, energy=6.0)[0]
    torch.testing.assert_close(loud, quiet + 6 * math.log(10) / 20)


def test_without_variation_all_symbols_are_given_one_pitch():
    model = build()
    seen = []
    model.decoder.stretch = lambda encoded, pitch, *rest: (
        seen.append(pitch) or type(model.decoder).stretch(model.decoder, encoded, pitch, *rest)
    )
    for variation in (0.0, 1.0, 2.0):
        spoken(model, variation=variation)
    flat, plain, lively = seen
    assert flat.std() < 1e-6 < plain.std()
    torch.testing.assert_close(lively - lively.mean(), 2 * (plain - plain.mean()), atol=1e-5, rtol=1e-4)


def test_it_learns_a_sentence():
    torch.manual_seed(0)
    model = FastSpeech(**{**SMALL, "dropout": 0.0, "predictor_dropout": 0.0, "encoder_blocks": 1, "decoder_blocks": 1})
    batch = make_batch([6])
    model.set_statistics(torch.full((80,), -5.0), torch.ones(80), (5.0, 0.2), (-4.5, 0.5))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = None
    for _ in range(40):
        losses = model.losses(batch)
        first = first or {name: value.item() for name, value in losses.items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for name, value in losses.items():
        assert value.item() < 0.6 * first[name], name
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    durations = torch.bincount(spoken(model.eval(), batch.phones[0].tolist())[2], minlength=8)
    assert (durations - batch.durations[0]).abs().max() <= 2


def test_one_symbol_and_a_very_long_sentence_are_spoken():
    model = build()
    long = HELLO[:-1] + HELLO[1:-1] * 60 + HELLO[-1:]
    for phones in (HELLO[1:2], HELLO[:1], long):
        mel, f0, symbol = spoken(model, phones)
        assert mel.isfinite().all() and f0.isfinite().all() and len(symbol) >= 1
        assert symbol.unique().tolist()[-1] <= len(phones) - 1


def test_bad_input_is_refused():
    model = build()
    with pytest.raises(ValueError, match="no symbols"):
        next(model.stream([]))
    with pytest.raises(ValueError, match="0..76, got 5..77"):
        next(model.stream([5, 77]))
    with pytest.raises(ValueError, match="run the aligner first"):
        model.losses(make_batch([4])._replace(durations=None))
    with pytest.raises(ValueError, match="pitch_std must be finite and positive"):
        model.set_statistics(torch.zeros(80), torch.ones(80), (5.0, 0.0), (0.0, 1.0))


def test_the_config_rebuilds_the_model():
    model = build(pausing=[1, 2], mel=MelConfig(hop=200))
    again = FastSpeech(**model.config).eval()
    assert again.config == model.config and again.mel == model.mel
    again.load_state_dict(model.state_dict())
    for a, b in zip(spoken(again), spoken(model), strict=True):
        torch.testing.assert_close(a, b)


def test_energy_is_the_log_root_mean_square():
    mel = torch.randn(2, 80, 5)
    torch.testing.assert_close(frame_energy(mel), mel.exp().square().mean(1).sqrt().log())


def test_comb_is_one_on_harmonics_and_silent_where_unvoiced():
    bands = torch.tensor([200.0, 300.0, 400.0])
    comb = harmonic_comb(torch.tensor([200.0, 200.0]), torch.tensor([1.0, 0.0]), bands)
    torch.testing.assert_close(comb, torch.tensor([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]]), atol=1e-5, rtol=0)
    bands = harmonic_bands(MelConfig())
    assert 30 < len(bands) < 60 and (bands.diff() > 0).all() and bands.max() < 2000


def test_untrained_symbols_are_spoken_by_their_stand_ins():
    bang, stop = table.ID["!"], table.ID["."]
    model = build(stand_ins=[[bang, stop]])
    exclaimed = [bang if symbol == stop else symbol for symbol in HELLO]
    spoken = [torch.cat([f.mel for f in model.stream(ids)], 1) for ids in (HELLO, exclaimed)]
    assert torch.equal(*spoken) and model.config["stand_ins"] == [[bang, stop]]
    other = build()
    assert not torch.equal(*(torch.cat([f.mel for f in other.stream(ids)], 1)[:, :8] for ids in (HELLO, exclaimed)))
    with pytest.raises(ValueError, match="stand_ins"):
        build(stand_ins=[[bang, 1000]])
