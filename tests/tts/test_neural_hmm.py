"""The neural HMM: its likelihood is its synthesis's, no symbol is skipped, streaming changes nothing."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from melstate.kernels.hmm import hmm_reference
from melstate.tts import neural_hmm_decoding as decoding
from melstate.tts.acoustic import Batch, Controls
from melstate.tts.neural_hmm import NeuralHMM, utterance_prosody
from melstate.vocoders.mel import MelConfig

MEL = MelConfig(n_mels=6)
PHONES = [1, 9, 12, 2, 30, 3]


def build(**options):
    torch.manual_seed(0)
    given = {"mel": MEL, "dim": 16, "hidden": 16, "encoder_blocks": 1, "encoder_options": {"conv": 0, "heads": 2}}
    given |= {"prenet": 8, "context": 16, "mixer_options": {"heads": 2}, "output": 12}
    if options.get("mixer", "gla") != "gla":
        given.pop("mixer_options")
    model = NeuralHMM(**(given | options)).eval()
    # Beyond the flat start, so that everything is heard in the output.
    with torch.no_grad():
        model.out.weight.normal_(std=0.3)
        model.from_prosody.weight.normal_(std=0.1)
    return model


def utterances(lengths=((40, 6), (29, 5), (30, 3))):
    generator = torch.Generator().manual_seed(1)
    frames, symbols = (torch.tensor(x) for x in zip(*lengths, strict=True))
    time, width, rows = int(frames.max()), int(symbols.max()), len(lengths)
    mels = torch.randn(rows, 6, time, generator=generator) * 2 - 5
    mels = mels * (torch.arange(time) < frames[:, None])[:, None]
    phones = torch.randint(1, 70, (rows, width), generator=generator) * (torch.arange(width) < symbols[:, None])
    log_f0 = 5 + 0.1 * torch.randn(rows, time, generator=generator)
    ids = tuple(f"clip{row}" for row in range(rows))
    voiced = torch.ones(rows, time)
    return Batch(phones, symbols, mels, frames, log_f0, voiced, None, torch.zeros(rows, dtype=torch.long), ids)


def single(batch, row):
    frames, symbols = int(batch.mel_lengths[row]), int(batch.phone_lengths[row])
    cut = batch._replace(
        phones=batch.phones[:, :symbols], mels=batch.mels[..., :frames], log_f0=batch.log_f0[:, :frames],
        voiced=batch.voiced[:, :frames],
    )  # fmt: skip
    return Batch(*(x if x is None else x[row : row + 1] for x in cut))


def joined(frames):
    frames = list(frames)
    return torch.cat([part.mel for part in frames], 1), torch.cat([part.symbol for part in frames])


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("mixer", ["gla", "lstm"])
@pytest.mark.parametrize("convention", ["generative", "published"])
def test_the_likelihood_is_that_of_the_whole_network_at_every_pair(mixer, convention, reduction):
    """First layer unsplit, every frame and state at once, distributions by torch, the recursion by its definition."""
    model = build(mixer=mixer, convention=convention, reduction=reduction)
    batch = single(utterances(), 1)
    found = model.log_likelihood(batch, dropout=False)
    normal = (batch.mels[0] - model.mel_mean) / model.mel_std
    if reduction == 2:
        normal = torch.cat([normal, normal[:, -1:]], 1)
    observed = normal.T.reshape(-1, 6 * reduction)
    past = torch.cat([model.go[None], observed[:-1]])
    context = model.mixer(model.enter(model.prenet(past[None], dropout=False)))[0][0]
    encoded = model.encoder(batch.phones, batch.phone_lengths)[0].repeat_interleave(2, 0)
    prosody = (utterance_prosody(batch)[0] - model.prosody_mean) / model.prosody_std
    first = torch.stack(model.from_symbol.weight.chunk(2)), torch.stack(model.from_symbol.bias.chunk(2))
    scores = []
    for t in range(len(observed)):
        row = []
        for n in range(len(encoded)):
            weight = torch.cat([model.from_past.weight, first[0][n % 2], model.from_prosody.weight], 1)
            read = torch.cat([context[t], encoded[n], prosody.clamp(-3, 3)])
            out = model.out(F.relu(weight @ read + first[1][n % 2]))
            bands = 6 * reduction
            density = torch.distributions.Normal(out[:bands], F.softplus(out[bands:-1]).clamp(min=0.01))
            row.append(torch.stack([density.log_prob(observed[t]).sum(), out[-1]]))
        scores.append(torch.stack(row))
    emission, transition = torch.stack(scores).unbind(-1)
    wanted = hmm_reference(emission.double(), transition.double(), convention)
    assert float((found[0] - wanted).detach().abs() / wanted.detach().abs()) < 1e-5


@pytest.mark.parametrize("reduction", [1, 2])
def test_padding_changes_nothing(reduction):
    model, batch = build(reduction=reduction), utterances()
    together, durations = model.log_likelihood(batch, dropout=False), model.durations(batch)
    for row in range(3):
        alone = single(batch, row)
        torch.testing.assert_close(
            together[row : row + 1], model.log_likelihood(alone, dropout=False), rtol=1e-4, atol=0
        )
        assert durations[row, : int(batch.phone_lengths[row])].tolist() == model.durations(alone)[0].tolist()
    assert durations.sum(1).tolist() == batch.mel_lengths.tolist()
    inside = torch.arange(durations.shape[1]) < batch.phone_lengths[:, None]
    assert int(durations[inside].min()) >= 1 and int(durations[~inside].sum()) == 0


def test_flat_start_is_a_standard_normal_with_the_corpus_rate():
    model, batch = build(), utterances()
    first = torch.arange(6.0)
    model.set_statistics(torch.zeros(6), torch.full((6,), 2.0), utterance_prosody(batch), first, 0.15)
    model.train()
    found = single(batch, 0)
    emission = torch.distributions.Normal(0.0, 1.0).log_prob(found.mels[0] / 2).sum()
    paths = math.log(math.comb(39, 11)) + 12 * math.log(0.3) + 28 * math.log(0.7)
    assert float((model.log_likelihood(found)[0] - emission - paths).abs()) < 1e-2
    torch.testing.assert_close(model.go, first / 2)


def test_every_parameter_learns_and_the_loss_falls():
    model, batch = build(prenet_dropout=0.0).train(), utterances()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    history = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.losses(batch)["likelihood"]
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        history.append(float(loss))
        optimizer.step()
    assert not [name for name, p in model.named_parameters() if not p.grad.any()]
    assert history[-1] < history[0] - 0.05


@pytest.mark.parametrize("options", [{}, {"mixer": "lstm"}, {"reduction": 3}, {"states": 1}, {"temperature": 0.7}])
def test_streaming_changes_nothing_and_no_symbol_is_skipped(options):
    model = build(**options)

    def speak(chunk, largest=None):
        generator = torch.Generator().manual_seed(3)
        return joined(model.stream(PHONES, chunk=chunk, largest=largest, generator=generator, durations="sampled"))

    mel, symbol = speak(10_000)
    for chunk, largest in ((1, None), (5, None), (2, 16)):
        other, at = speak(chunk, largest)
        assert torch.equal(mel, other) and torch.equal(symbol, at)
    assert mel.shape == (6, len(symbol)) and mel.isfinite().all()
    assert symbol.unique_consecutive().tolist() == list(range(len(PHONES)))
    least = model.states * model.reduction
    assert int(symbol.bincount().min()) >= least


def test_chunks_grow():
    model = build()
    sizes = [len(part.symbol) for part in model.stream(PHONES * 6, chunk=4, largest=16)]
    assert sizes[:4] == [4, 8, 16, 16] and max(sizes) == 16


def test_sentences_side_by_side_are_those_alone():
    model = build(prenet_dropout=0.0)
    sentences = [PHONES, PHONES[:2], PHONES[::-1] * 2]
    for phones, together in zip(sentences, model.speak(sentences), strict=True):
        mel, symbol = joined(model.stream(phones))
        assert torch.equal(symbol, together.symbol)
        torch.testing.assert_close(mel, together.mel, rtol=0, atol=1e-4)


def test_the_state_does_not_grow():
    model = build()
    state = decoding.start(model, 1)
    sizes = set()
    for _ in range(5):
        state, _ = decoding.step(model, state, torch.zeros(1, 12), torch.ones(1), 0.0, "quantile", None)
        sizes.add((state.last.shape, *(x.shape for x in state.mixer)))
    assert len(sizes) == 1


def spoken_frames(model, **options):
    return len(joined(model.stream(PHONES, generator=torch.Generator().manual_seed(0), **options))[1])


def test_durations_follow_threshold_speed_and_pause():
    """At transitions that do not depend on what is spoken, so that only the rule is tested."""
    model = build()
    model._flat_start(0.1)
    lengths = []
    for threshold in (0.9, 0.5, 0.2):
        model.threshold = threshold
        lengths.append(spoken_frames(model))
    # 0.9^7 < 0.5 <= 0.9^6: the median of a geometric duration.
    assert lengths[0] < lengths[1] == 7 * 2 * len(PHONES) < lengths[2]
    model.threshold = 0.5
    speeds = [spoken_frames(model, controls=Controls(speed=speed)) for speed in (0.5, 0.8, 1.0, 1.5, 3.0)]
    assert speeds == sorted(speeds, reverse=True) and speeds[0] == 14 * 2 * len(PHONES) and speeds[-1] < speeds[2] / 2
    sampled = [spoken_frames(model, durations="sampled", controls=Controls(speed=speed)) for speed in (0.5, 1.0, 2.0)]
    assert sampled == sorted(sampled, reverse=True)
    pausing = build(pausing=[PHONES[3]])
    pausing._flat_start(0.1)
    counts = [joined(pausing.stream(PHONES, controls=Controls(pause=pause)))[1].bincount() for pause in (0.0, 1.0, 2.0)]
    assert [int(count[3]) for count in counts] == [2, 14, 28]
    assert all(torch.equal(count[[0, 1, 2, 4, 5]], counts[0][[0, 1, 2, 4, 5]]) for count in counts)


def test_sampled_durations_have_the_models_mean():
    model = build(states=1)
    model._flat_start(0.25)
    symbol = joined(model.stream([5] * 400, generator=torch.Generator().manual_seed(0), durations="sampled"))[1]
    assert abs(len(symbol) / 400 - 4.0) < 0.5


def test_what_does_not_end_is_cut_and_said():
    model = build(states=1)
    model._flat_start(1e-6)
    with pytest.warns(decoding.LongSymbolWarning, match=r"symbol 0 .*, 1 .* of 2 had not ended after 172 frames"):
        symbol = joined(model.stream(PHONES[:2]))[1]
    assert symbol.bincount().tolist() == [172, 172]
    model._flat_start(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spoken_frames(model)


def test_prosody_is_heard_and_energy_beyond_it_is_a_gain():
    model = build(prenet_dropout=0.0)

    def first(**options):
        return joined(model.stream(PHONES, **options))[0][:, 0]

    plain = first()
    shift = first(controls=Controls(pitch_sd=1.0)) - plain
    assert float(shift.abs().max()) > 1e-3
    semitones = 12 / math.log(2) * float(model.prosody_std[0])
    torch.testing.assert_close(first(controls=Controls(pitch=semitones)), plain + shift)
    # 3 deviations of 0.3 nats are 7.8 dB: the rest of 10 and of 12 dB is gain.
    loud, louder = first(controls=Controls(energy=10.0)), first(controls=Controls(energy=12.0))
    torch.testing.assert_close(louder - loud, torch.full((6,), 2 * math.log(10) / 20))
    both = first(controls=Controls(energy=2.0, energy_sd=3.0)) - first(controls=Controls(energy_sd=3.0))
    torch.testing.assert_close(both, torch.full((6,), 2 * math.log(10) / 20))
    lengths = {len(joined(model.stream(PHONES, controls=Controls(rate_sd=rate)))[1]) for rate in (-3.0, 3.0)}
    assert len(lengths) == 2


def spoken_at(rates, generator):
    """Utterances of five symbols with so many frames each, all sounding alike: only durations are to be learned."""
    frames = 5 * torch.tensor(rates)
    phones = torch.randint(1, 70, (len(rates), 5), generator=generator)
    inside = torch.arange(int(frames.max())) < frames[:, None]
    mels = (0.3 * torch.randn(len(rates), 6, int(frames.max()), generator=generator) - 5) * inside[:, None]
    log_f0, voiced = torch.full(inside.shape, 5.0), inside.float()
    lengths, ids = torch.full_like(frames, 5), tuple(map(str, range(len(rates))))
    return Batch(phones, lengths, mels, frames, log_f0, voiced, None, torch.zeros_like(frames), ids)


def test_the_speaking_rate_that_is_learned_is_obeyed():
    model, generator = build(prenet_dropout=0.0, states=1).train(), torch.Generator().manual_seed(0)
    rates = (3, 4, 6, 8)
    first = spoken_at(rates, generator)
    model.set_statistics(torch.full((6,), -5.0), torch.full((6,), 2.0), utterance_prosody(first), torch.zeros(6), 0.2)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.losses(spoken_at(rates, generator))["likelihood"].backward()
        optimizer.step()
    asked = [-1.2, -0.6, 0.0, 0.6, 1.2]
    spoken = [len(joined(model.eval().stream([3, 9, 27, 41, 60], controls=Controls(rate_sd=r)))[1]) for r in asked]
    assert spoken == sorted(spoken, reverse=True) and spoken[0] > 1.3 * spoken[-1], spoken


def test_configuration_rebuilds_the_model():
    model = build(reduction=2, stand_ins=[[5, 6]])
    again = NeuralHMM(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    one, two = (joined(m.eval().stream(PHONES, generator=torch.Generator().manual_seed(0)))[0] for m in (model, again))
    assert torch.equal(one, two)


def test_bad_input_is_refused():
    model, batch = build(), utterances(((40, 6), (9, 5)))
    with pytest.raises(ValueError, match="utterance 'clip1' has 9 frames for 10 states"):
        model.losses(batch)
    with pytest.raises(ValueError, match="no symbols"):
        next(model.stream([]))
    with pytest.raises(ValueError, match=r"symbol ids must be in 0\.\.76, got 1\.\.99"):
        next(model.stream([1, 99]))
    with pytest.raises(ValueError, match="'quantile' or 'sampled', got 'mean'"):
        next(model.stream(PHONES, durations="mean"))
    with pytest.raises(ValueError, match="reduction must be at least 1, got 0"):
        build(reduction=0)
    with pytest.raises(ValueError, match="threshold"):
        build(threshold=1.0)
    with pytest.raises(ValueError, match="positive"):
        model.set_statistics(torch.zeros(6), torch.zeros(6), torch.zeros(2, 3), torch.zeros(6), 0.1)
    with pytest.raises(ValueError, match="prosody must be finite"):
        model.set_statistics(torch.zeros(6), torch.ones(6), torch.full((2, 3), math.nan), torch.zeros(6), 0.1)
