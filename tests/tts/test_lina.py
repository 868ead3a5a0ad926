"""Lina: streamed is offline, the state never grows, the guard holds, faults are mended and told, everything learns."""

import math
import warnings

import pytest
import torch

from melstate.tts import lina_decoding
from melstate.tts.acoustic import Batch, Controls
from melstate.tts.initial_state import InitialStates, leaves, state_bytes
from melstate.tts.lina import Lina
from melstate.tts.lina_decoding import DecodingWarning, Report
from melstate.tts.text.symbols import ID
from melstate.vocoders.mel import MelConfig

MEL = MelConfig(n_mels=6)
PHONES = [1, 9, 12, 30, 41, 12, 9, 5, 2]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Untrained models babble: they are stopped sooner than speech would be."""
    monkeypatch.setattr(lina_decoding, "PATIENCE", 0.3)


def build(**options):
    torch.manual_seed(0)
    given = {"mel": MEL, "text_dim": 16, "text_hidden": 16, "text_blocks": 1, "dim": 16, "hidden": 16, "blocks": 1}
    given |= {"options": {"heads": 2}, "key_dim": 8, "place_dim": 16, "path_dim": 16, "embedding": 12, "prenet": 12}
    given |= {"retries": 0}
    if options.get("mixer", "gla") not in ("gla", "rwkv6"):
        given.pop("options")
    model = Lina(**(given | options)).eval()
    with torch.no_grad():
        for parameter in model.starts.right:
            parameter.normal_(std=0.3)
        model.to_stop.bias.fill_(-1.0)
    return model


def utterances(lengths=((40, 9), (29, 7), (31, 3)), durations=False):
    generator = torch.Generator().manual_seed(1)
    frames, symbols = (torch.tensor(x) for x in zip(*lengths, strict=True))
    time, width, rows = int(frames.max()), int(symbols.max()), len(lengths)
    heard = torch.arange(time) < frames[:, None]
    mels = (torch.randn(rows, 6, time, generator=generator) * 2 - 5) * heard[:, None]
    phones = torch.randint(1, 70, (rows, width), generator=generator) * (torch.arange(width) < symbols[:, None])
    log_f0 = (5 + 0.1 * torch.randn(rows, time, generator=generator)) * heard
    voiced = (torch.rand(rows, time, generator=generator) < 0.6).float() * heard
    spoken = None
    if durations:
        spoken = (frames // symbols)[:, None].repeat(1, width) * (torch.arange(width) < symbols[:, None])
        spoken[:, 0] += frames - spoken.sum(1)
    ids = tuple(f"clip{row}" for row in range(rows))
    return Batch(phones, symbols, mels, frames, log_f0, voiced, spoken, torch.tensor([0, 1, 0])[:rows], ids)


def single(batch, row):
    frames, symbols = int(batch.mel_lengths[row]), int(batch.phone_lengths[row])
    durations = None if batch.durations is None else batch.durations[:, :symbols]
    cut = batch._replace(
        phones=batch.phones[:, :symbols], mels=batch.mels[..., :frames], log_f0=batch.log_f0[:, :frames],
        voiced=batch.voiced[:, :frames], durations=durations,
    )  # fmt: skip
    return Batch(*(x if x is None else x[row : row + 1] for x in cut))


def speak(model, phones=PHONES, seed=0, report=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DecodingWarning)
        frames = list(model.stream(phones, generator=torch.Generator().manual_seed(seed), report=report, **options))
    f0 = None if frames[0].f0 is None else torch.cat([part.f0 for part in frames])
    return torch.cat([part.mel for part in frames], 1), torch.cat([part.symbol for part in frames]), f0


@pytest.mark.parametrize(
    "options",
    [{}, {"mixer": "lstm"}, {"mixer": "rwkv6"}, {"group": 1, "contour": False}, {"output": "drawn", "top_p": 0.8}],
)
def test_chunks_change_nothing(options):
    model = build(**options)
    whole = speak(model, chunk=100_000)
    for chunk, largest in ((1, 50),):
        for found, wanted in zip(speak(model, chunk=chunk, largest=largest), whole, strict=True):
            assert (found is None and wanted is None) or torch.equal(found, wanted)
    assert whole[0].shape == (6, len(whole[1])) and whole[0].isfinite().all()
    assert whole[1].tolist() == sorted(whole[1].tolist()) and int(whole[1].max()) >= len(PHONES) - 2
    assert (whole[2] is None) == (not model.contour)


def test_very_long_sentences_begin_anew_at_marks(monkeypatch):
    """Each part sounds as if it were spoken alone, and its symbols are those of the sentence."""
    comma, inner = ID[","], PHONES[1:-2]
    phones = [1, *inner, comma, *inner, comma, *inner, comma, *inner, 2]
    monkeypatch.setattr(lina_decoding, "LONGEST", len(inner) + 3)
    monkeypatch.setattr(lina_decoding, "SHORTEST", len(inner) + 2)
    ends = [2 * len(inner) + 2, len(phones) - 1]  # the first part has two stretches, for one is too short
    model, report = build(), Report()
    mel, symbol, _ = speak(model, phones, report=report)
    assert symbol.tolist() == sorted(symbol.tolist()) and int(symbol.max()) >= len(phones) - 2
    assert torch.equal(speak(model, phones, chunk=5)[0], mel)
    cut = list(lina_decoding.parts(phones, [i == comma for i in phones]))
    assert [(part.first, part.last) for part in cut] == [(0, ends[0]), (ends[0], ends[1])]
    assert [part.ids for part in cut] == [[*phones[: ends[0] + 1], 2], [1, *phones[ends[0] + 1 :]]]
    alone = speak(model, cut[0].ids)[0]
    assert torch.equal(mel[:, : alone.shape[1]], alone) and report.steps * model.group == mel.shape[1]
    monkeypatch.undo()
    assert len(list(lina_decoding.parts(phones, [i == comma for i in phones]))) == 1


@torch.no_grad()
def test_decoding_a_step_at_a_time_is_teaching_all_at_once():
    """Reading a recording's own groups one by one tells what teacher forcing tells."""
    model, batch = build(prenet_dropout=0.0, speakers=2), utterances()
    row = single(batch, 1)
    values = model.values(row)
    said = model.teach(row, values)
    text, state = model.text(row.phones, row.phone_lengths), model.start(row.speakers)
    read = model.go[None, None]
    for t in range(values.shape[1]):
        step, state = model(read, text, state)
        torch.testing.assert_close(step.known[:, 0], said.known[:, t], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(step.stop[:, 0], said.stop[:, t], atol=1e-4, rtol=1e-4)
        read = model.read(model.levels.quantise(values[:, t : t + 1]).flatten(2))


@torch.no_grad()
def test_the_state_never_grows(monkeypatch):
    """From one sentence's first step to the last of a text four times as long."""
    sizes = []
    step = lina_decoding._step

    def watched(model, text, place, *rest):
        sizes.append(state_bytes(place.state))
        return step(model, text, place, *rest)

    monkeypatch.setattr(lina_decoding, "_step", watched)
    model = build()
    speak(model, PHONES)
    speak(model, [1] + PHONES[1:-1] * 4 + [2])
    assert len(sizes) > 50 and set(sizes) == {state_bytes(model.start(torch.tensor([0])))} and sizes[0] > 0


@pytest.mark.parametrize("durations", [False, True])
def test_padding_changes_nothing(durations):
    model, batch = build(prenet_dropout=0.0, speakers=2), utterances(durations=durations)
    with torch.no_grad():
        together = model.teach(batch, model.values(batch))
        losses = model.losses(batch)
        mel = torch.zeros(3, 2)
        for row in range(3):
            alone = single(batch, row)
            values = model.values(alone)
            found = model.teach(alone, values)
            steps, symbols = values.shape[1], int(batch.phone_lengths[row])
            torch.testing.assert_close(together.known[row, :steps], found.known[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                together.attended.weights[row, :steps, :symbols], found.attended.weights[0], atol=1e-5, rtol=1e-4
            )
            mel[row] = torch.tensor([float(model.losses(alone)["mel"]), steps])
        wanted = (mel[:, 0] * mel[:, 1]).sum() / mel[:, 1].sum()
    torch.testing.assert_close(losses["mel"], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("durations", [False, True])
def test_every_parameter_learns_and_the_loss_falls(durations):
    model, batch = build(speakers=2, prenet_dropout=0.0, dropout=0.0, noise=0.0, blank=0.0).train(), utterances()
    batch = utterances(durations=durations)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    history = []
    for _ in range(10):
        optimizer.zero_grad()
        losses = model.losses(batch)
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        history.append({name: float(value.detach()) for name, value in losses.items()})
        optimizer.step()
    assert not [name for name, p in model.named_parameters() if not p.grad.any()]
    assert history[-1]["mel"] < history[0]["mel"] - 0.1
    assert history[-1]["alignment"] < history[0]["alignment"] and history[-1]["content"] < history[0]["content"]


def test_a_clip_learned_by_heart_is_spoken_along_the_diagonal():
    options = {"dim": 32, "prenet_dropout": 0.0, "dropout": 0.0, "noise": 0.3, "blank": 0.0}
    model = build(**options, temperature=0.0, offset=0, retries=1).train()
    batch = single(utterances(((60, 9),), durations=True), 0)
    smooth = torch.sin(torch.arange(60.0) / 9 + torch.arange(6.0)[:, None])[None] * 3 - 5
    batch = batch._replace(mels=smooth, speakers=torch.zeros(1, dtype=torch.long))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        losses = model.losses(batch)
        (losses["mel"] + 0.1 * losses["stop"] + losses["alignment"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    assert losses["mel"].item() < 1.0 and losses["alignment"].item() < 0.7
    report = Report()
    mel, symbol, _ = speak(model, batch.phones[0].tolist(), report=report)
    assert abs(mel.shape[1] - 60) <= 9 and report.retries == 0
    count = min(60, mel.shape[1])
    assert float((mel[:, :count] - smooth[0, :, :count]).abs().mean()) < 1.0
    path = torch.arange(9).repeat_interleave(batch.durations[0])[:count]
    assert float((symbol[:count] - path).abs().float().mean()) < 1.0


@torch.no_grad()
def test_the_guard_holds_and_tells(monkeypatch):
    """An untrained attention jumps about; guarded, no step goes further than the bounds."""
    model = build(back=1.0, ahead=2.0)
    seen = []
    step = lina_decoding._step

    def watched(model, text, place, generator, warmth, pushed):
        done = step(model, text, place, generator, warmth, pushed)
        seen.append((place.expected, done[2].expected, pushed))
        return done

    monkeypatch.setattr(lina_decoding, "_step", watched)
    report = Report()
    speak(model, [1] + PHONES[1:-1] * 3 + [2], report=report)
    for before, after, pushed in seen:
        assert before - 1.0 - 1e-4 <= after
        assert after <= max(before + 2.0, math.floor(before) + 1.0 if pushed else 0.0) + 1e-4
    assert report.held_back + report.held_on > 0
    assert max(report.furthest_skip, report.furthest_return) > 1.0
    assert report.steps * model.group >= 30


def faulty(monkeypatch, spoil):
    """Decoding whose step number n (of all that are made) passes through spoil(n, result)."""
    step, count = lina_decoding._step, iter(range(10**6))

    def spoiled(model, text, place, *rest):
        return spoil(next(count), step(model, text, place, *rest))

    monkeypatch.setattr(lina_decoding, "_step", spoiled)


def test_what_is_not_finite_is_decoded_again(monkeypatch):
    model, report = build(retries=1), Report()
    monkeypatch.setattr(lina_decoding, "PATIENCE", 1.2)  # the first passage has no other fault
    with torch.no_grad():
        model.to_stop.weight.zero_()
    clean = speak(model)
    faulty(monkeypatch, lambda n, done: (None, *done[1:]) if n == 3 else done)
    mel, symbol, _ = speak(model, report=report)
    assert report.retries >= 1 and "not finite" in report.faults[0] and mel.isfinite().all()
    assert symbol.tolist() == sorted(symbol.tolist()) and report.cut is None
    assert not torch.equal(mel[:, :9], clean[0][:, :9]), "another seed"


def test_what_is_never_finite_is_an_error():
    model = build(retries=2)
    with torch.no_grad():
        model.to_mel.weight[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="not finite, 3 times"):
        list(model.stream(PHONES))


def test_an_early_stop_is_tried_again_and_then_overruled():
    model, report = build(retries=2), Report()
    with torch.no_grad():
        model.to_stop.weight.zero_()
        model.to_stop.bias.fill_(9.0)
    with pytest.warns(DecodingWarning, match="speech stopped at symbol .* the end was reached"):
        frames = list(model.stream([1] + PHONES[1:-1] * 4 + [2], report=report))
    assert int(torch.cat([part.symbol for part in frames]).max()) >= 28
    assert report.faults and 2 <= report.retries <= 2 * len(report.faults) and report.cut is None


def test_babble_without_end_is_cut_and_told():
    model, report = build(retries=1), Report()
    with torch.no_grad():
        model.to_stop.weight.zero_()
        model.to_stop.bias.fill_(-99.0)
    with pytest.warns(DecodingWarning, match="went on after the text"):
        frames = list(model.stream(PHONES, report=report))
    seconds = sum(part.mel.shape[1] for part in frames) * MEL.hop / MEL.sample_rate
    longest = lina_decoding.PATIENCE * (len(PHONES) + 1) + lina_decoding.SLOWEST * len(PHONES)
    assert 0.3 < seconds < longest and report.retries >= 1


@torch.no_grad()
def test_attention_that_stands_still_is_pushed_on(monkeypatch):
    """Attention that would stay where it may: every symbol is reached all the same, in order, and it is told."""
    model, report = build(retries=0, back=0.0), Report()
    forward = type(model.attention).forward

    def still(self, speech, text, state=None, *, allowed=None):
        attended, state = forward(self, speech, text, state, allowed=allowed)
        first = torch.nn.functional.one_hot(allowed.int().argmax(-1), allowed.shape[-1]).float()
        return attended._replace(weights=first), state

    monkeypatch.setattr(type(model.attention), "forward", still)
    _, symbol, _ = speak(model, report=report)
    assert any("stuck" in fault for fault in report.faults)
    assert symbol.unique_consecutive().tolist()[: len(PHONES) - 1] == list(range(len(PHONES) - 1))
    monkeypatch.setattr(lina_decoding, "SLOWEST", 0.01)
    report = Report()
    _, symbol, _ = speak(model, report=report)
    assert report.cut is not None and f"cut after symbol {int(symbol[-1])} of 8" in report.cut


def test_controls():
    model = build()
    mel, symbol, f0 = speak(model)
    louder, _, _ = speak(model, controls=Controls(energy=6.0))
    torch.testing.assert_close(louder - mel, torch.full_like(mel, 6 * math.log(10) / 20))
    higher = speak(model, controls=Controls(pitch=12.0))[2]
    torch.testing.assert_close(higher, 2 * f0)
    faster = speak(model, controls=Controls(speed=2.0))[0]
    assert abs(faster.shape[1] - mel.shape[1] / 2) <= 2
    pauses = (symbol == 7) | (symbol == 8)
    longer = speak(model, controls=Controls(pause=3.0))[1]
    assert abs(len(longer) - len(symbol) - 2 * int(pauses.sum())) <= 2
    same = [speak(model, seed=seed, controls=Controls(variation=0.0))[0] for seed in (0, 0)]
    assert torch.equal(*same)
    with pytest.raises(ValueError, match="contour=False"):
        list(build(contour=False).stream(PHONES, controls=Controls(pitch=1.0)))


def test_seeds_differ_and_repeat():
    model = build()
    first, again, other = (speak(model, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "attention", "options": {}}, "'attention' has a state that grows"),
        ({"temperature": [0.5, 0.5]}, "or 8 of them, got 2"),
        ({"temperature": -0.1}, "temperature must be one number >= 0"),
        ({"top_p": 0.0}, "0 < top_p <= 1"),
        ({"output": "mode"}, "output 'mean' or 'drawn'"),
        ({"ahead": 0.5}, "ahead >= 1"),
        ({"speaker": 1}, r"speaker in 0\.\.0, got group 3, speaker 1"),
        ({"stand_ins": [[500, 1]]}, "stand_ins: ids must be in"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_texts_are_named():
    model = build()
    with pytest.raises(ValueError, match="no symbols to speak"):
        list(model.stream([]))
    with pytest.raises(ValueError, match=r"symbol ids must be in 0\.\.76, got 1\.\.500"):
        list(model.stream([1, 500, 2]))
    with pytest.raises(ValueError, match=r"speaker must be in 0\.\.0, got 0\.\.1"):
        model.losses(utterances())


def test_the_configuration_rebuilds_it():
    model = build(temperature=[0.5] * 8, speakers=2, speaker=1, stand_ins=[[9, 10]])
    again = Lina(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(speak(model)[0], speak(again.eval())[0])


def test_decoding_can_be_set_after_training():
    model = build()
    model.set_decoding([0.0] * 8, 0.9, "drawn", 1.0, 2.0, 2)
    assert speak(Lina(**model.config).eval())[0].shape[0] == 6 and model.config["temperature"] == [0.0] * 8
    assert (model.top_p, model.output, model.back, model.ahead, model.retries) == (0.9, "drawn", 1.0, 2.0, 2)
    with pytest.raises(ValueError, match="retries >= 0; got 1, 2, -1"):
        model.set_decoding(0.5, 1.0, "mean", 1.0, 2.0, -1)


def test_speakers_speak_differently():
    first, second = build(speakers=2), build(speakers=2, speaker=1)
    second.load_state_dict(first.state_dict())
    one, two = (speak(model)[0] for model in (first, second))
    assert one.shape != two.shape or not torch.equal(one, two)


def test_initial_states_are_of_low_rank_and_start_at_nothing():
    model = build(speakers=3, rank=1)
    blank = (model.lower.init_state(1), model.upper.init_state(1))
    fresh = InitialStates(blank, 3, 1)
    assert all(not leaf.any() for leaf in leaves(fresh(blank, torch.tensor([2]))))
    two = (model.lower.init_state(2), model.upper.init_state(2))
    state = model.starts(two, torch.tensor([1, 1]))
    for leaf in leaves(state):
        if leaf.dim() == 4 and leaf.numel():
            assert torch.linalg.matrix_rank(leaf.flatten(0, 1), atol=1e-5).unique().tolist() == [1]
            assert torch.equal(leaf[0], leaf[1])
