"""The flow can be undone and knows its volume; OverFlow's likelihood is exact and its synthesis whole."""

import pytest
import torch

from melstate.tts.acoustic import Batch
from melstate.tts.flow import Flow
from melstate.tts.neural_hmm import NeuralHMM
from melstate.tts.overflow import OverFlow
from melstate.vocoders.mel import MelConfig

PHONES = [1, 9, 12, 2]


def build_flow(**options):
    torch.manual_seed(0)
    flow = Flow(6, **({"steps": 3, "hidden": 8, "layers": 2} | options)).eval().double()
    # Away from the identity that couplings start as.
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


def build(**options):
    torch.manual_seed(0)
    small = {"mel": MelConfig(n_mels=6), "dim": 16, "hidden": 16, "encoder_blocks": 1, "prenet": 8, "context": 16}
    small |= {"encoder_options": {"heads": 2}, "mixer_options": {"heads": 2}, "output": 12}
    return OverFlow(**small, flow_steps=2, flow_hidden=8, flow_layers=2, **options).eval()


def utterances(lengths=((41, 4), (30, 3))):
    generator = torch.Generator().manual_seed(1)
    frames, symbols = (torch.tensor(x) for x in zip(*lengths, strict=True))
    rows, time, width = len(lengths), int(frames.max()), int(symbols.max())
    mels = torch.randn(rows, 6, time, generator=generator) - 5
    phones = torch.randint(1, 70, (rows, width), generator=generator) * (torch.arange(width) < symbols[:, None])
    plain = torch.ones(rows, time)
    return Batch(phones, symbols, mels, frames, plain, plain, None, symbols, tuple("abc"[:rows]))


def test_what_goes_in_comes_back_and_padding_is_not_heard():
    flow, frames = build_flow(), torch.tensor([12, 8])
    x = torch.randn(2, 6, 12, dtype=torch.float64)
    x[1, :, 8:] = float("nan")
    z, logdet = flow(x, frames)
    assert float((flow.inverse(z, frames)[0] - x[0]).abs().max()) < 1e-10
    alone, own = flow(x[1:, :, :8], frames[1:])
    torch.testing.assert_close(z[1:, :, :8], alone)
    torch.testing.assert_close(logdet[1:], own)
    assert int(z[1, :, 8:].count_nonzero()) == 0
    with pytest.raises(ValueError, match="lengths must be even, got"):
        flow(x, torch.tensor([12, 7]))


def test_the_volume_is_the_jacobians():
    flow, frames = build_flow(), torch.tensor([4])
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: flow(y, frames)[0].flatten(), x).reshape(24, 24)
    assert float((flow(x, frames)[1] - torch.linalg.slogdet(jacobian)[1]).abs()) < 1e-9


def test_normalisations_fit_real_frames():
    flow = build_flow(steps=1)
    x = 3 * torch.randn(2, 6, 40, dtype=torch.float64) + 5
    x[1, :, 20:] = 1e6
    frames = torch.tensor([40, 20])
    flow(x, frames, fit=True)
    y, inside = flow._squeezed(x, frames)
    normal, _ = flow.layers[0](y, inside)
    count = inside.sum()
    assert float((normal.sum((0, 2)) / count).abs().max()) < 1e-9
    torch.testing.assert_close(normal.square().sum((0, 2)) / count, torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_an_identity_flow_leaves_the_neural_hmm(reduction):
    model, batch = build(reduction=reduction, convention="published"), utterances(((36, 3), (30, 2)))
    with torch.no_grad():
        model.out.weight.normal_(std=0.3)
        for mixing in model.flow.layers[1::3]:
            mixing.weight.copy_(torch.eye(4))
    config = {name: value for name, value in model.config.items() if not name.startswith("flow_")}
    plain = NeuralHMM(**config).eval()
    plain.load_state_dict({n: x for n, x in model.state_dict().items() if not n.startswith("flow.")})
    torch.testing.assert_close(
        model.log_likelihood(batch, dropout=False), plain.log_likelihood(batch, dropout=False), rtol=1e-5, atol=1e-2
    )


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_odd_lengths_are_kept(reduction):
    model, batch = build(reduction=reduction), utterances()
    durations = model.durations(batch)
    assert durations.sum(1).tolist() == [41, 30]
    assert int(durations[torch.arange(4) < batch.phone_lengths[:, None]].min()) >= 1
    torch.manual_seed(0)
    for phones in (PHONES, PHONES[:3]):
        parts = list(model.stream(phones, chunk=4, generator=torch.Generator().manual_seed(0)))
        symbol = torch.cat([part.symbol for part in parts])
        assert len(parts) == 1 and parts[0].mel.shape == (6, len(symbol)) and parts[0].mel.isfinite().all()
        assert symbol.unique_consecutive().tolist() == list(range(len(phones)))


def test_training_reaches_flow_and_hmm():
    model, batch = build(prenet_dropout=0.0).train(), utterances()
    model.fit_flow(batch)
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    history = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model.losses(batch)["likelihood"]
        loss.backward()
        history.append(float(loss.detach()))
        optimizer.step()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert min(history[-2:]) < history[0], history
    again = OverFlow(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config and again.flow.layers[0].bias.any()


def test_single_frame_symbols_are_refused():
    with pytest.raises(ValueError, match="at least 2 frames: states · reduction is 1 · 1"):
        build(states=1)
